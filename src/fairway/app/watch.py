"""The monitor wired up: a process of its own beside the control process that leads, and `fairway monitor look`.

It has a process of its own because what it needs (scipy, scikit-learn, windows of rows) is more than the pages of the
control process may wait for.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa

from fairway.app.alerts import HomeAlerts
from fairway.app.home import Home
from fairway.app.log import known_models, open_join, open_log
from fairway.control.leadership import machine_clock
from fairway.core.clock import moment_of
from fairway.core.errors import FairwayError, InvalidInput, ModelNotFound, NotFound, SettingsError
from fairway.core.priority import give_way
from fairway.core.settings import ModelSettings, Settings
from fairway.monitoring.watch.look import Asked
from fairway.monitoring.watch.monitor import Monitor, Subjected, Version
from fairway.monitoring.watch.reference import Reference, bundle_reference, make_reference
from fairway.monitoring.watch.sample import Sample
from fairway.monitoring.watch.values import Report
from fairway.packaging.amend import read_profile
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.serving.logs import set_up_logging
from fairway.stores.label_join import WINDOW_SECONDS
from fairway.stores.log_reading import PredictionLog
from fairway.stores.opening import open_windows

logger = logging.getLogger("fairway.monitoring")

_REFERENCE_ROWS = 100_000
"""Most rows of a past time that windows are compared with: enough for some hundreds of each hour of a week."""


class LogRows:
    """`monitoring.watch.monitor.Rows` of a prediction log."""

    def __init__(
        self,
        log: PredictionLog,
        settings: Settings,
        digests: Callable[[str, int], str | None],
        only: str = "",
    ) -> None:
        """`digests` gives a version's digest, None where the registry has no such version; `only` names the one model
        that is looked at."""
        self._log = log
        self._settings = settings
        self._digests = digests
        self._only = only

    def versions(self) -> Sequence[Version]:
        found = []
        for model in [name for name in known_models(self._log) if self._only in ("", name)]:
            for present in self._log.present(model):
                digest = self._digests(model, present.version)
                if digest is not None and digest.removeprefix("sha256:").startswith(present.digest):
                    found.append(
                        Version(
                            model=model,
                            version=present.version,
                            digest=digest,
                            first=present.first,
                            last=present.last,
                        )
                    )
        return found

    def rows(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        return self._log.windows(
            version.model, start=start, end=end, versions=[version.version], digest=version.digest
        )

    def changed_labels(self, model: str, since: int) -> tuple[list[datetime], timedelta, int]:
        join = open_join(self._log, model, self._settings.log)
        join.step()
        starts, watermark = join.changed(0)
        if watermark >= since:  # else the log's folder was lost, and with it the join: this is a new one
            starts, watermark = join.changed(since)
        return starts, timedelta(seconds=WINDOW_SECONDS), watermark

    def labelled(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        join = open_join(self._log, version.model, self._settings.log)
        for batch in join.joined(start, end):
            mine = pa.array(np.asarray(batch.column("version")) == version.version)
            yield batch.filter(mine)


@contextmanager
def open_monitor(settings: Settings, model: str = "") -> Iterator[Monitor]:
    """The monitor of a home: reads its log, keeps what it sees in the registry's database, tells of it to its alerts. Of
    one model only where it is named. Raises ModelNotFound."""
    with Home(settings) as home:
        if model and not any(known.name == model for known in home.registry.models()):
            raise ModelNotFound(f"There is no model {model[:100]!r}.", hint="See them with: fairway models")
        store = open_windows(home.path, settings.registry)
        alerts = HomeAlerts(settings, os.environ)
        try:
            log = open_log(settings)

            def digest(model: str, version: int) -> str | None:
                try:
                    return home.registry.version(model, version).digest
                except NotFound:
                    return None

            def subjected(version: Version) -> Subjected:
                bundle = read_bundle(
                    home.registry.fetch(home.registry.version(version.model, version.version))
                )
                return _subjected(bundle, version, log, settings)

            rows = LogRows(log, settings, digest, model)
            yield Monitor(rows, store, subjected, alerts.alerts.observe, settings.monitoring)
        finally:
            alerts.close()
            store.close()


def look_now(settings: Settings, *, model: str = "") -> list[Report]:
    """Every window that is due, of one model or all, looked at now. Raises ModelNotFound."""
    with open_monitor(settings, model) as monitor:
        return monitor.turn()


def _subjected(bundle: Bundle, version: Version, log: PredictionLog, settings: Settings) -> Subjected:
    own = settings.models.get(version.model, ModelSettings())
    asked = Asked(
        monitoring=settings.monitoring,
        drift=settings.drift,
        quality=settings.quality,
        slices=own.slices,
        protected=own.protected,
    )
    value = np.array(own.business_value) if own.business_value else None
    profile = read_profile(bundle)
    if not own.reference:
        reference = bundle_reference(bundle, profile, value=value, query=own.query)
    else:
        reference = _of_the_past(own, bundle, version, log, settings, value)
    return Subjected(bundle.contract, reference, asked)


def _of_the_past(
    own: ModelSettings,
    bundle: Bundle,
    version: Version,
    log: PredictionLog,
    settings: Settings,
    value: object,
) -> Reference:
    """The version's own predictions in a time, with the labels that have come for them."""
    period = own.reference
    where = f"models.{version.model}.reference"
    try:
        start, end = (_day(part) for part in period.split("/"))
    except ValueError as error:
        raise SettingsError(
            f"{where} is {period!r}: {error}.", hint="Write two dates, such as 2026-11-01/2026-11-08."
        ) from error
    join = open_join(log, version.model, settings.log)
    join.step()
    sample = Sample(_REFERENCE_ROWS)
    for batch in join.joined(start, end):
        sample.take(batch.filter(pa.array(np.asarray(batch.column("version")) == version.version)))
    if sample.rows < settings.monitoring.min_rows:  # too few labels: drift needs none
        sample = Sample(_REFERENCE_ROWS)
        for batch in log.windows(version.model, start=start, end=end, versions=[version.version]):
            sample.take(batch)
    if not sample.rows:
        raise InvalidInput(f"{where}: the log has no predictions of version {version.version} in {period}.")
    frame = sample.frame(bundle.contract)
    text = f"its own predictions of {period}"
    return make_reference(
        bundle.contract, read_profile(bundle), frame, text=text, value=value, query=own.query
    )


