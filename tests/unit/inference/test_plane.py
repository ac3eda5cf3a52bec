"""The request path: routed, validated, run, counted, recorded."""

import numpy as np
import pytest

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import ContractViolation, ModelFailed, ModelNotFound, VersionNotFound
from fairway.core.request import Request
from fairway.core.route import everything_to
from fairway.core.settings import Settings
from fairway.inference.live import LiveModel
from fairway.inference.plane import Plane
from fairway.stores.counters import Counters
from tests.planes import TWO_NUMBERS, Adding, Kept, live_version, plane, split

GOOD = {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def request(**options: object) -> Request:
    return Request(**{"model": "m", "inputs": GOOD, "request_id": "r1", **options})  # type: ignore[arg-type]


def requests_by_code(counters: Counters) -> dict[tuple[str, str, str], float]:
    found = {}
    for (name, labels), value in counters.totals().items():
        if name == "fairway_requests_total":
            told = dict(labels)
            found[told["model"], told["version"], told["code"]] = value
    return found


def test_a_request_is_answered_counted_and_recorded() -> None:
    kept, counters = Kept(), Counters()
    answer = plane(recorder=kept, counters=counters).infer(request())
    assert answer.outputs["sum"].tolist() == [4.0, 6.0]
    assert (answer.model, answer.version, answer.digest, answer.rows, answer.request_id) == (
        "m",
        1,
        "sha256:1",
        2,
        "r1",
    )
    [recorded] = kept.predictions
    assert (recorded.request_ids, recorded.about.version, recorded.counts) == (["r1"], 1, [2])
    assert recorded.outputs["sum"] is answer.outputs["sum"]
    assert recorded.seconds[0] > 0
    assert requests_by_code(counters) == {("m", "1", "ok"): 1}


def test_the_key_decides_the_arm_and_without_one_the_request_id_does() -> None:
    serving = plane(split("m", 0.5, 0.5))
    by_key = {key: serving.infer(request(key=key)).version for key in map(str, range(40))}
    assert set(by_key.values()) == {1, 2}
    for key, version in by_key.items():
        assert serving.infer(request(key=key, request_id="another")).version == version
        assert serving.infer(request(request_id=key)).version == version


def test_a_version_asked_for_answers_whatever_the_route_says() -> None:
    serving = plane(split("m", 0.5, 0.5))
    assert {serving.infer(request(version="2", key=str(i))).version for i in range(20)} == {2}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "x"}, ModelNotFound),
        ({"version": "7"}, VersionNotFound),
        ({"inputs": {"a": [1.0]}}, ContractViolation),
    ],
)
def test_nothing_refused_is_recorded(options: dict[str, object], error: type[Exception]) -> None:
    kept = Kept()
    with pytest.raises(error):
        plane(recorder=kept).infer(request(**options))
    assert kept.predictions == []


def test_refused_fields_are_counted_but_not_names_callers_made_up() -> None:
    counters = Counters()
    strict = Contract(inputs=TWO_NUMBERS.inputs, outputs=TWO_NUMBERS.outputs, extra_fields="reject")
    live = LiveModel(everything_to("m", 1), {1: live_version(1, contract=strict, counters=counters)}, {})
    serving = plane(live, counters=counters)
    for i in range(50):
        with pytest.raises(ContractViolation):
            serving.infer(request(inputs={"a": ["x"], "b": [1.0], f"made-up-{i}": [1]}))
        with pytest.raises(ContractViolation):
            serving.infer(request(inputs={f"made-up-{i}": np.zeros((1, 9))}))
    fields = {
        dict(labels)["field"]: v
        for (name, labels), v in counters.totals().items()
        if name == "fairway_field_violations_total"
    }
    assert fields == {"a": 50}


def test_names_nobody_knows_are_counted_as_one() -> None:
    counters = Counters()
    serving = plane(counters=counters)
    for i in range(30):
        serving.failed(f"model-{i}", "1", "rest", "model_not_found")
        serving.failed("m", str(i + 100), "rest", "version_not_found")
    serving.failed("m", "9" * 5000, "rest", "alias_not_found")
    serving.failed("m", "champion", "rest", "malformed_input")
    assert requests_by_code(counters) == {
        ("", "", "model_not_found"): 30,
        ("m", "", "version_not_found"): 30,
        ("m", "", "alias_not_found"): 1,
        ("m", "champion", "malformed_input"): 1,
    }


class Short(Adding):
    def predict(self, columns: Columns) -> Outputs:
        return {"sum": np.ones(1)}


def test_a_model_that_loses_rows_has_failed() -> None:
    serving = plane(LiveModel(everything_to("m", 1), {1: live_version(1, Short())}, {}))
    with pytest.raises(ModelFailed, match="'sum' has 1 rows for 2 rows"):
        serving.infer(request())


def test_quick_follows_what_calls_have_cost() -> None:
    live = LiveModel(everything_to("m", 1), {1: live_version(1)}, {})
    serving = plane(live, inline_seconds=0.01)
    work = serving.arrive(request(), 0.0)
    serving.validate(work)
    assert serving.quick(work)
    for _ in range(100):
        live.primary.cost.learn(2, 0.02)
    assert not serving.quick(work)


def test_closing_closes_the_recorder() -> None:
    kept = Kept()
    plane(recorder=kept).close()
    assert kept.closed
    Plane(plane().table, Counters(), None, Settings()).close()
