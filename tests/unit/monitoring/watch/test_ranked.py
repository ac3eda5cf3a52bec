"""Models that rank: NDCG and MAP of a window, from labels, beside what is usual."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import ndcg_score

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import InvalidInput
from fairway.monitoring.watch.findings import with_findings
from fairway.monitoring.watch.frame import Frame, frame_of
from fairway.monitoring.watch.look import Asked, look_at_performance
from fairway.monitoring.watch.monitor import Subjected
from fairway.monitoring.watch.ranked import ranked_of
from fairway.monitoring.watch.reference import Reference, make_reference
from fairway.monitoring.watch.values import Report
from fairway.packaging.profile import Profile
from tests.unit.monitoring.watch.rows import NOON, MemoryRows
from tests.unit.monitoring.watch.test_monitor import QUICK, Watch

OTHER = Contract(
    inputs=(Field(name="session", dtype=DType.string), Field(name="x", dtype=DType.float64)),
    outputs=(Output(name="rank", dtype=DType.float64),),
)
REGRESSOR = Contract(
    inputs=OTHER.inputs, outputs=(Output(name="prediction", dtype=DType.float64),), task=Task.regression
)
PROFILE = Profile(rows=2000, inputs=(), outputs=())


def lists(count: int, seed: int, *, skill: float = 1.0, output: str = "rank", label: bool = True) -> pa.Table:
    """`count` lists of eight items; `skill` 0 orders them by chance."""
    random = np.random.default_rng(seed)
    rows = count * 8
    relevance = random.binomial(3, 0.3, rows)
    times = [NOON + timedelta(seconds=3500 * i / rows) for i in range(rows)]
    columns = {
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "request_id": pa.array([f"{seed}.{i // 8}" for i in range(rows)]),
        "input.session": pa.array([f"s{seed}.{i // 8}" for i in range(rows)]),
        "input.x": pa.array(random.normal(size=rows)),
        f"output.{output}": pa.array(skill * relevance + random.normal(size=rows)),
    }
    if label:
        columns["label"] = pa.array(relevance)
    return pa.table(columns)


def reference(contract: Contract = OTHER, **options: str) -> Reference:
    table = lists(600, 1, output=contract.outputs[0].name)
    return make_reference(contract, PROFILE, frame_of(table, contract), text="", query="session")


def told(frame: Frame, known: Reference) -> Report:
    report = Report(model="m", version=1, digest="d", start="2026-05-01", end="2026-05-02", rows=frame.rows)
    notes: list[str] = []
    report = look_at_performance(report, frame, known, Asked(), notes)
    return with_findings(report, known, (), 1)


@pytest.mark.parametrize("contract", [OTHER, REGRESSOR], ids=["other", "regression"])
def test_a_window_that_orders_worse_is_a_finding_and_one_as_usual_is_none(contract: Contract) -> None:
    known = reference(contract)
    output = contract.outputs[0].name
    good = told(frame_of(lists(100, 2, output=output), contract), known)
    metrics = {metric.measured.name: metric for metric in good.performance}
    assert metrics["ndcg"].measured.rows == pytest.approx(100, abs=8)  # lists, not rows
    assert not metrics["ndcg"].alert
    assert not metrics["map"].alert
    assert "performance" in good.judged
    assert not [finding for finding in good.findings if finding.field in ("ndcg", "map")]
    bad = told(frame_of(lists(100, 3, skill=0.0, output=output), contract), known)
    assert {"ndcg", "map"} <= {finding.field for finding in bad.findings if finding.severity == "warning"}
    few = told(frame_of(lists(10, 4, skill=0.0, output=output), contract), known)
    assert not any(metric.alert for metric in few.performance if metric.measured.name in ("ndcg", "map"))


def test_it_is_what_scikit_learn_says() -> None:
    table = lists(50, 5)
    relevance = np.asarray(table["label"]).reshape(50, 8)
    relevant = relevance.any(axis=1)
    wanted = ndcg_score(relevance[relevant], np.asarray(table["output.rank"]).reshape(50, 8)[relevant])
    [found] = [
        m.measured for m in told(frame_of(table, OTHER), reference()).performance if m.measured.name == "ndcg"
    ]
    assert found.value == pytest.approx(wanted)


def test_the_monitor_tells_of_lists_once_their_labels_come() -> None:
    rows = MemoryRows(lists(120, 6, skill=0.0))
    rows.known = rows.known.set_column(
        rows.known.column_names.index("label"), "label", rows.known["label"].cast(pa.string())
    )
    watch = Watch(rows, Subjected(OTHER, reference(), Asked(monitoring=QUICK)))
    watch.at(NOON + timedelta(hours=1, seconds=6))
    rows.changes.append((NOON, 1))
    [report] = watch.at(NOON + timedelta(hours=1, seconds=30))
    assert any(metric.measured.name == "ndcg" and metric.alert for metric in report.performance)
    assert watch.told[-1].kinds == ("performance",)
    assert {finding.field for finding in watch.told[-1].findings} == {"ndcg", "map"}


def test_a_request_may_be_a_list_and_what_is_not_there_is_told() -> None:
    frame = frame_of(lists(20, 7), OTHER)
    assert len(np.unique(ranked_of(frame, "request_id", "it").query)) == 20
    with pytest.raises(InvalidInput, match="no field 'nope'"):
        ranked_of(frame, "nope", "it")
    texts = lists(20, 7).drop_columns(["label"]).append_column("label", pa.array(["a"] * 160))
    with pytest.raises(InvalidInput, match="no relevances"):
        ranked_of(frame_of(texts, OTHER), "session", "it")
    unlabelled = frame_of(lists(20, 7, label=False), OTHER)
    assert np.isnan(ranked_of(unlabelled, "session", "it").relevance).all()
    assert told(unlabelled, reference()).performance == ()
