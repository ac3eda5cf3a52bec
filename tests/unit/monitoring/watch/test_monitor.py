"""Which windows are looked at: every row in exactly one, whenever the monitor comes, stops or is killed."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.clock import moment_of, utc_text
from fairway.core.errors import NotFound
from fairway.core.incident import Window
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.watch.monitor import Monitor, Subjected, Version
from fairway.monitoring.watch.values import Report, Summary
from fairway.stores.windows_memory import MemoryWindows
from tests.unit.monitoring.watch.rows import NOON, MemoryRows, log_table, subjected

HOUR = timedelta(hours=1)
QUICK = MonitoringSettings(window_seconds=3600, min_rows=100, longest_seconds=6 * 3600, grace_seconds=5)


@pytest.fixture(scope="module")
def subject() -> Subjected:
    return subjected(QUICK)


class Watch:
    def __init__(self, rows: MemoryRows, subject: Subjected, chosen: MonitoringSettings = QUICK) -> None:
        self.rows, self.subject, self.chosen = rows, subject, chosen
        self.store = MemoryWindows()
        self.told: list[Window] = []
        self.now = NOON
        self.again()

    def again(self) -> None:
        """As after it was killed: only the store is left."""
        self.monitor = Monitor(
            self.rows,
            self.store,
            lambda version: self.subject,
            self._observe,
            self.chosen,
            clock=lambda: self.now,
        )

    def at(self, now: datetime) -> list[Report]:
        self.now = now
        return self.monitor.turn()

    def windows(self) -> list[tuple[str, str, int]]:
        return [(w.key.start, w.end, w.rows) for w in self.store.summaries("m")]

    def _observe(self, windows: Sequence[Window]) -> None:
        self.told += windows


def test_a_window_is_looked_at_once_it_is_over(subject: Subjected) -> None:
    watch = Watch(MemoryRows(log_table(300, seconds=7200)), subject)
    assert watch.at(NOON + timedelta(minutes=59)) == []
    [first] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert (first.start, first.end, first.rows) == (utc_text(NOON), utc_text(NOON + HOUR), 150)
    assert watch.at(NOON + HOUR + timedelta(minutes=30)) == []
    [second] = watch.at(NOON + 2 * HOUR + timedelta(seconds=6))
    assert second.start == first.end
    assert [(w.start, w.end) for w in watch.told] == [(r.start, r.end) for r in (first, second)]
    assert watch.rows.asked == 3  # the log is not looked through while nothing is over


def test_few_rows_wait_for_more_but_not_for_ever(subject: Subjected) -> None:
    watch = Watch(MemoryRows(log_table(60, seconds=3 * 3600), log_table(500, start=NOON + 3 * HOUR)), subject)
    watch.at(NOON + 3 * HOUR + timedelta(seconds=6))
    assert watch.windows() == []
    watch.at(NOON + 4 * HOUR + timedelta(seconds=6))
    assert watch.windows() == [(utc_text(NOON), utc_text(NOON + 4 * HOUR), 560)]
    few = Watch(MemoryRows(log_table(30, seconds=3600)), subject)
    few.at(NOON + 7 * HOUR)
    assert few.windows() == [(utc_text(NOON), utc_text(NOON + 6 * HOUR), 30)]


def test_no_traffic_is_said_once(subject: Subjected) -> None:
    watch = Watch(MemoryRows(log_table(200)), subject)
    watch.at(NOON + 40 * HOUR)
    ends = [end for _, end, _ in watch.windows()]
    assert ends == [utc_text(NOON + HOUR), utc_text(NOON + 7 * HOUR)]
    assert watch.windows()[1][2] == 0
    assert watch.at(NOON + 400 * HOUR) == []


def test_labels_that_come_later_change_the_report_and_are_told_once(subject: Subjected) -> None:
    rows = MemoryRows(log_table(400, honest=False, label="json"))
    watch = Watch(rows, subject)
    [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert report.labels == 0
    assert "performance" not in report.judged
    rows.changes.append((NOON, 1))
    [again] = watch.at(NOON + HOUR + timedelta(seconds=20))
    assert again.labels == 400
    assert any(metric.alert for metric in again.performance)
    assert again.estimates == report.estimates
    assert watch.told[-1].kinds == ("performance",)
    heard = len(watch.told)
    rows.changes.append((NOON, 2))
    assert len(watch.at(NOON + HOUR + timedelta(seconds=30))) == 1
    assert len(watch.told) == heard
    assert watch.at(NOON + HOUR + timedelta(seconds=40)) == []
    whole = watch.store.latest("m")
    assert whole is not None
    assert msgspec.json.decode(whole.report, type=Report).labels == 400
    assert msgspec.json.decode(whole.summary, type=Summary).performance["roc_auc"].alert


def test_a_version_that_cannot_be_looked_at_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch(MemoryRows(log_table(300)), subjected(QUICK))

    def gone(version: Version) -> Subjected:
        raise NotFound("no such bundle")

    monitor = Monitor(watch.rows, watch.store, gone, watch._observe, QUICK, clock=lambda: NOON + 2 * HOUR)
    assert monitor.turn() == []
    assert "no such bundle" in caplog.text


def test_rows_beyond_the_sample_still_count(subject: Subjected) -> None:
    chosen = msgspec.structs.replace(QUICK, sample_rows=1000)
    watch = Watch(MemoryRows(log_table(5000)), subject, chosen)
    [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert report.rows == 5000
    assert report.traffic.requests == 5000
    assert sum(report.traffic.sources.values()) == pytest.approx(5000, rel=0.01)


def test_it_ends_between_windows_when_it_is_told_to(subject: Subjected) -> None:
    watch = Watch(MemoryRows(log_table(2000, seconds=10 * 3600)), subject)
    asked = iter([False, False, True])
    watch.now = NOON + 11 * HOUR
    assert len(watch.monitor.turn(lambda: next(asked, True))) <= 2
    rest = watch.at(NOON + 11 * HOUR)
    assert len(watch.windows()) == 10
    assert len(rest) >= 8


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0, 10, 120])), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=4),
)
def test_law_every_row_is_in_one_window_whenever_it_looks(
    traffic: list[tuple[int, int]], looks: list[tuple[int, bool]]
) -> None:
    """Windows do not overlap, leave out no row and no time but such without traffic after that was said, and are those of a
    monitor that looked only once, at the end."""
    subject = _small()
    tables = [
        log_table(rows, seed=i, start=NOON + hour * HOUR + timedelta(minutes=1), seconds=3000)
        for i, (hour, rows) in enumerate(traffic)
    ]
    rows = MemoryRows(*tables)
    watch, once = Watch(rows, subject), Watch(rows, subject)
    for hour, killed in sorted(looks):
        watch.rows = rows
        watch.at(NOON + hour * HOUR + timedelta(seconds=6))
        if killed:
            watch.again()
    end = NOON + 60 * HOUR
    watch.at(end)
    once.at(end)
    assert watch.windows() == once.windows()
    windows = watch.windows()
    assert sum(count for _, _, count in windows) == rows.table.num_rows
    for before, after in pairwise(windows):
        assert before[1] == after[0] or (before[1] < after[0] and before[2] == 0 < after[2])
    assert all(moment_of(end) - moment_of(start) <= 6 * HOUR for start, end, _ in windows)


_kept: list[Subjected] = []


def _small() -> Subjected:
    if not _kept:
        _kept.append(subjected(QUICK))
    return _kept[0]


def test_memory_rows_are_as_they_say() -> None:
    rows = MemoryRows(log_table(10), log_table(5, start=NOON + HOUR))
    [version] = rows.versions()
    assert sum(batch.num_rows for batch in rows.rows(version, NOON, NOON + HOUR)) == 10
    assert isinstance(rows.table, pa.Table)
