"""Which windows are due; looks at them, keeps what was seen, tells of it.

Windows begin at multiples of `window_seconds` (UTC). One that has too few rows goes on until the next one's end, and at
most so long; one without any rows is looked at when it is that long. Labels that come later change the report of their
windows; an incident hears of a window's performance when there are labels enough, once.

Everything can be done again: a monitor that was killed looks at the same window and comes to the same report.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from fairway.core.clock import moment_of, utc_text
from fairway.core.contract import Contract
from fairway.core.errors import FairwayError
from fairway.core.incident import Window
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.watch.findings import incident_window, with_findings
from fairway.monitoring.watch.frame import Frame, alike, frame_kinds, frame_of
from fairway.monitoring.watch.look import About, Asked, look, look_at_performance
from fairway.monitoring.watch.reference import Reference
from fairway.monitoring.watch.values import Report, Summary, summary_of
from fairway.stores.windows import WatchedWindow, WindowKey, WindowStore

logger = logging.getLogger("fairway.monitoring")

_HISTORY = 2000
_MOST_WINDOWS = 500
"""Windows of one version looked at in one turn."""
_SEED = 7
_JUDGED_LATER = ("performance", "fairness")


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version with rows in the log, and when the first and the last were predicted."""

    model: str
    version: int
    digest: str
    first: datetime
    last: datetime


