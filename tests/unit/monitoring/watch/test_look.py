"""One window looked at: what has changed is found, what has not is not."""

from datetime import timedelta

import msgspec
import pyarrow as pa
import pytest

from fairway.core.clock import utc_text
from fairway.core.contract import Contract, Output
from fairway.core.settings import MonitoringSettings
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.watch.findings import incident_window, with_findings
from fairway.monitoring.watch.frame import Frame, frame_kinds, frame_of
from fairway.monitoring.watch.look import About, Asked, look
from fairway.monitoring.watch.reference import Reference, make_reference
from fairway.monitoring.watch.subject import spellings_of, subject_of
from fairway.monitoring.watch.values import Report, Summary, summary_of
from tests.unit.monitoring.watch.rows import CONTRACT, NOON, PROFILE, log_table, reference, wide

ABOUT = About(
    model="m", version=1, digest="sha256:1", start=utc_text(NOON), end=utc_text(NOON + timedelta(hours=1))
)
LATER = NOON + timedelta(hours=1, seconds=10)


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference()


def seen(
    table: pa.Table, known: Reference, *, asked: Asked | None = None, history: tuple[Summary, ...] = ()
) -> Report:
    frame = frame_of(table, CONTRACT)
    profile = Profile(frame_kinds(frame, CONTRACT))
    profile.update(frame.table)
    report = look(ABOUT, frame, profile, known, history, asked or Asked(), LATER)
    return with_findings(report, known, history, need=2)


def test_rows_of_a_batch_run_are_rows_and_no_traffic(known: Reference) -> None:
    table = log_table(1500, seed=3)
    place = table.column_names.index("protocol")
    protocols = pa.array(["batch"] * 1000 + ["v2"] * 500)
    report = seen(table.set_column(place, "protocol", protocols), known)
    assert (report.rows, report.traffic.requests) == (1500, 500)


def test_a_window_like_the_reference(known: Reference) -> None:
    report = seen(log_table(1500, seed=3, label="json"), known)
    assert not report.drifted
    assert [finding.kind for finding in report.findings if finding.severity != "info"] == []
    assert report.rows == 1500
    assert report.labels == 1500
    metrics = {metric.measured.name: metric for metric in report.performance}
    estimates = {metric.measured.name: metric for metric in report.estimates}
    assert abs((metrics["roc_auc"].measured.value or 0) - (estimates["roc_auc"].measured.value or 0)) < 0.03
    assert estimates["roc_auc"].measured.estimated
    assert not any(metric.alert for metric in (*report.performance, *report.estimates))
    assert report.traffic.requests == 1500
    assert report.traffic.p99 == pytest.approx(0.002)
    assert report.traffic.sources == {"live": 1500}
    assert set(report.judged) >= {"drift", "quality", "estimate", "performance"}
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_one_drifted_window_is_no_finding(known: Reference) -> None:
    report = seen(log_table(1500, seed=4, shift=0.8), known)
    assert report.drifted
    assert not any(finding.kind == "drift" for finding in report.findings)


def test_drift_is_found_drawn_weighed_and_said(known: Reference) -> None:
    before = Summary(end=ABOUT.start, rows=1500, drifted=("amount",))
    report = seen(log_table(1500, seed=4, shift=0.8), known, history=(before,))
    assert report.drifted
    amount = next(column for column in report.columns if column.name == "amount")
    assert amount.role == "input"
    assert amount.drift is not None
    assert amount.drift.drifted
    assert amount.shape is not None
    assert len(amount.shape.edges) == len(amount.shape.current) + 1
    assert sum(amount.shape.current) == pytest.approx(1, abs=0.001)
    country = next(column for column in report.columns if column.name == "country")
    assert country.shape is not None
    assert set(country.shape.labels) == {"DE", "FR", "PL"}
    assert country.drift is not None
    assert not country.drift.drifted
    window = incident_window(report)
    assert window.kinds[0] == "drift"
    told = {finding.field: finding for finding in window.findings if finding.kind == "drift"}
    assert "amount has moved by" in told["amount"].text
    assert told["amount"].weight is not None
    outputs = {column.name for column in report.columns if column.role == "output"}
    assert all(finding.weight == 0 for name, finding in told.items() if name in outputs)
    assert incident_window(report, ["quality"]).kinds == ("quality",)
    small = summary_of(report)
    assert "amount" in small.drifted
    assert small.effects["amount"] > 0.3
    assert small.estimates["roc_auc"].value is not None


