"""A new version of a model that the log has known for days, and whose reference does not say when its rows were."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from fairway.core.clock import utc_text
from fairway.core.contract import Contract, DType, Field, Privacy
from fairway.core.errors import CorruptBundle
from fairway.core.incident import Window
from fairway.core.settings import DriftSettings
from fairway.monitoring.drift.season import Season
from fairway.monitoring.watch.frame import frame_of
from fairway.monitoring.watch.monitor import Monitor, Subjected, Version
from fairway.monitoring.watch.predecessors import Predecessor, in_season, with_lent_season
from fairway.monitoring.watch.reference import Past, Reference, make_reference
from fairway.monitoring.watch.values import Report
from fairway.stores.windows_memory import MemoryWindows
from tests.unit.monitoring.watch.rows import PROFILE, MemoryRows, between
from tests.unit.monitoring.watch.test_own import CONTRACT, EVERY, MONDAY, QUICK, STEP, alarms, traffic

DAY = timedelta(days=1)
WEEK = 7
BIASED = -0.8
"""What version 2 answers is less than what version 1 does, by so much of a logit."""


def days_of(table: pa.Table, start: int, end: float) -> pa.Table:
    return between(table, MONDAY + start * DAY, MONDAY + end * DAY)


def answered(table: pa.Table, bias: float = BIASED) -> pa.Table:
    """The same requests, answered by another model."""
    z = 1.2 * (np.log(np.asarray(table["input.amount"])) - 4) + bias
    p = (1 / (1 + np.exp(-z))).astype(np.float32)
    both = np.stack([1 - p, p], axis=1)
    found = {
        "output.label": pa.array((p > 0.5).astype(np.int64)),
        "output.probabilities": pa.FixedSizeListArray.from_arrays(pa.array(both.reshape(-1)), 2),
    }
    for name, column in found.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


class Log(MemoryRows):
    """Predictions of several versions of one model."""

    def __init__(self, tables: Mapping[int, pa.Table]) -> None:
        super().__init__(next(iter(tables.values())))
        self.tables = dict(tables)

    def versions(self) -> Sequence[Version]:
        found = []
        for number, table in self.tables.items():
            times = table["time"].to_pylist()
            found.append(
                Version(
                    model="m", version=number, digest=f"sha256:{number}", first=min(times), last=max(times)
                )
            )
        return found

    def rows(self, version: Version, start: datetime, end: datetime) -> Iterator[pa.RecordBatch]:
        yield from between(self.tables[version.version], start, end).to_batches(max_chunksize=700)


class Watch:
    """Looks at the newest version; the others are as long ago as `EVERY` looks back."""

    def __init__(self, tables: Mapping[int, pa.Table], reference: Reference) -> None:
        self.log = Log(tables)
        self.reference = reference
        self.contracts: dict[int, Contract] = {}
        self.store = MemoryWindows()
        self.told: list[Window] = []
        self.gone: set[int] = set()
        self.newest = max(tables)
        self.again()

    def again(self) -> None:
        """As after it was killed."""
        self.monitor = Monitor(
            self.log,
            self.store,
            self._subjected,
            self.told.extend,
            msgspec.structs.replace(EVERY, look_back_days=3.0),
            clock=lambda: self.now,
        )

    def _subjected(self, version: Version) -> Subjected:
        if version.version in self.gone:
            raise CorruptBundle("its bundle is gone.")
        return Subjected(self.contracts.get(version.version, CONTRACT), self.reference, QUICK)

    def at(self, day: float) -> list[Report]:
        self.now = MONDAY + day * DAY + timedelta(minutes=1)
        return [report for report in self.monitor.turn() if report.version == self.newest]


@pytest.fixture(scope="module")
def timeless() -> Reference:
    """Version 2's: of all hours, with its own answers."""
    table = answered(traffic(WEEK, 1)).drop_columns(["time"])
    return make_reference(CONTRACT, PROFILE, frame_of(table, CONTRACT), text="training data")


@pytest.fixture(scope="module")
def long() -> pa.Table:
    return traffic(WEEK + 3, 2)


@pytest.fixture(scope="module")
def first(long: pa.Table) -> pa.Table:
    return days_of(long, 0, WEEK)


@pytest.fixture(scope="module")
def second(long: pa.Table) -> pa.Table:
    return answered(days_of(long, WEEK, WEEK + 3))