class Rows(Protocol):
    """The prediction log, as the monitor needs it."""

    def versions(self) -> Sequence[Version]: ...

    def rows(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        """Rows with `start <= time < end`, in any order."""

    def changed_labels(self, model: str, since: int) -> tuple[list[datetime], timedelta, int]:
        """Takes in labels that have come; the windows of time whose labels have changed since a watermark (their
        starts and their length), and the next watermark."""

    def labelled(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        """Rows that have a label, with `label` (JSON)."""


@dataclass(frozen=True)
class Subjected:
    """What a version is compared with, and what is looked for."""

    contract: Contract
    reference: Reference
    asked: Asked


class Monitor:
    """`subjected` gives a version's reference; it may take seconds and is asked once a version. `observe` hears of what
    was found."""

    def __init__(
        self,
        rows: Rows,
        store: WindowStore,
        subjected: Callable[[Version], Subjected],
        observe: Callable[[Sequence[Window]], object],
        settings: MonitoringSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rows = rows
        self._store = store
        self._subjected = subjected
        self._observe = observe
        self._settings = settings
        self._clock = clock
        self._known: dict[tuple[str, int, str], Subjected] = {}
        self._refused: dict[tuple[str, int, str], str] = {}
        self._versions: Sequence[Version] = ()
        self._over: datetime | None = None

    def turn(self, is_over: Callable[[], bool] = lambda: False) -> list[Report]:
        """Looks at every window that is due; returns what was seen. `is_over` is asked between windows."""
        seen: list[Report] = []
        now = self._clock()
        over = _floor(now - timedelta(seconds=self._settings.grace_seconds), self._settings.window_seconds)
        if over != self._over:  # else nothing new is over, and the log need not be looked through
            self._versions = self._rows.versions()
            for version in self._versions:
                subjected = self._subject(version)
                if subjected is not None:
                    seen += self._due(version, subjected, now, over, is_over)
                if is_over():
                    return seen
            self._over = over
            self._store.prune(utc_text(now - timedelta(days=self._settings.keep_days)))
        for model in dict.fromkeys(version.model for version in self._versions):
            seen += self._labels(model, [v for v in self._versions if v.model == model])
        return seen

    def _subject(self, version: Version) -> Subjected | None:
        key = (version.model, version.version, version.digest)
        if key not in self._known:
            try:
                self._known[key] = self._subjected(version)
            except FairwayError as error:
                if self._refused.get(key) != str(error):
                    self._refused[key] = str(error)
                    logger.warning("%s:%s is not watched: %s", version.model, version.version, error)
                return None
        return self._known[key]

    def _due(
        self,
        version: Version,
        subjected: Subjected,
        now: datetime,
        over: datetime,
        is_over: Callable[[], bool],
    ) -> Iterator[Report]:
        """Looks at the version's windows one after the other, as far as they are over."""
        step = timedelta(seconds=self._settings.window_seconds)
        longest = max(step, timedelta(seconds=self._settings.longest_seconds))
        history = self._history(version)
        start = self._begin(version, now, history)
        for _ in range(_MOST_WINDOWS):
            gathered = _Gathered(subjected, self._settings.sample_rows)
            if version.last < start:
                end = start + longest
                if end > over or start - version.last > longest:
                    return  # that there is no traffic is said once
            else:
                end = self._gather(gathered, version, start, step, longest, over)
                if end > over:
                    return
            if is_over():
                return
            about = About(
                model=version.model,
                version=version.version,
                digest=version.digest,
                start=utc_text(start),
                end=utc_text(end),
                latest=end + step > over,
            )
            report = self._look(about, gathered, subjected, history, now)
            yield report
            history = [*history, summary_of(report)][-_HISTORY:]
            start = end

    def _gather(
        self,
        gathered: _Gathered,
        version: Version,
        start: datetime,
        step: timedelta,
        longest: timedelta,
        over: datetime,
    ) -> datetime:
        """Takes in rows until there are enough; the end of the window, which may be after all that is over."""
        end = start
        while end + step <= over:
            gathered.take(self._rows.rows(version, end, end + step))
            end += step
            if gathered.rows >= self._settings.min_rows or end - start >= longest:
                return end
        return end + step

    def _begin(self, version: Version, now: datetime, history: Sequence[Summary]) -> datetime:
        """Where the first window begins that was not looked at."""
        if history:
            return moment_of(history[-1].end)
        first = max(version.first, now - timedelta(days=self._settings.look_back_days))
        return _floor(first, self._settings.window_seconds)

    def _history(self, version: Version) -> list[Summary]:
        found = self._store.summaries(version.model, version=version.version, limit=_HISTORY)
        return [
            msgspec.json.decode(window.summary, type=Summary)
            for window in found
            if window.key.digest == version.digest
        ]

    def _look(
        self,
        about: About,
        gathered: _Gathered,
        subjected: Subjected,
        history: Sequence[Summary],
        now: datetime,
    ) -> Report:
        frame = gathered.frame()
        report = look(about, frame, gathered.profile, subjected.reference, history, subjected.asked, now)
        report = with_findings(report, subjected.reference)
        self._keep(report, gathered.profile.to_bytes())
        self._observe([incident_window(report)])
        return report

    def _keep(self, report: Report, profile: bytes) -> None:
        key = WindowKey(model=report.model, version=report.version, digest=report.digest, start=report.start)
        self._store.put(
            [
                WatchedWindow(
                    key=key,
                    end=report.end,
                    rows=report.rows,
                    summary=msgspec.json.encode(summary_of(report)),
                    report=msgspec.json.encode(report),
                    profile=profile,
                )
            ]
        )

    def _labels(self, model: str, versions: Sequence[Version]) -> list[Report]:
        """Looks again at the performance of windows whose labels have changed."""
        mark = f"labels of {model}"
        since = int(self._store.mark(mark) or 0)
        starts, length, watermark = self._rows.changed_labels(model, since)
        seen: list[Report] = []
        for version in versions:
            subjected = self._subject(version)
            if subjected is None or subjected.reference.subject is None:
                continue
            for window in self._windows_within(version, starts, length):
                report = self._look_at_labels(version, subjected, window)
                if report is not None:
                    seen.append(report)
        if watermark != since:
            self._store.put_mark(mark, str(watermark))
        return seen

    def _windows_within(
        self, version: Version, starts: Sequence[datetime], length: timedelta
    ) -> Iterator[WatchedWindow]:
        """The version's windows that overlap any of these times."""
        if not starts:
            return
        known = self._store.summaries(
            version.model, version=version.version, until=utc_text(max(starts) + length)
        )
        times = [(utc_text(start), utc_text(start + length)) for start in starts]
        for window in known:
            if window.key.digest == version.digest and any(
                window.key.start < end and start < window.end for start, end in times
            ):
                whole = self._store.window(window.key)
                if whole is not None and whole.rows:
                    yield whole

    def _look_at_labels(self, version: Version, subjected: Subjected, window: WatchedWindow) -> Report | None:
        start, end = moment_of(window.key.start), moment_of(window.end)
        batches = [*self._rows.labelled(version, start, end)]
        if not batches:
            return None
        before = msgspec.json.decode(window.report, type=Report)
        table = pa.Table.from_batches(alike(batches))
        if table.num_rows > self._settings.sample_rows:
            table = table.take(_some(table.num_rows, self._settings.sample_rows))
        frame = frame_of(table, subjected.contract)
        notes: list[str] = []
        told = look_at_performance(before, frame, subjected.reference, subjected.asked, notes)
        judged = [kind for kind in told.judged if kind in _JUDGED_LATER]
        new = [kind for kind in judged if kind not in before.judged]
        report = msgspec.structs.replace(
            told,
            estimates=before.estimates,  # those are of all rows, not of the labelled ones
            judged=tuple(dict.fromkeys((*before.judged, *judged))),
            notes=tuple(dict.fromkeys((*before.notes, *notes))),
        )
        report = with_findings(report, subjected.reference)
        self._keep(report, window.profile)
        if new:
            self._observe([incident_window(report, new)])
        return report


class _Gathered:
    """A window's rows: all of them as sketches, and at most so many as they are."""

    def __init__(self, subjected: Subjected, most: int) -> None:
        self._subjected = subjected
        self._most = most
        self._random = np.random.default_rng(_SEED)
        self._batches: list[pa.RecordBatch] = []
        self._held = 0
        self._share = 1.0
        self._profile: Profile | None = None
        self.rows = 0

    @property
    def profile(self) -> Profile:
        return Profile() if self._profile is None else self._profile

    def take(self, batches: Iterable[pa.RecordBatch]) -> None:
        contract = self._subjected.contract
        for batch in batches:
            if batch.num_rows == 0:
                continue
            frame = frame_of(pa.Table.from_batches([batch]), contract)
            if self._profile is None:
                self._profile = Profile(frame_kinds(frame, contract))
            self._profile.update(frame.table)
            self.rows += batch.num_rows
            self._hold(batch)

    def frame(self) -> Frame:
        if not self._batches:
            return Frame(pa.table({}), (), (), pa.table({}))
        return frame_of(pa.Table.from_batches(alike(self._batches)), self._subjected.contract)

    def _hold(self, batch: pa.RecordBatch) -> None:
        """Each row with the same chance, whatever batch it came in."""
        if self._share < 1.0:
            batch = batch.filter(pa.array(self._random.random(batch.num_rows) < self._share))
        self._batches.append(batch)
        self._held += batch.num_rows
        while self._held > self._most:
            self._share /= 2
            self._batches = [b.filter(pa.array(self._random.random(b.num_rows) < 0.5)) for b in self._batches]
            self._held = sum(b.num_rows for b in self._batches)


def _some(rows: int, most: int) -> pa.Array:
    return pa.array(np.sort(np.random.default_rng(_SEED).permutation(rows)[:most]))


def _floor(moment: datetime, seconds: float) -> datetime:
    since = moment.astimezone(UTC).timestamp()
    return datetime.fromtimestamp(math.floor(since / seconds) * seconds, UTC)
