"""Requests that asked for a precomputed answer by its key: they count in traffic and predictions, and nothing was left out."""

import numpy as np
import pyarrow as pa
import pytest

from fairway.core.clock import utc_text
from fairway.monitoring.watch.look import About, Asked, look
from fairway.monitoring.watch.reference import Reference
from fairway.monitoring.watch.sample import Gathered
from fairway.monitoring.watch.values import Report
from tests.unit.monitoring.watch.rows import CONTRACT, NOON, log_table, reference

END = NOON.replace(hour=13)
ABOUT = About(model="m", version=1, digest="sha256:1", start=utc_text(NOON), end=utc_text(END))


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference()


def stored(table: pa.Table, *, columns: bool, source: str = "precomputed") -> pa.Table:
    """The same answers by the store: with inputs that are null, or without such columns."""
    place = table.column_names.index("source")
    table = table.set_column(place, "source", pa.array([source] * table.num_rows))
    for name in [name for name in table.column_names if name.startswith("input.")]:
        place = table.column_names.index(name)
        null = pa.nulls(table.num_rows, table.schema.field(name).type)
        table = table.set_column(place, name, null) if columns else table.remove_column(place)
    return table


def seen(known: Reference, *tables: pa.Table) -> Report:
    gathered = Gathered(CONTRACT, 100_000)
    gathered.take(batch for table in tables for batch in table.to_batches())
    return look(ABOUT, gathered.frame(), gathered.profile, known, (), Asked(), END)


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_inputs_are_those_that_were_given(known: Reference, columns: bool, first: bool, share: float) -> None:
    asked, live = round(3000 * share), 3000 - round(3000 * share)
    parts = [stored(log_table(asked, seed=31), columns=columns), log_table(live, seed=32)]
    report = seen(known, *(parts if first else parts[::-1]))
    assert (report.rows, report.traffic.requests) == (3000, 3000)
    assert report.quality == ()
    assert not report.drifted
    by_name = {column.name: column for column in report.columns}
    amount, label = by_name["amount"], by_name["label"]
    assert amount.drift is not None
    assert label.drift is not None
    assert amount.drift.current_rows == live
    assert label.drift.current_rows == 3000
    assert amount.shape is not None
    assert amount.shape.missing == (0.0, 0.0)
    assert sum(amount.shape.current) == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("columns", [True, False])
def test_a_window_of_keys_alone_has_predictions_only(known: Reference, columns: bool) -> None:
    report = seen(known, stored(log_table(2000, seed=33), columns=columns))
    assert report.rows == 2000
    assert report.quality == ()
    assert not report.drifted
    assert any(column.name == "label" and column.drift is not None for column in report.columns)


def test_predictions_that_drift_are_seen_whoever_answers(known: Reference) -> None:
    report = seen(known, log_table(1500, seed=34), stored(log_table(1500, seed=35, shift=1.5), columns=True))
    drifted = {column.name for column in report.columns if column.drift is not None and column.drift.drifted}
    assert "amount" not in drifted
    assert drifted & {"label", "probabilities[1]"}


def test_inputs_that_a_live_request_lacks_are_missing(known: Reference) -> None:
    table = stored(log_table(1500, seed=36), columns=True, source="live")
    report = seen(known, log_table(1500, seed=37), table)
    amount = next(column for column in report.columns if column.name == "amount")
    assert amount.shape is not None
    assert amount.shape.missing[1] == pytest.approx(0.5)
    assert np.isfinite(amount.shape.current).all()
