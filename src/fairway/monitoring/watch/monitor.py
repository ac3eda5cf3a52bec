"""Which windows are due; looks at them, keeps what was seen, tells of it.

Windows begin at multiples of `window_seconds` (UTC). One that has too few rows goes on until the next one's end, and at
most so long; one without any rows is looked at when it is that long. Labels that come later change the report of their
windows; an incident hears of a window's performance when there are labels enough, once.

Everything can be done again: a monitor that was killed looks at the same window and comes to the same report. So incidents
hear of a window before it is kept: killed between the two, it is looked at and told again, which changes nothing there.

A clock that goes back finds windows that end in its future: they count as not looked at, and are replaced when their time
comes. One that jumps ahead forgets nothing at once.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import pyarrow as pa

from fairway.core.clock import Clock, moment_of, trusted, utc_text
from fairway.core.contract import Contract
from fairway.core.errors import FairwayError
from fairway.core.incident import Window
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.watch.findings import incident_window, with_findings
from fairway.monitoring.watch.kept import encoded, report_in, summary_in
from fairway.monitoring.watch.look import About, Asked, look, look_at_performance, unseen
from fairway.monitoring.watch.own import DAYS, asks_for_season, days_known
from fairway.monitoring.watch.own import Rows as PastRows
from fairway.monitoring.watch.predecessors import Predecessor, in_season
from fairway.monitoring.watch.reference import Reference
from fairway.monitoring.watch.sample import Gathered, Sample
from fairway.monitoring.watch.values import Report, Summary, summary_of
from fairway.stores.windows import WatchedWindow, WindowKey, WindowStore

logger = logging.getLogger("fairway.monitoring")

_HISTORY = 2000
_MOST_WINDOWS = 500
"""Windows of one version looked at in one turn."""
_MOST_KNOWN = 32
"""Versions whose references are held in memory."""
_CLOCK = "clock"
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
        starts and their length), and the next watermark. One below `since` says that labels were begun anew."""

    def labelled(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        """Rows that have a label, with `label` (JSON)."""


@dataclasses.dataclass(frozen=True)
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
        self._seasons: dict[tuple[str, int, str], tuple[tuple[object, ...], Subjected]] = {}
        self._refused: dict[tuple[str, int, str], str] = {}
        self._versions: Sequence[Version] = ()
        self._over: datetime | None = None

    def turn(self, is_over: Callable[[], bool] = lambda: False) -> list[Report]:
        """Looks at every window that is due; returns what was seen. `is_over` is asked between windows."""
        seen: list[Report] = []
        now = self._clock()
        over = _floor(now - timedelta(seconds=self._settings.grace_seconds), self._settings.window_seconds)
        is_new = over != self._over  # else nothing new is over, and the log need not be looked through
        if is_new:
            self._versions = self._rows.versions()
        models = dict.fromkeys(version.model for version in self._versions)
        away: dict[
            str, FairwayError
        ] = {}  # one model's log or labels that cannot be read leave the others alone
        fresh: set[tuple[str, int, str, str]] = set()
        for model in models:
            try:
                # Before windows are looked at, so that they are with the labels that are there already.
                changed = self._rows.changed_labels(model, self._since(model))
                for version in self._versions if is_new else ():
                    subjected = self._subject(version) if version.model == model else None
                    if subjected is not None:
                        seen += self._due(version, subjected, now, over, is_over)
                    if is_over():
                        return seen
                fresh |= {(r.model, r.version, r.digest, r.start) for r in seen if r.model == model}
                seen += self._labels(model, changed, fresh)
            except FairwayError as error:
                away[model] = error
        if away:
            raise next(iter(away.values()))
        if is_new:
            self._over = over
            self._prune(now)
        return seen

    def _prune(self, now: datetime) -> None:
        """Forgets what is too old, while the clock can be trusted: what is forgotten does not come back."""
        try:
            before = msgspec.json.decode(self._store.mark(_CLOCK), type=Clock)
        except msgspec.MsgspecError:
            before = Clock()
        seen, sure = trusted(before, now.timestamp())
        self._store.put_mark(_CLOCK, msgspec.json.encode(seen).decode())
        if sure:
            self._store.prune(utc_text(now - timedelta(days=self._settings.keep_days)))

    def _subject(self, version: Version) -> Subjected | None:
        key = (version.model, version.version, version.digest)
        if key not in self._known:
            try:
                known = self._subjected(version)
            except FairwayError as error:
                if self._refused.get(key) != str(error):
                    self._refused[key] = str(error)
                    logger.warning("%s:%s is not watched: %s", version.model, version.version, error)
                return None
            while len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = known
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
        history = self._history(version, now)
        start = self._begin(version, now, history)
        for _ in range(_MOST_WINDOWS):
            last = history[-1].rows if history else 0
            share = min(1.0, self._settings.sketch_rows / max(last, 1))
            if history and not last:
                start = self._next_rows(version, start, step, over)
            gathered = Gathered(subjected.contract, self._settings.sample_rows, share)
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
            report = self._look(
                version, about, gathered, self._in_season(version, subjected, start), history, now
            )
            yield report
            history = [*history, summary_of(report)][-_HISTORY:]
            start = end

    def _in_season(self, version: Version, subjected: Subjected, start: datetime) -> Subjected:
        """With the season that is known by `start`, of its own past or of versions before it, where its reference tells
        of none."""
        if not asks_for_season(subjected.reference):
            return subjected
        days = days_known(version.first, start)
        others = [other for other in self._versions if _is_before(other, version)]
        told_by = others if days < DAYS[-1] else ()  # of its own days there will be no others
        state = (days, *((other.version, other.digest) for other in told_by))
        key = (version.model, version.version, version.digest)
        known = self._seasons.get(key)
        if known is None or known[0] != state:
            found = in_season(
                subjected.reference,
                self._rows_of(version),
                version.first,
                days,
                lambda: [one for other in others if (one := self._predecessor(other)) is not None],
                subjected.asked.drift,
            )
            while len(self._seasons) >= _MOST_KNOWN:
                del self._seasons[next(iter(self._seasons))]
            known = self._seasons[key] = (state, dataclasses.replace(subjected, reference=found))
        return known[1]

    def _predecessor(self, version: Version) -> Predecessor | None:
        subjected = self._subject(version)
        if subjected is None:
            return None
        return Predecessor(
            version.version, subjected.contract, version.first, version.last, self._rows_of(version)
        )

    def _rows_of(self, version: Version) -> PastRows:
        return lambda start, end: self._rows.rows(version, start, end)

    def _next_rows(self, version: Version, start: datetime, step: timedelta, over: datetime) -> datetime:
        """Where the next window with rows begins, after one without: that there is no traffic is said once. Spans double, so
        that a gap of a year, which a clock that jumped leaves, is passed in some looks."""

        def is_empty(span: timedelta) -> bool:
            return start + span <= over and not any(
                batch.num_rows for batch in self._rows.rows(version, start, start + span)
            )

        span = step
        while is_empty(span):
            start += span
            span *= 2
        while span > step:
            span /= 2
            if is_empty(span):
                start += span
        return start

    def _gather(
        self,
        gathered: Gathered,
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

    def _history(self, version: Version, now: datetime) -> list[Summary]:
        """Windows that were looked at. Those that end in the future were seen by a clock that was ahead."""
        found = self._store.summaries(
            version.model, version=version.version, until=utc_text(now), limit=_HISTORY
        )
        return [
            summary
            for window in found
            if window.key.digest == version.digest
            and moment_of(window.end) <= now
            and (summary := summary_in(window)) is not None
        ]

    def _look(
        self,
        version: Version,
        about: About,
        gathered: Gathered,
        subjected: Subjected,
        history: Sequence[Summary],
        now: datetime,
    ) -> Report:
        frame = gathered.frame()
        try:
            report = look(about, frame, gathered.profile, subjected.reference, history, subjected.asked, now)
            report = self._with_labels(version, subjected, report) or report
            report = with_findings(report, subjected.reference, history, self._settings.drift_windows)
        except FairwayError:
            raise
        except Exception as error:  # one window's rows must not end the watch over all the others
            logger.exception("%s:%s: the window of %s", about.model, about.version, about.start)
            report = unseen(about, gathered.rows, error)
        self._observe([incident_window(report)])
        self._keep(report, gathered.profile.to_bytes())
        return report

    def _keep(self, report: Report, profile: bytes) -> None:
        key = WindowKey(model=report.model, version=report.version, digest=report.digest, start=report.start)
        self._store.put(
            [
                WatchedWindow(
                    key=key,
                    end=report.end,
                    rows=report.rows,
                    summary=encoded(summary_of(report)),
                    report=encoded(report),
                    profile=profile,
                )
            ]
        )

    def _since(self, model: str) -> int:
        return int(self._store.mark(_mark(model)) or 0)

    def _labels(
        self,
        model: str,
        changed: tuple[list[datetime], timedelta, int],
        fresh: set[tuple[str, int, str, str]],
    ) -> list[Report]:
        """Looks again at the performance of windows whose labels have changed, but for those just looked at."""
        starts, length, watermark = changed
        seen: list[Report] = []
        for version in self._versions:
            if version.model != model or not starts:
                continue
            subjected = self._subject(version)
            if subjected is None or not subjected.reference.heeds_labels:
                continue
            for window in self._windows_within(version, starts, length):
                if (model, version.version, version.digest, window.key.start) in fresh:
                    continue
                report = self._look_at_labels(version, subjected, window)
                if report is not None:
                    seen.append(report)
        if watermark != self._since(model):
            self._store.put_mark(_mark(model), str(watermark))
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
        before = report_in(window)
        report = None if before is None else self._with_labels(version, subjected, before)
        if before is None or report is None:
            return None
        history = self._history(version, self._clock())
        report = with_findings(report, subjected.reference, history, self._settings.drift_windows)
        new = [kind for kind in report.judged if kind not in before.judged]
        if new:
            self._observe([incident_window(report, new)])
        self._keep(report, window.profile)
        return report

    def _with_labels(self, version: Version, subjected: Subjected, before: Report) -> Report | None:
        """The report with what the labels say that have come for its window; None where none has."""
        if not subjected.reference.heeds_labels or before.rows == 0:
            return None
        sample = Sample(self._settings.sample_rows)
        for batch in self._rows.labelled(version, moment_of(before.start), moment_of(before.end)):
            sample.take(batch)
        if not sample.rows:
            return None
        notes: list[str] = []
        frame = sample.frame(subjected.contract)
        told = look_at_performance(before, frame, subjected.reference, subjected.asked, notes)
        judged = [kind for kind in told.judged if kind in _JUDGED_LATER]
        return msgspec.structs.replace(
            told,
            estimates=before.estimates,  # those are of all rows, not of the labelled ones
            judged=tuple(dict.fromkeys((*before.judged, *judged))),
            notes=tuple(dict.fromkeys((*before.notes, *notes))),
        )


def _is_before(other: Version, version: Version) -> bool:
    """Whether it was asked before the version was."""
    return other.model == version.model and other.first < version.first


def _mark(model: str) -> str:
    return f"labels of {model}"


def _floor(moment: datetime, seconds: float) -> datetime:
    since = moment.astimezone(UTC).timestamp()
    return datetime.fromtimestamp(math.floor(since / seconds) * seconds, UTC)
