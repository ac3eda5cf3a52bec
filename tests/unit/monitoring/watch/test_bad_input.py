"""Whatever comes: windows are looked at or said to be not, the others go on, and nothing is lost."""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from fairway.core.clock import utc_text
from fairway.core.contract import Contract, Privacy
from fairway.core.errors import Unavailable
from fairway.core.incident import Window
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.watch.findings import incident_window
from fairway.monitoring.watch.frame import frame_of
from fairway.monitoring.watch.kept import encoded, report_in, summary_in
from fairway.monitoring.watch.monitor import Monitor, Subjected, Version
from fairway.monitoring.watch.reference import make_reference
from fairway.monitoring.watch.sample import Sample
from fairway.monitoring.watch.values import Report, summary_of
from fairway.stores.windows import WatchedWindow, WindowKey
from fairway.stores.windows_memory import MemoryWindows
from tests.unit.monitoring.watch.rows import (
    CONTRACT,
    NOON,
    PROFILE,
    MemoryRows,
    log_table,
    reference,
    subjected,
    wide,
)

HOUR = timedelta(hours=1)
QUICK = MonitoringSettings(window_seconds=3600, min_rows=100, longest_seconds=6 * 3600, grace_seconds=5)


@pytest.fixture(scope="module")
def subject() -> Subjected:
    return subjected(QUICK)


class Watch:
    """A monitor whose clock, log and store can be broken."""

    def __init__(self, rows: MemoryRows, subject: Subjected, store: MemoryWindows | None = None) -> None:
        self.rows, self.subject = rows, subject
        self.store = store or MemoryWindows()
        self.told: list[Window] = []
        self.now = NOON
        self.monitor = Monitor(
            rows, self.store, lambda version: self.subject, self.told.extend, QUICK, clock=lambda: self.now
        )

    def at(self, now: datetime) -> list[Report]:
        self.now = now
        return self.monitor.turn()


