"""What one turn of the loop brings is answered together, and nobody can tell."""

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns, Outputs
from fairway.core.errors import ModelFailed
from fairway.core.request import Request
from fairway.core.route import everything_to
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.live import LiveModel
from fairway.inference.microbatch import Waiting
from fairway.inference.plane import Plane
from fairway.inference.work import Work
from fairway.serving.turn import Turn
from fairway.stores.counters import Counters
from tests.planes import Adding, Kept, live_version, plane, split
from tests.unit.serving.conftest import Port, Serve, read_answers


class Gate:
    """Holds the engine's next call once it is armed, and with it the event loop, until it is opened."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.armed = False

    def __call__(self, columns: Columns) -> None:
        if self.armed:
            self.armed = False
            self.entered.set()
            assert self.open.wait(20)


def gated(**options: Any) -> tuple[Plane, Gate, Adding]:
    gate = Gate()
    engine = Adding(before=gate)
    counters = Counters()
    version = live_version(1, engine, counters=counters, floor=1)
    return (
        plane(LiveModel(everything_to("m", 1), {1: version}, {}), counters=counters, **options),
        gate,
        engine,
    )


def post(body: bytes, *, path: bytes = b"/v2/models/m/infer", headers: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (
            path,
            headers,
            len(body),
            body,
        )
    )


def v2(a: float, b: float) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [a, b]}
    return json.dumps({"inputs": [tensor]}).encode()


def all_at_once(port: Port, gate: Gate, requests: list[bytes]) -> list[tuple[int, dict[str, str], Any]]:
    """Sends the requests on connections of their own while the loop is held by another, so that it reads them in one
    turn; returns their answers."""
    with ExitStack() as stack:
        held = stack.enter_context(port.raw())
        connections = [stack.enter_context(port.raw()) for _ in requests]
        for connection in connections:  # accepted, and known to the loop
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            read_answers(connection, 1)
        gate.armed = True
        held.sendall(post(v2(0, 0)))
        assert gate.entered.wait(20)
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request)
        time.sleep(0.1)  # for the kernel to have them all; the law does not depend on it
        gate.open.set()
        read_answers(held, 1)
        return [
            (status, headers, json.loads(body))
            for connection in connections
            for status, headers, body in read_answers(connection, 1)
        ]


def test_requests_of_one_turn_are_one_call_and_each_gets_its_own(serve: Serve) -> None:
    kept = Kept()
    served, gate, engine = gated(recorder=kept)
    answers = all_at_once(
        serve(served), gate, [post(v2(i, 1), headers=b"x-request-id: r%d\r\n" % i) for i in range(20)]
    )
    assert [status for status, _, _ in answers] == [200] * 20
    assert [told["outputs"][0]["data"] for _, _, told in answers] == [[i + 1.0] for i in range(20)]
    assert [headers["x-request-id"] for _, headers, _ in answers] == [f"r{i}" for i in range(20)]
    assert engine.calls < 10
    assert max(len(recorded.counts) for recorded in kept.predictions) > 2


def test_bad_ones_among_them_are_told_so_and_the_others_answered(serve: Serve) -> None:
    served, gate, _ = gated()
    requests = [
        post(v2(1, 1)),
        post(b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}'),
        post(b"{"),
        post(v2(2, 2)),
        post(b'{"instances": [["x", 2]]}'),
        post(b'{"instances": [[3, 3], [4, 4]]}'),
        post(v2(5, 5), path=b"/v2/models/nobody/infer"),
        post(v2(6, 6), headers=b"x-request-timeout-ms: 0.001\r\n"),
        post(v2(7, 7), headers=b"x-request-timeout-ms: soon\r\n"),
    ]
    answers = all_at_once(serve(served), gate, requests)
    assert [status for status, _, _ in answers] == [200, 400, 400, 200, 400, 200, 404, 504, 400]
    assert answers[3][2]["outputs"][0]["data"] == [4.0]
    assert answers[5][2]["outputs"][0]["data"] == [6.0, 8.0]
    codes = [told.get("code") for _, _, told in answers]
    assert codes[1] == "contract_violation"
    assert codes[7] == "deadline_exceeded"


def test_versions_and_wanted_outputs_are_not_mixed(serve: Serve) -> None:
    gate = Gate()
    model = split("m", 0.5, 0.5)
    for version in model.versions.values():
        version.engine.before = gate  # type: ignore[attr-defined]
    port = serve(plane(model))
    wanted = b'{"outputs": [{"name": "both"}], "instances": [[1, 2]]}'
    answers = all_at_once(
        port,
        gate,
        [
            post(wanted, path=b"/v2/models/m/versions/%d/infer" % (1 + i % 2))
            if i % 3
            else post(v2(i, 0), path=b"/v2/models/m/versions/%d/infer" % (1 + i % 2))
            for i in range(12)
        ],
    )
    for i, (status, headers, told) in enumerate(answers):
        assert (status, headers["fairway-version"]) == (200, f"m:{1 + i % 2}")
        assert [output["name"] for output in told["outputs"]] == (["both"] if i % 3 else ["sum", "both"])
        if i % 3 == 0:
            assert told["outputs"][0]["data"] == [i + 100.0 * (i % 2)]


def slow(gate: threading.Event, entered: threading.Semaphore, **settings: Any) -> Plane:
    """A model that runs in threads, one call at a time, and answers while the gate is open."""

    def wait(columns: Columns) -> None:
        entered.release()
        assert gate.wait(20)

    counters = Counters()
    version = live_version(1, Adding(before=wait), counters=counters, floor=1)
    own = ModelSettings(threads=1, **settings)
    return plane(
        LiveModel(everything_to("m", 1), {1: version}, {}),
        counters=counters,
        settings=Settings(models={"m": own}),
        inline_seconds=-1.0,
    )


def test_what_waits_for_a_slow_model_is_merged(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    served = slow(gate, entered)
    port = serve(served)
    with ExitStack() as stack:
        connections = [stack.enter_context(port.raw()) for _ in range(9)]
        connections[0].sendall(post(v2(0, 1)))
        assert entered.acquire(timeout=20)
        for i, connection in enumerate(connections[1:], 1):
            connection.sendall(post(v2(i, 1)))
        wait_for_queue(port, 8)
        gate.set()
        answers = [read_answers(connection, 1)[0] for connection in connections]
    assert [json.loads(body)["outputs"][0]["data"] for _, _, body in answers] == [[i + 1.0] for i in range(9)]
    assert served.table["m"].primary.engine.calls == 2  # type: ignore[attr-defined]


def wait_for_queue(port: Port, depth: int) -> None:
    for _ in range(1000):
        if b'fairway_queue_requests{model="m",version="1"} %d.0' % depth in port.ask("GET", "/metrics")[2]:
            return
        time.sleep(0.01)
    raise AssertionError(f"the queue never held {depth}")


def test_a_deadline_ends_the_waiting_not_the_model(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    served = slow(gate, entered)
    port = serve(served)
    with port.raw() as first, port.raw() as second:
        first.sendall(post(v2(1, 1)))
        assert entered.acquire(timeout=20)
        second.sendall(post(v2(2, 1), headers=b"x-request-timeout-ms: 20\r\n"))
        [(status, _, body)] = read_answers(second, 1)  # while the first still runs
        assert (status, json.loads(body)["code"]) == (504, "deadline_exceeded")
        gate.set()
        assert read_answers(first, 1)[0][0] == 200
        second.sendall(post(v2(3, 1)))
        assert read_answers(second, 1)[0][0] == 200
    assert served.table["m"].primary.engine.calls == 2  # type: ignore[attr-defined]


def test_who_leaves_is_not_run_for(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    served = slow(gate, entered)
    port = serve(served)
    with port.raw() as first:
        first.sendall(post(v2(1, 1)))
        assert entered.acquire(timeout=20)
        with port.raw() as leaving:
            leaving.sendall(post(v2(2, 1)))
            wait_for_queue(port, 1)
            leaving.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)  # for the server to notice
        gate.set()
        assert read_answers(first, 1)[0][0] == 200
    wait_for_queue(port, 0)
    assert served.table["m"].primary.engine.calls == 1  # type: ignore[attr-defined]


def test_a_full_queue_says_when_to_come_back(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    port = serve(slow(gate, entered, queue=2))
    with ExitStack() as stack:
        connections = [stack.enter_context(port.raw()) for _ in range(4)]
        connections[0].sendall(post(v2(1, 1)))
        assert entered.acquire(timeout=20)
        for i, connection in enumerate(connections[1:3]):
            connection.sendall(post(v2(2, 1)))
            wait_for_queue(port, i + 1)
        connections[3].sendall(post(v2(3, 1)))
        [(status, headers, body)] = read_answers(connections[3], 1)
        assert (status, json.loads(body)["code"], headers["retry-after"]) == (503, "overloaded", "1")
        gate.set()
        assert [read_answers(connection, 1)[0][0] for connection in connections[:3]] == [200] * 3


def test_stopping_answers_what_waits_and_closes(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)
    port = serve(slow(gate, entered))
    with port.raw() as first:
        first.sendall(post(v2(1, 1)))
        assert entered.acquire(timeout=20)
        port.server.should_exit = True
        time.sleep(0.2)
        gate.set()
        assert read_answers(first, 1)[0][0] == 200
        assert first.recv(1) == b""


@pytest.mark.parametrize("quick", [True, False])
def test_timing_on_request(serve: Serve, quick: bool) -> None:
    port = serve(plane(inline_seconds=10.0 if quick else -1.0))
    _, headers, _ = port.infer(json.loads(v2(1, 2)), x_fairway_timing="1")
    stages = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
    assert list(stages) == ["parse", "validate", "queue", "run", "encode"]
    assert all(float(value) >= 0 for value in stages.values())
    assert "server-timing" not in port.infer(json.loads(v2(1, 2)))[1]


BAD = -777.0
ASKED = st.tuples(
    st.integers(1, 3),  # rows
    st.sampled_from(["plain", "plain", "plain", "bad", "wrong", "hurried", "late", "leaves"]),
)


class Waiter:
    """A ticket that keeps what it is told."""

    traced = False

    def __init__(self, work: Work) -> None:
        self.work = work
        self.waiting: Waiting | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.gone = False
        self.told: list[Any] = []

    def leave(self) -> None:
        self.gone = True
        if self.waiting is not None:
            self.waiting.cancel()
        if self.expiry is not None:
            self.expiry.cancel()

    def answer(self, outputs: Outputs, validated: float, began: float, ended: float) -> bool:
        assert self.work.received <= validated <= began <= ended
        self.leave()
        self.told.append(outputs["sum"].tolist())
        return True

    def failed(self, error: Exception) -> None:
        self.leave()
        self.told.append(type(error).__name__)

    def trace(self, stages: Any) -> None:
        raise AssertionError("not traced")


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(ASKED, max_size=6), max_size=6), st.integers(1, 9), st.sampled_from([0, 2, 5]))
def test_law_any_mix_over_any_turns_of_a_slow_model_gets_its_unbatched_answers(
    turns: list[list[tuple[int, str]]], pays: int, inline: int
) -> None:
    """Sizes, failures, deadlines and who leaves in any mix, on a real loop and real threads."""

    def before(columns: Columns) -> None:
        time.sleep(0.0005)
        if (columns["a"] == BAD).any():
            raise ModelFailed("bad")

    kept, counters = Kept(), Counters()
    version = live_version(1, Adding(before=before), counters=counters, floor=1)
    on = plane(
        LiveModel(everything_to("m", 1), {1: version}, {}),
        counters=counters,
        recorder=kept,
        inline_seconds=0.0,
    )
    version.cost.inline_rows, version.cost.pays_rows = inline, pays
    version.cost.learn = lambda rows, seconds: None  # type: ignore[method-assign]

    async def drive() -> list[tuple[int, int, str, Waiter]]:
        turn = Turn(on, lambda: None)
        waiters = []
        for place, asked in enumerate(turns):
            for number, (rows, kind) in enumerate(asked):
                first = 100.0 * place + 10 * number
                a = np.full(rows, BAD) if kind == "bad" else first + np.arange(rows)
                matrix = np.stack([a, np.ones(rows)], axis=1) if kind != "wrong" else np.ones((rows, 3))
                deadline = {"hurried": 60.0, "late": -1.0}.get(kind)
                request = Request(
                    model="m",
                    inputs={"x": matrix},
                    request_id=f"{place}.{number}",
                    deadline=None if deadline is None else time.perf_counter() + deadline,
                )
                waiter = Waiter(on.arrive(request, time.perf_counter()))
                waiters.append((place, number, kind, waiter))
                turn.add(waiter)
            await asyncio.sleep(0)
            for _, _, kind, waiter in waiters:
                if kind == "leaves" and not waiter.gone:
                    waiter.leave()
        for _ in range(2000):
            if all(waiter.gone for *_, waiter in waiters):
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        assert not turn._held
        return waiters

    waiters = asyncio.run(drive())
    on.close()
    sizes = {
        (place, number): rows for place, asked in enumerate(turns) for number, (rows, _) in enumerate(asked)
    }
    for place, number, kind, waiter in waiters:
        rows = [100.0 * place + 10 * number + row + 1 for row in range(sizes[place, number])]
        expected: Any = [rows]
        if kind == "leaves":
            assert waiter.told in ([], [rows])
            continue
        if kind not in {"plain", "hurried"}:
            expected = [
                {"bad": "ModelFailed", "wrong": "ContractViolation", "late": "DeadlineExceeded"}[kind]
            ]
        assert waiter.told == expected
    answered = [w.work.request.request_id for *_, w in waiters if w.told and isinstance(w.told[0], list)]
    recorded = [name for prediction in kept.predictions for name in prediction.request_ids]
    assert sorted(recorded) == sorted(answered)
    totals = counters.totals()
    assert sum(v for (name, _), v in totals.items() if name == "fairway_queue_depth") == 0


def test_requests_held_for_a_busy_model_count_against_its_queue() -> None:
    entered, opened = threading.Event(), threading.Event()

    def before(columns: Columns) -> None:
        entered.set()
        assert opened.wait(20)

    version = live_version(1, Adding(before=before), floor=1)
    on = plane(
        LiveModel(everything_to("m", 1), {1: version}, {}),
        inline_seconds=0.0,
        settings=Settings(models={"m": ModelSettings(queue=3)}),
    )
    version.cost.inline_rows, version.cost.pays_rows = 0, 100

    async def drive() -> list[Waiter]:
        turn = Turn(on, lambda: None)
        waiters = []
        for number in range(6):
            request = Request(model="m", inputs={"x": np.full((1, 2), 1.0 + number)}, request_id=str(number))
            waiters.append(Waiter(on.arrive(request, time.perf_counter())))
            turn.add(waiters[-1])
            await asyncio.sleep(0.001)
            if number == 0:
                await asyncio.to_thread(entered.wait, 20)
        opened.set()
        while not all(waiter.gone for waiter in waiters):
            await asyncio.sleep(0.001)
        return waiters

    waiters = asyncio.run(drive())
    on.close()
    assert [waiter.told for waiter in waiters] == [
        [[2.0]],
        [[4.0]],
        [[6.0]],
        [[8.0]],
        ["Overloaded"],
        ["Overloaded"],
    ]