def past_of(reference: Reference) -> Past:
    assert reference.past is not None
    return reference.past


def found_fields(reports: Sequence[Report]) -> set[str]:
    return {f.field for report in reports for f in report.findings if f.kind == "drift"}


def test_a_new_version_raises_no_alarms_in_its_first_nights(
    timeless: Reference, first: pa.Table, second: pa.Table
) -> None:
    alone = Watch({2: second}, timeless).at(WEEK + 3)
    assert {"amount", "country"} <= alarms(alone)[0]  # as it would be
    watch = Watch({1: first, 2: second}, timeless)
    reports = watch.at(WEEK + 1)
    watch.again()  # and what was learned is not lost with the process
    reports += watch.at(WEEK + 3)
    assert len(reports) == 3 * 24 // STEP
    assert found_fields(reports) == set()
    early, late = reports[1], reports[-2]
    assert any("compared with the inputs of version 1 in 7 days of the same hours" in n for n in early.notes)
    assert any("which the hours explain: at the same ones predictions of version 1" in n for n in early.notes)
    assert any("its own predictions of the first 2 days of the same hours" in n for n in late.notes)
    assert not any("version 1" in note for note in late.notes)


@pytest.mark.parametrize("hours", [range(6), range(12, 18)], ids=["night", "day"])
def test_what_is_new_on_the_first_day_is_found(
    timeless: Reference, first: pa.Table, second: pa.Table, hours: range
) -> None:
    at = np.array([moment.hour in hours for moment in second["time"].to_pylist()])
    amount = np.asarray(second["input.amount"]) * np.exp(0.5 * at)
    place = second.column_names.index("input.amount")
    moved = answered(second.set_column(place, "input.amount", pa.array(amount)))
    reports = Watch({1: first, 2: moved}, timeless).at(WEEK + 1)
    drifted = {
        report.start[11:13]
        for report in reports
        for column in report.columns
        if column.name == "amount" and column.drift is not None and column.drift.drifted
    }
    assert drifted == {f"{hours.start:02}"}


def test_what_is_new_since_the_first_day_does_not_become_usual(
    timeless: Reference, first: pa.Table, second: pa.Table
) -> None:
    """Nor when the version's own days take over, and though it is less than nights are from days."""
    place = second.column_names.index("input.amount")
    amount = pa.array(np.asarray(second["input.amount"]) * np.exp(0.28))
    far = answered(second.set_column(place, "input.amount", amount))
    reports = Watch({1: first, 2: far}, timeless).at(WEEK + 3)
    assert all("amount" in day for day in alarms(reports)[:3])
    assert not any("country" in day for day in alarms(reports)[:3])
    notes = reports[-2].notes
    assert any("its own predictions of the first 2 days of the same hours" in note for note in notes)
    assert any(
        "are not as the inputs of version 1 in 7 days in amount, which goes on" in note for note in notes
    )


def test_predictions_farther_off_than_hours_explain_are_found(
    timeless: Reference, first: pa.Table, second: pa.Table
) -> None:
    reports = Watch({1: first, 2: answered(second, BIASED + 1.2)}, timeless).at(WEEK + 1)
    assert "probabilities[1]" in found_fields(reports)
    assert not found_fields(reports) & {"amount", "country"}


def test_predictions_that_are_missing_are_found_however_much_hours_explain(
    timeless: Reference, first: pa.Table, second: pa.Table
) -> None:
    p = np.asarray(second["output.probabilities"].combine_chunks().flatten()).copy()
    p[: 2 * 150] = np.nan
    place = second.column_names.index("output.probabilities")
    column = pa.FixedSizeListArray.from_arrays(pa.array(p), 2)
    gaps = second.set_column(place, "output.probabilities", column)
    report = Watch({1: first, 2: gaps}, timeless).at(WEEK + 0.25)[0]
    assert "probabilities[1]" in {c.name for c in report.columns if c.drift is not None and c.drift.drifted}


def test_what_had_drifted_before_is_compared_with_the_reference(timeless: Reference, long: pa.Table) -> None:
    far = traffic(WEEK + 2, 3, shift=2.5)
    reports = Watch({1: days_of(far, 0, WEEK), 2: answered(days_of(far, WEEK, WEEK + 1))}, timeless).at(
        WEEK + 1
    )
    assert all("amount" in {f.field for f in report.findings} for report in reports[1:])
    assert "country" not in found_fields(reports)