def broken(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def columns() -> dict[str, pa.Table]:
    rows = 300
    table = log_table(rows, seed=5)
    amounts = np.asarray(table["input.amount"]).copy()
    amounts[:20] = math.inf
    amounts[20:30] = -math.inf
    amounts[30:40] = math.nan
    return {
        "constant": broken(table, "input.amount", pa.array(np.full(rows, 20.0))),
        "all null": broken(table, "input.amount", pa.nulls(rows, pa.float64())),
        "null type": broken(table, "input.amount", pa.nulls(rows)),
        "one category": broken(table, "input.country", pa.array(["DE"] * rows)),
        "no category": broken(table, "input.country", pa.nulls(rows, pa.string())),
        "a thousand categories": broken(table, "input.country", pa.array([f"c{i}" for i in range(rows)])),
        "infinities": broken(table, "input.amount", pa.array(amounts)),
        "another type": broken(table, "input.amount", pa.array(["x"] * rows)),
        "absent": table.drop_columns(["input.amount"]),
        "no outputs": table.drop_columns(["output.label", "output.probabilities"]),
        "huge": broken(table, "input.amount", pa.array(np.full(rows, 1e308))),
    }


@pytest.mark.parametrize("what", columns())
def test_columns_of_any_kind_are_looked_at_and_kept(what: str, subject: Subjected) -> None:
    watch = Watch(MemoryRows(columns()[what]), subject)
    [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert report.rows == 300
    assert not any("could not be looked at" in note for note in report.notes), report.notes
    assert watch.told[0].end == report.end
    kept = watch.store.latest("m")
    assert kept is not None
    again, summary = report_in(kept), summary_in(kept)
    assert again is not None
    assert summary is not None
    assert again.rows == summary.rows == 300
    if what in ("constant", "all null", "one category", "infinities", "huge"):
        assert report.drifted or report.quality


def test_a_reference_that_is_too_small_or_of_one_class_judges_little_and_says_so() -> None:
    for table in (
        log_table(8, label="number"),
        broken(log_table(400, label="number"), "label", pa.array([0] * 400)),
    ):
        known = make_reference(CONTRACT, PROFILE, frame_of(table, CONTRACT), text="small")
        watch = Watch(MemoryRows(log_table(300)), Subjected(CONTRACT, known, subjected(QUICK).asked))
        [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
        assert not report.estimates or known.estimator is not None
        assert report.notes
        assert not report.drifted


def test_private_fields_are_not_compared_whatever_the_log_has_of_them() -> None:
    hidden = Contract(
        inputs=tuple(
            msgspec.structs.replace(field, private=Privacy.hash) if field.name == "country" else field
            for field in CONTRACT.inputs
        ),
        outputs=CONTRACT.outputs,
        task=CONTRACT.task,
    )
    table = log_table(400, seed=3)
    hashed = broken(table, "input.country", pa.array([f"fwh1.{i}" for i in range(400)]))
    for frame in (frame_of(log_table(3000, seed=99), hidden), wide(hidden)):
        known = make_reference(hidden, PROFILE, frame, text="rows")
        watch = Watch(MemoryRows(hashed), Subjected(hidden, known, subjected(QUICK).asked))
        [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
        assert "country" not in {column.name for column in report.columns}
        assert not any(finding.field == "country" for finding in report.quality)


def test_a_window_that_cannot_be_looked_at_is_said_and_the_next_one_is_looked_at(
    subject: Subjected, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(MemoryRows(log_table(600, seconds=7200)), subject)
    with monkeypatch.context() as patched:
        patched.setattr("fairway.monitoring.watch.monitor.look", _fails)
        [first] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert "this window could not be looked at: ZeroDivisionError" in first.notes[0]
    assert first.rows == 300
    assert watch.told[0].kinds == ()  # what was open stays open
    [second] = watch.at(NOON + 2 * HOUR + timedelta(seconds=6))
    assert second.start == first.end
    assert "drift" in second.judged


def _fails(*_: object) -> Report:
    raise ZeroDivisionError("a mistake of ours")


class Away(MemoryWindows):
    """A database that is away now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def put(self, windows: Sequence[WatchedWindow]) -> None:
        if self.away:
            raise Unavailable("the database is away")
        super().put(windows)


def test_a_database_that_is_away_is_said_and_what_was_due_is_looked_at_later(subject: Subjected) -> None:
    store = Away()
    watch = Watch(MemoryRows(log_table(600, seconds=7200)), subject, store)
    watch.at(NOON + HOUR + timedelta(seconds=6))
    store.away = True
    for minute in (1, 2):
        with pytest.raises(Unavailable):
            watch.at(NOON + 2 * HOUR + timedelta(minutes=minute))
    store.away = False
    [second] = watch.at(NOON + 2 * HOUR + timedelta(minutes=3))
    assert second.rows == 300
    assert [w.start for w in watch.told].count(
        second.start
    ) == 3  # told again and again: incidents count it once
    assert sum(window.rows for window in store.summaries("m")) == 600


class Split(MemoryRows):
    """The log of two models, of which one cannot be read."""

    bad = "b"

    def versions(self) -> Sequence[Version]:
        [mine] = super().versions()
        return [msgspec.structs.replace(mine, model=self.bad), mine]

    def rows(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        if version.model == self.bad:
            raise Unavailable("its archive is away")
        return super().rows(version, start, end)


def test_a_model_whose_log_cannot_be_read_does_not_hold_up_the_others(subject: Subjected) -> None:
    watch = Watch(Split(log_table(300)), subject)
    with pytest.raises(Unavailable, match="its archive is away"):
        watch.at(NOON + HOUR + timedelta(seconds=6))
    assert [window.rows for window in watch.store.summaries("m")] == [300]


def test_a_clock_that_was_ahead_for_a_while_hides_no_row_and_forgets_nothing(subject: Subjected) -> None:
    rows = MemoryRows(log_table(300))
    watch = Watch(rows, subject)
    watch.at(NOON + HOUR + timedelta(seconds=6))
    watch.at(NOON + timedelta(days=1000))  # the clock jumps, and with it windows seem to be over
    assert len(watch.store.summaries("m")) == 2
    watch.rows.table = pa.concat_tables([rows.table, log_table(400, seed=2, start=NOON + HOUR)])
    watch.at(NOON + 2 * HOUR + timedelta(seconds=6))
    windows = watch.store.summaries("m")
    assert [(w.key.start, w.end, w.rows) for w in windows] == [
        (utc_text(NOON), utc_text(NOON + HOUR), 300),
        (utc_text(NOON + HOUR), utc_text(NOON + 2 * HOUR), 400),
    ]


def test_a_clock_that_goes_back_looks_at_nothing_twice(subject: Subjected) -> None:
    watch = Watch(MemoryRows(log_table(300)), subject)
    watch.at(NOON + HOUR + timedelta(seconds=6))
    assert watch.at(NOON - 50 * HOUR) == []
    assert watch.at(NOON + HOUR + timedelta(minutes=5)) == []
    assert [window.rows for window in watch.store.summaries("m")] == [300]


def test_labels_that_are_there_already_are_in_the_first_report(subject: Subjected) -> None:
    rows = MemoryRows(log_table(400, honest=False, label="json"))
    rows.changes.append((NOON, 1))
    watch = Watch(rows, subject)
    [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert report.labels == 400
    assert "performance" in report.judged
    assert "performance" in watch.told[0].kinds


def test_what_is_kept_can_be_read_whatever_the_numbers_are() -> None:
    key = WindowKey(model="m", version=1, digest="d", start=utc_text(NOON))
    report = Report(model="m", version=1, digest="d", start=key.start, end=key.start, rows=1)
    table = WatchedWindow(key=key, end=key.start, rows=1, summary=encoded(summary_of(report)), report=b"{")
    assert report_in(table) is None
    assert summary_in(table) == summary_of(report)
    assert summary_in(msgspec.structs.replace(table, summary=b"\xff")) is None


def test_long_names_fit_into_incidents() -> None:
    known = reference()
    name = "amount" + "x" * 5000
    contract = Contract(
        inputs=(msgspec.structs.replace(CONTRACT.inputs[0], name=name), CONTRACT.inputs[1]),
        outputs=CONTRACT.outputs,
        task=CONTRACT.task,
    )

    def renamed(table: pa.Table) -> pa.Table:
        return table.rename_columns(
            ["input." + name if c == "input.amount" else c for c in table.column_names]
        )

    long = make_reference(
        contract, PROFILE, frame_of(renamed(log_table(3000, seed=99)), contract), text="rows"
    )
    watch = Watch(
        MemoryRows(renamed(log_table(500, shift=1.0))), Subjected(contract, long, subjected(QUICK).asked)
    )
    [report] = watch.at(NOON + HOUR + timedelta(seconds=6))
    assert report.drifted
    assert known.subject is not None
    told = incident_window(report)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Window) == told


def test_a_sample_is_even_and_bounded() -> None:
    sample = Sample(1000)
    for start in range(0, 20_000, 500):
        sample.take(pa.RecordBatch.from_pydict({"n": np.arange(start, start + 500)}))
    held = np.concatenate([np.asarray(batch.column("n")) for batch in sample.batches])
    assert 300 < len(held) == sample.rows <= 1000
    assert abs(held.mean() - 10_000) < 1000
    assert len(np.unique(held)) == len(held)


def test_a_clock_that_jumps_a_year_ahead_and_back_costs_little_and_loses_nothing(subject: Subjected) -> None:
    year = timedelta(days=365)
    watch = Watch(MemoryRows(log_table(200), log_table(200, start=NOON + year)), subject)
    watch.at(NOON + HOUR + timedelta(seconds=6))
    ahead = watch.at(NOON + year + HOUR + timedelta(seconds=6))
    assert [report.rows for report in ahead] == [0, 200], "that there was no traffic is said once"
    assert ahead[-1].start == utc_text(NOON + year)
    back = Watch(
        MemoryRows(
            log_table(200), log_table(200, start=NOON + year), log_table(150, start=NOON + 8 * HOUR, seed=9)
        ),
        subject,
        watch.store,
    )
    assert [report.rows for report in back.at(NOON + 9 * HOUR + timedelta(seconds=6))] == [150]
    assert back.at(NOON + 12 * HOUR) == []