def _day(text: str) -> datetime:
    return moment_of(text if "T" in text else f"{text}T00:00:00Z")


def main() -> int:
    """Looks at windows as long as the control process on the other end of the standard input leads."""
    with open(
        0, "rb", buffering=0, closefd=False
    ) as pipe:  # no buffer: what comes after the settings is the lead's
        settings = msgspec.json.decode(pipe.readline(), type=Settings)
    lead = Lead(0)
    give_way(0)
    set_up_logging(settings.telemetry, "monitor")
    if settings.monitoring.memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (settings.monitoring.memory_bytes, hard))
    failed = ""
    try:
        with open_monitor(settings) as monitor:
            while True:
                try:
                    monitor.turn(lead.is_over)
                    failed = ""
                except FairwayError as error:  # the log or the database is away
                    if str(error) != failed:
                        failed = str(error)
                        logger.warning("the monitor could not look: %s", error)
                if lead.is_over(settings.monitoring.interval_seconds):
                    return 0
    except FairwayError as error:
        logger.error("no monitor: %s", error)
        return 1


class Lead:
    """What the control process says down a pipe: a line for each renewal of its lease, until when it leads. One that is
    paused says nothing more, and another may lead by then."""

    def __init__(self, pipe: int, clock: Callable[[], float] = machine_clock) -> None:
        self._pipe = pipe
        self._clock = clock
        self._held_until = math.inf  # the first line comes with the settings
        self._left = b""

    def is_over(self, seconds: float = 0.0) -> bool:
        """Whether it leads no more or is gone; waits so long for it."""
        deadline = self._clock() + seconds
        while True:
            wait = max(0.0, min(deadline, self._held_until) - self._clock())
            if select.select([self._pipe], [], [], wait)[0]:
                heard = os.read(self._pipe, 65536)
                if not heard:
                    return True
                *lines, self._left = (self._left + heard).split(b"\n")
                self._held_until = float(lines[-1]) if lines else self._held_until
            elif self._clock() >= self._held_until:
                return True
            elif self._clock() >= deadline:
                return False


if __name__ == "__main__":
    sys.exit(main())
