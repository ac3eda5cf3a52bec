"""Real connections to a stub: outcomes, closed connections, what is sent, stalls."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fairway.bench.alarm import clock
from fairway.bench.drive import drive
from fairway.bench.histogram import Histogram
from fairway.bench.http import messages
from fairway.bench.plan import Payload, Plan, Target
from fairway.bench.recording import OK, TIMEOUT, Tally
from tests.unit.bench.conftest import Stub


def plan_for(port: int, **changes: Any) -> Plan:
    target = Target(protocol="http", host="127.0.0.1", port=port, path="/v2/models/m/infer")
    payload = Payload(bodies=[b"one", b"two", b"three"], content_type="text/plain", rows=1, source="test")
    return Plan(
        **{"target": target, "payload": payload, "seconds": 0.5, "warmup": 0.0, "connections": 4, **changes}
    )


def measure(plan: Plan) -> Tally:
    return asyncio.run(drive(plan, 0, clock))


def test_a_message_is_head_and_body() -> None:
    plan = plan_for(80, headers=[("authorization", "Bearer k")])
    first, second, _ = messages(plan)
    assert first == (
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: text/plain\r\n"
        b"authorization: Bearer k\r\ncontent-length: 3\r\n\r\none"
    )
    assert second.endswith(b"content-length: 3\r\n\r\ntwo")
    six = Target(protocol="http", host="::1", port=8080, path="/")
    assert b"host: [::1]:8080\r\n" in messages(plan_for(80, target=six))[0]


def test_an_open_loop_sends_what_its_schedule_says(stub: Stub) -> None:
    tally = measure(plan_for(stub.port, rate=100.0))
    assert tally.outcomes == {OK: 50}
    assert Counter(body for *_, body in stub.posted) == {b"one": 17, b"two": 17, b"three": 16}
    assert Histogram.of(tally.lag).count + tally.waited == 50
    assert tally.measured_seconds >= 0.49


def test_a_closed_loop_sends_as_much_as_is_answered(stub: Stub) -> None:
    tally = measure(plan_for(stub.port))
    assert tally.outcomes == {OK: len(stub.posted)}
    assert Histogram.of(tally.latency).count == len(stub.posted) > 4


def test_outcomes_by_status(stub: Stub) -> None:
    stub.infer = lambda number: [(200, b"{}"), (503, b"busy"), (429, b""), (204, b"")][number % 4]
    tally = measure(plan_for(stub.port, rate=80.0))
    assert tally.outcomes == {OK: 20, "503": 10, "429": 10}


def test_a_server_that_closes_connections_is_connected_to_again(stub: Stub) -> None:
    stub.close_every = 5
    tally = measure(plan_for(stub.port, rate=100.0))
    assert tally.outcomes == {OK: 50}
    assert tally.reconnected == 10


def test_one_stall_of_a_real_server_is_in_the_latencies_of_all_who_came_meanwhile(stub: Stub) -> None:
    """The server answers nothing for half a second. At 100 requests a second some 50 are due meanwhile; who was due d
    before its end waits d at least, so at least 20 of them wait over 0.2 s, however few connections there are and
    however quick or slow this machine is."""
    gate = threading.Event()
    gate.set()
    stalled: list[float] = []

    def infer(number: int) -> tuple[int, bytes]:
        if number == 20 and not stalled:
            stalled.append(clock())
            gate.clear()
            time.sleep(0.5)
            stalled.append(clock())
            gate.set()
        gate.wait()
        return 200, b"{}"

    stub.infer = infer
    tally = measure(plan_for(stub.port, rate=100.0, seconds=2.0, connections=2))
    latency, service = Histogram.of(tally.latency), Histogram.of(tally.service)
    assert tally.outcomes == {OK: 200}
    assert latency.quantile(0.9) >= 0.2
    assert latency.quantile(0.99) >= 0.4
    assert latency.largest >= 0.49
    # what a tool that omits would have seen, had it not been a closed loop
    assert service.quantile(1 - 4 / 200) <= 0.4


Say = Callable[[asyncio.Transport, int], None]


async def _serving(say: Say, **changes: Any) -> Tally:
    """Measures a server that does what `say` says with each chunk, the how-manieth of its connection included."""
    connections: list[asyncio.Transport] = []

    class Odd(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.chunks = 0
            connections.append(transport)

        def data_received(self, data: bytes) -> None:
            self.chunks += 1
            say(self.transport, self.chunks)

    server = await asyncio.get_running_loop().create_server(Odd, "127.0.0.1", 0)
    changes.setdefault("rate", 20.0)
    try:
        return await drive(plan_for(server.sockets[0].getsockname()[1], **changes), 0, clock)
    finally:
        server.close()
        for connection in connections:
            connection.abort()
        await asyncio.sleep(0.01)


def test_who_does_not_answer_times_out() -> None:
    tally = asyncio.run(_serving(lambda transport, chunks: None, timeout=0.2))
    assert tally.outcomes == {TIMEOUT: 10}
    assert Histogram.of(tally.latency).smallest >= 0.2


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"SSH-2.0\r\n", "not HTTP"),
        (b"", "connection closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "connection closed"),
    ],
)
def test_who_answers_something_else(said: bytes, outcome: str) -> None:
    def say(transport: asyncio.Transport, chunks: int) -> None:
        transport.write(said)
        transport.close()

    tally = asyncio.run(_serving(say))
    assert tally.outcomes == {outcome: 10}
    assert tally.reconnected == 10


def test_early_hints_and_pieces_are_one_answer() -> None:
    def say(transport: asyncio.Transport, chunks: int) -> None:
        transport.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 O")
        loop = asyncio.get_running_loop()
        loop.call_soon(transport.write, b"K\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        loop.call_later(0.002, transport.write, b"\r\n")

    assert asyncio.run(_serving(say, rate=40.0)).outcomes == {OK: 20}


def test_an_answer_nobody_asked_for_is_not_counted() -> None:
    def say(transport: asyncio.Transport, chunks: int) -> None:
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" * 2)

    assert asyncio.run(_serving(say)).outcomes == {OK: 10}


def test_a_server_that_goes_away_meanwhile() -> None:
    """It closes its port and its connections after some answers: what is due then is refused, at once."""

    async def scene() -> Tally:
        answered = 0
        connections = []

        class Server(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                self.transport = transport
                connections.append(transport)

            def data_received(self, data: bytes) -> None:
                nonlocal answered
                answered += 1
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                if answered == 20:
                    server.close()
                    for connection in connections:
                        connection.close()

        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return await drive(plan_for(port, rate=100.0, connections=2, timeout=5.0), 0, clock)

    tally = asyncio.run(scene())
    assert sum(tally.outcomes.values()) == 50
    assert tally.outcomes[OK] == 20
    assert tally.outcomes["connection refused"] >= 20
    assert TIMEOUT not in tally.outcomes


def test_nobody_there_is_told_before_the_start() -> None:
    with pytest.raises(ConnectionRefusedError):
        measure(plan_for(1, rate=10.0))


def test_bodies_are_sent_whole(stub: Stub) -> None:
    large = json.dumps(list(range(200_000))).encode()
    payload = Payload(bodies=[large], content_type="application/json", rows=None, source="test")
    measure(plan_for(stub.port, payload=payload, rate=10.0))
    assert {body for *_, body in stub.posted} == {large}