def predecessor(table: pa.Table, number: int = 1, contract: Contract = CONTRACT) -> Predecessor:
    times = table["time"].to_pylist()
    return Predecessor(
        number,
        contract,
        min(times),
        max(times),
        lambda start, end: iter(between(table, start, end).to_batches()),
    )


def lent(reference: Reference, *before: Predecessor, day: float = WEEK) -> Reference:
    return with_lent_season(reference, before, MONDAY + day * DAY, QUICK.drift)


def test_hours_alone_tell_nothing(timeless: Reference, first: pa.Table) -> None:
    assert lent(timeless) is timeless
    assert lent(timeless, predecessor(days_of(first, 0, 0.25)), day=0.25) is timeless
    assert lent(timeless, predecessor(days_of(first, 0, 1.7)), day=WEEK) is timeless
    short = past_of(lent(timeless, predecessor(days_of(first, 0, 2)), day=2))
    assert short.hours.season is Season.day


def test_where_no_hour_differs_nothing_is_lent(timeless: Reference, first: pa.Table) -> None:
    order = pa.array(np.random.default_rng(0).permutation(first.num_rows))
    mixed = pa.table(
        {name: first[name] if name == "time" else first[name].take(order) for name in first.column_names}
    )
    assert lent(timeless, predecessor(mixed)) is timeless


def test_rows_gone_by_retention(timeless: Reference, first: pa.Table) -> None:
    """What is left counts; the log may lose more while it is read."""
    left = predecessor(days_of(first, 4, WEEK))
    assert "in 2 days" in past_of(lent(timeless, left)).hours.text
    gone = dataclasses.replace(left, rows=lambda start, end: iter(()))
    assert lent(timeless, gone) is timeless


def test_a_short_canary_does_not_hide_the_version_before_it(timeless: Reference, first: pa.Table) -> None:
    odd = traffic(1, 4, shift=3.0)
    brief = between(odd, MONDAY, MONDAY + 0.2 * DAY)
    times = pa.array(np.asarray(brief["time"].cast(pa.int64())) + 6 * 86_400_000_000).cast(brief["time"].type)
    brief = brief.set_column(0, "time", times)
    both = past_of(lent(timeless, predecessor(brief, 2), predecessor(first)))
    one = past_of(lent(timeless, predecessor(first)))
    assert "version 1 (and 2, where it had too few) in 7 days" in both.hours.text
    share = 1 - one.hours.frame.rows / both.hours.frame.rows
    assert share < 0.05
    assert both.elsewhere is not None
    assert one.elsewhere is not None
    assert (
        both.elsewhere.swings == one.elsewhere.swings
    )  # of one version only, as versions answer differently
    assert not both.standing


def test_a_version_each_day_lends_together(timeless: Reference, first: pa.Table) -> None:
    daily = [predecessor(days_of(first, day, day + 1), day + 1) for day in range(4)]
    found = past_of(lent(timeless, *daily, day=4))
    assert found.hours.frame.rows == days_of(first, 0, 4).num_rows
    assert "version 4 (and 3, 2, 1, where it had too few) in 4 days" in found.hours.text


def test_only_fields_of_the_same_kind_that_nobody_keeps_private_are_shared(
    timeless: Reference, first: pa.Table
) -> None:
    def past(**changes: object) -> Reference:
        amount, country = CONTRACT.inputs
        fields = {"amount": amount, "country": country} | changes
        theirs = msgspec.structs.replace(CONTRACT, inputs=tuple(f for f in fields.values() if f is not None))
        return lent(timeless, predecessor(first, contract=theirs))

    amount, country = CONTRACT.inputs
    hashed = msgspec.structs.replace(country, private=Privacy.hash)
    assert past_of(past(country=hashed)).hours.frame.inputs == ("amount",)
    texts = msgspec.structs.replace(amount, dtype=DType.string, minimum=None, maximum=None)
    assert past_of(past(amount=texts)).hours.frame.inputs == ("country",)
    assert past_of(past(amount=Field(name="amount", dtype=DType.int32))).hours.frame.inputs == (
        "amount",
        "country",
    )
    assert past(amount=texts, country=hashed) is timeless
    assert past_of(past(country=None)).hours.frame.inputs == ("amount",)
    mine = dataclasses.replace(timeless, contract=msgspec.structs.replace(CONTRACT, inputs=(amount, hashed)))
    assert past_of(lent(mine, predecessor(first))).hours.frame.inputs == ("amount",)