def test_labels_show_what_estimates_cannot(known: Reference) -> None:
    report = seen(log_table(1500, seed=5, honest=False, label="json"), known)
    alerts = {metric.measured.name for metric in report.performance if metric.alert}
    assert "roc_auc" in alerts
    assert not {m.measured.name for m in report.estimates if m.alert} & {"roc_auc"}
    assert any(f.kind == "performance" and f.field == "roc_auc" for f in report.findings)


def test_too_few_rows_or_labels_judge_nothing(known: Reference) -> None:
    report = seen(log_table(20, seed=6, label="json"), known)
    assert "drift" not in report.judged
    assert "estimate" not in report.judged
    assert "performance" not in report.judged
    assert report.labels == 20
    assert any("drift: 20 rows" in note for note in report.notes)
    empty = seen(log_table(0), known)
    assert empty.rows == 0
    assert empty.traffic.requests == 0


def test_a_reference_without_labels_or_values() -> None:
    bare = reference(labelled=False)
    report = seen(log_table(500, seed=7, label="json"), bare)
    assert report.estimates == ()
    assert report.labels == 500
    assert any("no labels" in note for note in report.notes)
    counts = make_reference(CONTRACT, PROFILE, wide(), text="rows without values")
    report = seen(log_table(500, seed=8), counts)
    assert report.columns[0].shape is None
    few = make_reference(CONTRACT, PROFILE, frame_of(log_table(30, label="number"), CONTRACT), text="few")
    assert few.estimator is None
    assert any("100 or more" in note for note in few.notes)


def test_slices_groups_and_columns_that_are_not_there(known: Reference) -> None:
    asked = Asked(
        monitoring=MonitoringSettings(min_labels=10),
        slices=("country", "nothing"),
        protected=("country", "nobody"),
    )
    report = seen(log_table(1500, seed=9, label="json"), known, asked=asked)
    assert {condition.text for part in report.slices for condition in part.conditions} == {
        "country = DE", "country = FR", "country = PL",
    }  # fmt: skip
    assert "demographic_parity_difference" in report.fairness["country"].measures
    assert any("'nothing'" in note for note in report.notes)
    assert any("'nobody'" in note for note in report.notes)


def test_traffic_and_latency_against_history(known: Reference) -> None:
    history = tuple(
        Summary(
            end=utc_text(NOON - timedelta(hours=40 - hour)),
            rows=1500 + hour % 7,
            requests=1500 + hour % 7,
            p99=0.002,
        )
        for hour in range(40)
    )
    quiet = seen(log_table(1500, seed=10), known, history=history)
    assert not any(anomaly.anomalous for anomaly in quiet.operations)
    few = seen(log_table(100, seed=11), known, history=history)
    assert any(f.kind == "operations" and f.field == "traffic" for f in few.findings)


def test_classes_as_people_write_them() -> None:
    assert spellings_of(("False", "True"))["1"] == "True"
    assert spellings_of(("0", "1"))["true"] == "1"
    assert spellings_of(("0", "1", "2"))["2.0"] == "2"
    assert spellings_of(("Cat", "dog")) == {"cat": "Cat", "dog": "dog"}
    other = Contract(inputs=CONTRACT.inputs, outputs=(Output(name="y", dtype=CONTRACT.outputs[0].dtype),))
    assert subject_of(other, ()) is None


def test_a_window_of_nothing_has_a_frame() -> None:
    assert Frame(pa.table({}), (), (), pa.table({})).rows == 0
