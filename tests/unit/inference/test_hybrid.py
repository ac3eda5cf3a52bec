"""Precomputed answers in the request path, without a server: one turn of many kinds of requests, overload, stores that
have to be waited for."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fairway.core.columns import Columns
from fairway.core.errors import AnswerNotFound, AnswersUnavailable, InvalidInput, Overloaded
from fairway.core.request import Request
from fairway.core.route import everything_to
from fairway.core.settings import HybridSettings, ModelSettings, ServingSettings, Settings
from fairway.inference.entries import decode_entry, decode_rows, encode_rows, features_of, layout_of
from fairway.inference.freshness import Reason, Source, contract_signature
from fairway.inference.hybrid import MOST_AT_ONCE, ask_of, only_keys
from fairway.inference.live import LiveModel
from fairway.inference.lookups import LookUps, Question
from fairway.inference.microbatch import Waiting
from fairway.inference.plane import Plane
from fairway.inference.precomputed import Ask, Found, Looked
from fairway.inference.work import Ran, Work
from fairway.stores.answers import open_answers
from fairway.stores.counters import Counters
from tests.generations import generation
from tests.planes import TWO_NUMBERS, Adding, Kept, live_version, plane

ROWS = 100


class Serving:
    """`m`, whose answers to k0, k1, ... (a = n, b = 1) are 1000 + n: not what the model would say."""

    def __init__(self, engine: Adding | None = None, inline: float = 10.0, **model: Any) -> None:
        url = f"memory://{uuid.uuid4().hex}"
        self.settings = Settings(
            home="nowhere",
            serving=ServingSettings(inline_seconds=inline, queue=4),
            hybrid=HybridSettings(store=url),
            models={"m": ModelSettings(hybrid_key="id", **model)},
        )
        self.counters, self.kept = Counters(), Kept()
        version = live_version(
            1, engine, counters=self.counters, settings=self.settings, floor=1 if engine is None else None
        )
        self.store = open_answers(url, "m", home=Path(), timeout_seconds=1.0)
        self.write(version.digest)
        self.plane = plane(
            LiveModel(everything_to("m", 1), {1: version}, {}),
            recorder=self.kept,
            counters=self.counters,
            settings=self.settings,
        )

    def write(self, digest: str) -> None:
        numbers = np.arange(float(ROWS))
        both = np.stack([numbers, np.ones(ROWS)], axis=1)
        outputs = {"sum": 1000 + numbers, "both": both}
        made = generation(
            digest, layout=layout_of(outputs), signature=contract_signature(TWO_NUMBERS), ttl_seconds=0.0
        )
        columns = Columns(("a", "b"), ROWS, packed=both)
        entries = encode_rows(outputs, features_of(columns), 1.0, made.layout)
        writer = self.store.begin(made)
        writer.write([(b"k%d" % n, entry) for n, entry in enumerate(entries)], b"")
        writer.publish()

    def ask(self, *keys: str, a: Sequence[float] | None = None, **more: Any) -> Work:
        inputs = {} if a is None else {"a": list(a), "b": [1.0] * len(a)}
        sent = [key.encode() for key in keys] if keys else None
        request = Request(model="m", inputs=inputs, request_id=f"r{uuid.uuid4().hex[:6]}", keys=sent, **more)
        return self.plane.arrive(request, 0.0)

    def counted(self, name: str) -> dict[str, float]:
        return {
            dict(labels).get("source", dict(labels).get("reason", "")): value
            for (counter, labels), value in self.counters.totals().items()
            if counter == f"fairway_answers_{name}" and value
        }


@pytest.fixture
def serving() -> Iterator[Serving]:
    made = Serving()
    yield made
    made.plane.close()


def sums(outcomes: list[Any]) -> dict[str, list[float]]:
    """Answers by request id."""
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Ran):
            begin = 0
            for work, count in zip(outcome.works, outcome.counts, strict=True):
                found[work.request.request_id] = outcome.outputs["sum"][begin : begin + count].tolist()
                begin += count
    return found


def test_one_turn_of_every_kind_of_request(serving: Serving) -> None:
    fresh = [serving.ask(f"k{n}") for n in range(5)]
    two = serving.ask("k7", "k8")
    same, other = serving.ask("k3", a=[3.0]), serving.ask("k3", a=[4.0])
    unkeyed, unknown = serving.ask(a=[9.0]), serving.ask("nobody", a=[5.0])
    missing, wrong = serving.ask("nobody"), serving.ask("k1", a=[1.0, 2.0])
    broken = serving.ask("k1")
    broken.request = msgspec.structs.replace(broken.request, inputs={"a": [1.0], "b": [99.0, 1.0]})
    works = [*fresh, two, same, other, unkeyed, unknown, missing, wrong, broken]
    outcomes = serving.plane.answer_together(works)
    errors = {outcome[0].request.request_id: outcome[1] for outcome in outcomes if isinstance(outcome, tuple)}
    answers = sums(outcomes)
    assert [answers[work.request.request_id] for work in fresh] == [[1000.0 + n] for n in range(5)]
    assert answers[two.request.request_id] == [1007.0, 1008.0]
    assert answers[same.request.request_id] == [1003.0]
    assert answers[other.request.request_id] == [5.0]
    assert answers[unkeyed.request.request_id] == [10.0]
    assert answers[unknown.request.request_id] == [6.0]
    assert isinstance(errors[missing.request.request_id], AnswerNotFound)
    assert isinstance(errors[wrong.request.request_id], InvalidInput)
    assert isinstance(errors[broken.request.request_id], InvalidInput)
    assert len(answers) + len(errors) == len(works)
    for outcome in outcomes:
        if isinstance(outcome, Ran):
            serving.plane.finish_together(outcome, 1.0)
    assert serving.counted("total") == {"precomputed": 7.0, "live": 3.0, "nobody": 1.0}
    assert serving.counted("missed_total") == {"features": 1.0, "unkeyed": 1.0, "missing": 2.0}
    sources = [source for one in serving.kept.predictions for source in one.sources or ()]
    assert sorted(sources) == ["live"] * 3 + ["precomputed"] * 7


def test_requests_that_only_have_keys_run_nothing() -> None:
    engine = Adding()
    serving = Serving(engine)
    assert len(sums(serving.plane.answer_together([serving.ask(f"k{n}") for n in range(50)]))) == 50
    assert sums(serving.plane.answer_together([serving.ask("k1")])).popitem()[1] == [1001.0]
    assert engine.calls == 0
    serving.plane.close()


def test_the_key_of_a_split_is_the_key_of_one_row(serving: Serving) -> None:
    infer = serving.plane.infer
    keyed = Request(model="m", inputs={}, request_id="r", key="k5")
    assert infer(keyed).source == "precomputed"
    row = msgspec.structs.replace(keyed, inputs={"a": [5.0], "b": [1.0]})
    assert (infer(row).source, infer(row).age > 0) == ("precomputed", True)
    rows = msgspec.structs.replace(keyed, inputs={"a": [5.0, 6.0], "b": [1.0, 1.0]})
    assert (infer(rows).source, infer(rows).outputs["sum"].tolist()) == ("live", [6.0, 7.0])
    with pytest.raises(InvalidInput):
        infer(Request(model="m", inputs={}, request_id="r"))


def test_a_model_without_a_key_has_no_source() -> None:
    on = plane()
    answer = on.infer(Request(model="m", inputs={"a": [1.0], "b": [1.0]}, request_id="r", key="k5"))
    assert (answer.source, answer.age) == ("", 0.0)


def begun(on: Plane, work: Work) -> Waiting:
    over = threading.Event()
    waiting = on.begin(work, lambda _: over.set())
    assert over.wait(10)
    return waiting


def test_many_keys_are_looked_up_in_a_thread(serving: Serving) -> None:
    keys = [f"k{n % ROWS}" for n in range(MOST_AT_ONCE + 1)]
    work = serving.ask(*keys)
    assert serving.plane.answer_together([work]) == [work]
    waiting = begun(serving.plane, work)
    assert waiting.outputs is not None
    assert waiting.outputs["sum"].tolist() == [1000.0 + n % ROWS for n in range(MOST_AT_ONCE + 1)]
    assert work.found is not None
    assert work.found.source is Source.precomputed
    live = serving.ask(*keys, a=[0.5] * len(keys))
    assert serving.plane.answer_together([live]) == [live]
    assert (begun(serving.plane, live).outputs, live.found.source) == (None, Source.live)  # type: ignore[union-attr]
    assert sums(serving.plane.answer_together([live])).popitem()[1] == [1.5] * len(keys)


def overloaded(**model: Any) -> tuple[Serving, Callable[[], None]]:
    """A server whose model stands still, with a full queue; and what lets it go on."""
    go = threading.Event()

    def wait(_: Columns) -> None:
        go.wait(20)

    on = Serving(Adding(before=wait), inline=-1.0, threads=1, **model)
    for n in range(5):
        work = on.ask("nobody", a=[float(n)])
        on.plane.validate(work)
        assert begun(on.plane, work).outputs is None
        on.plane.begin(work, lambda _: None)

    def done() -> None:
        go.set()
        on.plane.close()

    return on, done


def fill(on: Plane, work: Work) -> None:
    for _ in range(9):
        on.begin(work, lambda _: None)


def test_an_overloaded_model_is_answered_for_once() -> None:
    on, done = overloaded(hybrid_prefer="live", hybrid_overload="fresh")
    try:
        work = on.ask("k3", a=[3.0])
        on.plane.validate(work)
        assert begun(on.plane, work).outputs is None  # the model is to run
        with pytest.raises(Overloaded):
            fill(on.plane, work)
        assert on.plane.fall_back(work)
        waiting = begun(on.plane, work)
        assert waiting.outputs is not None
        assert waiting.outputs["sum"].tolist() == [1003.0]
        assert not on.plane.fall_back(work)
        on.plane.finish(work, waiting.outputs, 1.0, 1.0)
        assert on.counted("overload_total") == {"": 1.0}
        unknown = on.ask("nobody", a=[3.0])
        on.plane.validate(unknown)
        begun(on.plane, unknown)
        assert on.plane.fall_back(unknown)
        assert isinstance(begun(on.plane, unknown).error, Overloaded)
        unkeyed = on.ask(a=[3.0])
        on.plane.validate(unkeyed)
        begun(on.plane, unkeyed)
        assert not on.plane.fall_back(unkeyed)
    finally:
        done()


def test_the_library_falls_back_too() -> None:
    on, done = overloaded(hybrid_prefer="live", hybrid_overload="stale")
    try:
        answer = on.plane.infer(on.ask("k3", a=[3.0]).request)
        assert (answer.source, answer.outputs["sum"].tolist()) == ("precomputed", [1003.0])
        with pytest.raises(Overloaded, match="no precomputed answer may stand in"):
            on.plane.infer(on.ask("nobody", a=[3.0]).request)
    finally:
        done()


# -- what is asked


def columns(rows: int, *names: str) -> Columns:
    return Columns(names, rows, arrays=[np.zeros(rows) for _ in names])


def test_what_is_looked_up_for_a_request() -> None:
    def request(**more: Any) -> Request:
        return Request(model="m", inputs={}, request_id="r", **more)

    assert ask_of(request(), columns(1, "a"), overloaded=False) is None
    one = columns(1, "a")
    assert ask_of(request(key="x"), one, overloaded=True) == Ask([b"x"], one, True)
    assert ask_of(request(key="x"), columns(2, "a"), overloaded=False) is None
    assert ask_of(request(key="x", keys=[b"y"]), columns(1), overloaded=False) == Ask([b"y"], None, False)
    found = only_keys(request(keys=[b"x", b"y"]))
    assert found is not None
    assert (found.rows, found.names) == (2, ())
    assert only_keys(request()) is None
    assert only_keys(request(keys=[])) is None
    assert only_keys(Request(model="m", inputs={"a": [1]}, request_id="r", key="x")) is None


# -- a store that has to be waited for


class Slow:
    """Finds for everybody at once, when it is let; remembers how many were asked together."""

    model, where = "m", "slow"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[int] = []
        self.error: Exception | None = None

    def find_all(self, asked: Sequence[Ask], version: Any) -> Any:
        self.asked.append(len(asked))
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return Looked([Found(Source.live, Reason.missing) for _ in asked], [], {})


def test_what_comes_while_a_store_is_asked_is_asked_together() -> None:
    slow = Slow()
    look_ups = LookUps(slow, 8)  # type: ignore[arg-type]
    results: list[Any] = []
    over = threading.Semaphore(0)

    def done(result: Any) -> None:
        results.append(result)
        over.release()

    def question(*, cancelled: bool = False) -> Question:
        return Question(Ask([b"x"]), "v", done, lambda: cancelled)  # type: ignore[arg-type]

    look_ups.put(question())
    while not slow.asked:
        time.sleep(0.001)
    for n in range(8):
        look_ups.put(question(cancelled=n == 3))
    with pytest.raises(Overloaded, match="wait for the precomputed answers of m"):
        look_ups.put(question())
    slow.go.set()
    for _ in range(8):
        assert over.acquire(timeout=10)
    assert slow.asked == [1, 7]
    assert len(results) == 8
    slow.error = RuntimeError("a bug")
    look_ups.put(question())
    assert over.acquire(timeout=10)
    assert results[-1] is slow.error
    look_ups.close()
    with pytest.raises(Overloaded):
        look_ups.put(question())


class Away:
    where, may_block = "away", False

    def get_many(self, keys: Sequence[bytes]) -> Any:
        raise AnswersUnavailable("away")

    def close(self) -> None:
        return


def test_a_store_that_fails_is_told_to_everybody(serving: Serving) -> None:
    held = serving.plane._ahead.stored._held["m"]
    held._store = Away()  # type: ignore[assignment]
    works = [serving.ask("k1"), serving.ask("k2", a=[2.0]), serving.ask("k3")]
    outcomes = serving.plane.answer_together(works)
    errors = [outcome[1] for outcome in outcomes if isinstance(outcome, tuple)]
    assert [type(error) for error in errors] == [AnswersUnavailable] * 2
    assert sums(outcomes).popitem()[1] == [3.0]


# -- entries read together


def test_entries_read_together_are_those_read_alone() -> None:
    outputs = {
        "i": np.arange(5, dtype=np.int64),
        "flag": np.array([True, False, True, False, True]),
        "p": np.arange(10, dtype=np.float32).reshape(5, 2) / 3,
        "when": np.array(["2026-01-01", "NaT", "2026-01-03", "2026-01-04", "2026-01-05"], "datetime64[us]"),
    }
    layout = layout_of(outputs)
    entries = encode_rows(outputs, [b"f" * 16] * 5, 7.0, layout)
    found = decode_rows(entries, layout)
    assert found is not None
    assert list(found) == list(outputs)
    for name, values in outputs.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
        alone = np.concatenate([decode_entry(entry, layout).outputs[name] for entry in entries])
        np.testing.assert_array_equal(found[name], alone)


def test_what_cannot_be_read_together_is_left() -> None:
    text = {"t": np.array(["a", None], dtype=object)}
    layout = layout_of(text)
    assert decode_rows(encode_rows(text, [b"f" * 16] * 2, 7.0, layout), layout) is None
    numbers = {"n": np.arange(2.0)}
    layout = layout_of(numbers)
    entries = encode_rows(numbers, [b"f" * 16] * 2, 7.0, layout)
    assert decode_rows([entries[0], entries[1][:-1]], layout) is None
    own = encode_rows({"n": np.arange(2)}, [b"f" * 16] * 2, 7.0, layout)
    assert decode_rows([entries[0], own[0]], layout) is None
    assert decode_rows(entries, b"nothing of the kind") is None