def test_a_predecessor_without_comparable_answers_lends_its_inputs_swing(
    timeless: Reference, first: pa.Table
) -> None:
    silent = first.drop_columns(["output.label", "output.probabilities"])
    elsewhere = past_of(lent(timeless, predecessor(silent))).elsewhere
    assert elsewhere is not None
    assert elsewhere.hours.text == "inputs of version 1"
    assert set(elsewhere.swings) == {"amount", "country"}


def test_a_predecessor_that_is_gone_lends_nothing(
    timeless: Reference, first: pa.Table, second: pa.Table
) -> None:
    watch = Watch({1: first, 2: second}, timeless)
    watch.gone = {1}
    assert "amount" in found_fields(watch.at(WEEK + 0.75))
    watch = Watch({1: first, 2: second}, timeless)
    assert found_fields(watch.at(WEEK + 0.75)) == set()
    del watch.log.tables[1]  # while it is watched, too: as after a restart
    assert "amount" in found_fields(watch.at(WEEK + 1.75))


def test_versions_that_run_beside_each_other(timeless: Reference, long: pa.Table) -> None:
    """A canary gets one row in ten; the other version goes on, and its later rows are not what the canary is compared with."""
    canary = np.arange(long.num_rows) % 4 == 0
    late = np.array([moment >= MONDAY + WEEK * DAY for moment in long["time"].to_pylist()])
    tables = {1: long.filter(pa.array(~(canary & late))), 2: answered(long.filter(pa.array(canary & late)))}
    watch = Watch(tables, timeless)
    reports = watch.at(WEEK + 3)
    assert found_fields(reports) == set()
    # Its own rows of two days are few, so the other version's are what it is compared with.
    assert any("the inputs of version 1 in 7 days" in note for note in reports[-1].notes)
    assert reports[-1].start > utc_text(MONDAY + (WEEK + 2) * DAY)


def test_its_own_two_days_do_not_hide_that_weekends_are_known(timeless: Reference) -> None:
    """Until it has seen a weekend itself, weekends are as they were for the version before it."""

    def weekly(days: int, seed: int) -> pa.Table:
        table = traffic(days, seed)
        free = np.array([moment.weekday() >= 5 for moment in table["time"].to_pylist()])
        amount = np.asarray(table["input.amount"]) * np.exp(0.8 * free)
        place = table.column_names.index("input.amount")
        return table.set_column(place, "input.amount", pa.array(amount))

    table = weekly(20, 5)
    rows = frame_of(answered(weekly(14, 6)).drop_columns(["time"]), CONTRACT)
    reference = make_reference(CONTRACT, PROFILE, rows, text="training data")
    before = answered(days_of(table, 0, 16), 0.0)
    reports = Watch({1: before, 2: answered(days_of(table, 16, 20))}, reference).at(20)
    assert {report.start[:10] for report in reports} >= {"2026-05-22", "2026-05-23"}  # a Friday, a Saturday
    assert found_fields(reports) == set()
    assert any("of the same weekdays and hours" in note for note in reports[-1].notes)


def test_rows_of_a_predecessor_that_do_not_go_together_do_not_end_the_watch(
    timeless: Reference, first: pa.Table
) -> None:
    place = first.column_names.index("input.amount")
    large = pa.array(
        np.full(first.num_rows, 2**60 + 1)
    )  # as a number with a fraction it would be another one
    batches = (first, first.set_column(place, "input.amount", large))
    both = dataclasses.replace(
        predecessor(first),
        rows=lambda start, end: (b for table in batches for b in between(table, start, end).to_batches()),
    )
    found = in_season(
        timeless, lambda start, end: iter(()), MONDAY + WEEK * DAY, 0, lambda: [both], QUICK.drift
    )
    assert found.past is None
    assert "versions before it lend no season" in found.notes[-1]


def test_the_settings_are_the_versions_own(timeless: Reference, first: pa.Table) -> None:
    strict = DriftSettings(min_reference_rows=first.num_rows + 1)
    assert with_lent_season(timeless, [predecessor(first)], MONDAY + WEEK * DAY, strict) is timeless
