"""The law of one turn: any mix of requests gets exactly its unbatched answers."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Action, Contract, DType, Field, Output, Rules
from fairway.core.errors import FairwayError
from fairway.core.request import Request
from fairway.core.route import everything_to
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.live import LiveModel
from fairway.inference.plane import Plane
from fairway.inference.work import Ran, Together, Work
from fairway.stores.counters import Counters
from tests.planes import TWO_NUMBERS, Adding, Kept, live_version, plane

CLIPPING = Contract(
    inputs=(
        Field(name="a", dtype=DType.float64, nullable=True),
        Field(name="b", dtype=DType.float64, minimum=0.0, maximum=10.0, rules=Rules(on_range=Action.clip)),
    ),
    outputs=TWO_NUMBERS.outputs,
)
IMAGE = Contract(
    inputs=(
        Field(name="a", dtype=DType.float32, shape=(2, 2)),
        Field(name="b", dtype=DType.float64, shape=(3,), nullable=True),
    ),
    outputs=(Output(name="sum", dtype=DType.float64),),
)
TEXT = Contract(
    inputs=(Field(name="a", dtype=DType.string), Field(name="b", dtype=DType.float64)),
    outputs=(Output(name="said", dtype=DType.string),),
)


class Saying:
    def predict(self, columns: Columns) -> Outputs:
        said = [f"{a}{b}" for a, b in zip(columns["a"], columns["b"], strict=True)]
        return {"said": np.array(said, dtype=object)}

    def unload(self) -> None:
        """Nothing to let go."""


class Summing:
    def predict(self, columns: Columns) -> Outputs:
        return {"sum": columns["a"].sum(axis=(1, 2)).astype(np.float64) + columns["b"].sum(axis=1)}

    def unload(self) -> None:
        """Nothing to let go."""


def serving(contract: Contract = TWO_NUMBERS, engine: Any = None, **options: Any) -> Plane:
    counters = Counters()
    version = live_version(1, engine, contract=contract, counters=counters, floor=1)
    return plane(LiveModel(everything_to("m", 1), {1: version}, {}), counters=counters, **options)


def together(on: Plane, requests: list[Request]) -> dict[str, Any]:
    """Each request's outcome by its id, as lists of numbers or the error's code."""
    works = [on.arrive(request, time.perf_counter()) for request in requests]
    found: dict[str, Any] = {}
    for outcome in on.answer_together(works):
        if isinstance(outcome, Ran):
            begin = 0
            for work, count in zip(outcome.works, outcome.counts, strict=True):
                share = {name: values[begin : begin + count] for name, values in outcome.outputs.items()}
                found[work.request.request_id] = plain(share)
                begin += count
            assert begin == outcome.columns.rows
            on.finish_together(outcome, time.perf_counter())
        elif isinstance(outcome, Work):
            found[outcome.request.request_id] = plain(on.run(outcome))
        else:
            work, error = outcome
            found[work.request.request_id] = (error.code, str(error))
    return found


def alone(on: Plane, request: Request) -> Any:
    try:
        return plain(on.infer(request).outputs)
    except FairwayError as error:
        return error.code, str(error)


def plain(outputs: Outputs) -> dict[str, Any]:
    return {
        name: values.tolist()
        if values.dtype.kind == "O"
        else (values.dtype.str, values.shape, values.tobytes())
        for name, values in outputs.items()
    }


VALUE = st.one_of(
    st.floats(-20, 20, width=32), st.integers(-5, 20), st.none(), st.just("x"), st.just(float("inf"))
)
CLEAN = st.floats(0, 10, width=32)


@st.composite
def inputs(draw: st.DrawFn) -> Any:
    rows = draw(st.integers(0, 4))
    kind = draw(st.sampled_from(["matrix", "matrix", "matrix", "columns", "records", "wrong width"]))
    if kind == "matrix":
        dtype = draw(st.sampled_from(["<f4", "<f8", "<i8"]))
        values = draw(
            st.lists(CLEAN if dtype != "<i8" else st.integers(-3, 12), min_size=2 * rows, max_size=2 * rows)
        )
        return {"x": np.array(values, dtype=dtype).reshape(rows, 2)}
    if kind == "wrong width":
        return {"x": np.zeros((rows, 3))}
    return {name: draw(st.lists(VALUE, min_size=rows, max_size=rows)) for name in ("a", "b")}


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(inputs(), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([TWO_NUMBERS, CLIPPING, TEXT]),
    st.sampled_from([{}, {"cache_bytes": 10**6, "cache_seconds": 60.0}]),
)
def test_law_any_mix_gets_its_unbatched_answers(
    asked: list[tuple[Any, bool]], contract: Contract, cached: dict[str, Any]
) -> None:
    engine = Saying() if contract is TEXT else None
    merged = serving(contract, engine, settings=Settings(models={"m": ModelSettings(**cached)}))
    single = serving(contract, engine)
    requests = [
        Request(
            model="m",
            inputs=values,
            request_id=str(i),
            deadline=time.perf_counter() + (-1 if late else 60) if late else None,
        )
        for i, (values, late) in enumerate(asked)
    ]
    found = together(merged, requests)
    assert found == {request.request_id: alone(single, request) for request in requests}
    counted = [
        {
            key: value
            for key, value in on.counters.totals().items()
            if key[0] == "fairway_field_violations_total"
        }
        for on in (merged, single)
    ]
    assert counted[0] == counted[1]


ELEMENT = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([np.nan, np.inf]))


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    rows = draw(st.integers(0, 3))
    image = draw(st.sampled_from(["<f4", "<f4", "<f8"]))
    width = draw(st.sampled_from([3, 3, 3, 2]))
    clean = draw(st.booleans())
    element = st.floats(-5, 5, width=32) if clean else ELEMENT
    return {
        "a": np.array(draw(st.lists(element, min_size=4 * rows, max_size=4 * rows)), image).reshape(
            rows, 2, 2
        ),
        "b": np.array(draw(st.lists(element, min_size=width * rows, max_size=width * rows)), "<f8").reshape(
            rows, width
        ),
    }


@settings(deadline=None, max_examples=150)
@given(st.lists(tensors(), min_size=1, max_size=8))
def test_law_tensors_too(asked: list[Any]) -> None:
    requests = [Request(model="m", inputs=values, request_id=str(i)) for i, values in enumerate(asked)]
    single = serving(IMAGE, Summing())
    found = together(serving(IMAGE, Summing()), requests)
    assert found == {request.request_id: alone(single, request) for request in requests}


def test_tensors_of_one_turn_are_one_call() -> None:
    on = serving(IMAGE, Summing())
    values = {"a": np.ones((1, 2, 2), np.float32), "b": np.ones((1, 3))}
    together(on, [Request(model="m", inputs=values, request_id=str(i)) for i in range(6)])
    calls = {key[0]: value for key, value in on.counters.totals().items()}
    assert calls["fairway_merged_requests_total"] == 6


def matrices(count: int, rows: int = 1) -> list[Request]:
    return [
        Request(model="m", inputs={"x": np.full((rows, 2), float(i % 10))}, request_id=str(i))
        for i in range(count)
    ]


def test_one_engine_call_one_record_and_each_its_own_count() -> None:
    engine, kept = Adding(), Kept()
    on = serving(engine=engine, recorder=kept)
    found = together(on, matrices(8, 2))
    assert engine.calls == 1
    assert len(found) == 8
    [recorded] = kept.predictions
    assert (recorded.request_ids, recorded.counts) == ([str(i) for i in range(8)], [2] * 8)
    assert recorded.outputs["sum"].tolist() == [2.0 * i for i in range(8) for _ in range(2)]
    totals = {
        name: sum(value for (key, _), value in on.counters.totals().items() if key == name)
        for name in ("fairway_requests_total", "fairway_rows_total", "fairway_merged_requests_total")
    }
    assert totals == {
        "fairway_requests_total": 8,
        "fairway_rows_total": 16,
        "fairway_merged_requests_total": 8,
    }


@pytest.mark.parametrize(("pays", "inline", "calls"), [(1, 100, 8), (4, 100, 2), (100, 7, 0), (100, 100, 1)])
def test_merging_stops_where_it_does_not_pay_and_long_calls_are_handed_back(
    pays: int, inline: int, calls: int
) -> None:
    engine = Adding()
    on = serving(engine=engine)
    cost = on.table["m"].primary.cost
    cost.pays_rows, cost.inline_rows = pays, inline
    cost._calls = -1000  # as told, for this test
    cost.learn = lambda rows, seconds: None  # type: ignore[method-assign]
    outcomes = on.answer_together([on.arrive(request, 0.0) for request in matrices(8)])
    assert engine.calls == calls
    assert (calls == 0) == isinstance(outcomes[0], Together)


def test_a_version_that_cannot_be_merged_is_not() -> None:
    engine = Adding()
    version = live_version(1, engine, floor=None)
    on = plane(LiveModel(everything_to("m", 1), {1: version}, {}))
    together(on, matrices(5))
    assert engine.calls == 5


def test_what_takes_too_long_for_a_loop_is_handed_back() -> None:
    on = serving()
    cost = on.table["m"].primary.cost
    cost.inline_rows = 2
    works = [on.arrive(request, 0.0) for request in [*matrices(1, 2), *matrices(1, 1)]]
    (call,) = on.answer_together(works)
    assert isinstance(call, Together)
    assert (call.works, call.counts, call.columns.rows) == (works, [2, 1], 3)
    cost.pays_rows = 1
    assert on.answer_together(works) == works
    assert all(work.columns is not None for work in works)


def test_a_long_call_has_at_most_as_many_rows_as_pay_and_no_request_is_split() -> None:
    on = serving()
    cost = on.table["m"].primary.cost
    cost.inline_rows, cost.pays_rows = 2, 4
    sizes = [3, 2, 2, 7, 1, 3]
    works = [on.arrive(request, 0.0) for size in sizes for request in matrices(1, size)]
    calls = on.answer_together(works)
    assert [call.counts for call in calls if isinstance(call, Together)] == [[3], [2, 2], [7], [1, 3]]
    assert [work for call in calls if isinstance(call, Together) for work in call.works] == works
    together_again = [call.columns.packed for call in calls if isinstance(call, Together)]
    assert np.concatenate(together_again).shape == (sum(sizes), 2)


def test_short_calls_are_still_made_at_once() -> None:
    on = serving()
    on.table["m"].primary.cost.inline_rows = 2
    assert isinstance(on.answer_together([on.arrive(request, 0.0) for request in matrices(2)])[0], Ran)


def test_the_cache_answers_without_the_engine() -> None:
    engine = Adding()
    on = serving(engine=engine, settings=Settings(models={"m": ModelSettings(cache_bytes=10**6)}))
    first = together(on, matrices(4))
    calls = engine.calls
    assert together(on, matrices(4)) == first
    assert engine.calls == calls
    assert alone(on, matrices(1)[0]) == first["0"]
    assert engine.calls == calls
