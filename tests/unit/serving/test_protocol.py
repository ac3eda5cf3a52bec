"""Two speeds, one behaviour: on the short way and the long one a request gets the same answer."""

import json
import re
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from fairway.core.route import everything_to
from fairway.core.settings import LimitSettings
from fairway.inference.live import LiveModel
from fairway.stores.counters import Counters
from tests.planes import Adding, Kept, live_version, plane
from tests.unit.serving.conftest import Serve, read_answers

ROWS = b'{"instances": [[1, 2]], "id": "e"}'


def post(body: bytes = ROWS, path: bytes = b"/v2/models/m/infer", *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


BODIES = [
    ROWS,
    b'{"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 99}]}',
    b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}], "outputs": [{"name": "both"}], "id": "i"}',
    b'{"instances": [["x", 2]]}',
    b"{",
    b"",
    b'{"outputs": [{"name": "z"}], "instances": [[1, 2]]}',
]


@pytest.mark.parametrize("body", BODIES)
def test_both_ways_answer_alike_and_count_alike(serve: Serve, body: bytes) -> None:
    answers, totals = [], []
    for inline_seconds in (10.0, -1.0):
        counters, kept = Counters(), Kept()
        live = LiveModel(everything_to("m", 1), {1: live_version(1, counters=counters)}, {})
        port = serve(plane(live, counters=counters, recorder=kept, inline_seconds=inline_seconds))
        status, headers, told = port.infer(body, x_request_id="same")
        told_headers = {name.lower(): value for name, value in headers.items() if name.lower() != "date"}
        answers.append((status, told_headers, told, [p.columns.rows for p in kept.predictions]))
        totals.append({key: v for key, v in counters.totals().items() if v and "seconds" not in key[0]})
    assert answers[0] == answers[1]
    assert totals[0] == totals[1]


def test_what_rules_count_is_counted_once_when_a_call_turns_out_slow(serve: Serve) -> None:
    """One row is quick, many are not: the request is validated on the short way and run on the long one."""
    counters = Counters()
    engine = Adding()
    version = live_version(1, engine, counters=counters)
    version.cost.learn(1, 0.0)
    version.cost.learn(8, 99.0)
    port = serve(
        plane(LiveModel(everything_to("m", 1), {1: version}, {}), counters=counters, inline_seconds=1.0)
    )
    status, headers, told = port.infer({"instances": [[1, 99]] * 8, "id": "e"}, x_request_id="mine")
    assert (status, headers["x-request-id"]) == (200, "mine")
    assert told["outputs"][0]["data"] == [100.0] * 8
    violations = {
        dict(labels)["field"]: v
        for (name, labels), v in counters.totals().items()
        if name == "fairway_field_violations_total"
    }
    assert violations == {"b": 8}
    assert engine.calls == 1


def test_many_requests_on_one_connection(serve: Serve) -> None:
    port = serve(plane())
    with port.raw() as connection:
        for i in range(50):
            connection.sendall(post(b'{"instances": [[%d, 2]]}' % i))
            [(status, _, body)] = read_answers(connection, 1)
            assert status == 200
            assert json.loads(body)["outputs"][0]["data"] == [i + 2.0]
    assert port.server.server_state.total_requests >= 50


def test_pipelined_requests_are_answered_in_order_at_both_speeds(serve: Serve) -> None:
    port = serve(plane())
    requests = [
        post(b'{"instances": [[1, 2]]}'),
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
        post(b'{"instances": [[3, 4]]}'),
        post(b'{"instances": [["x", 4]]}'),
        b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
        post(b'{"instances": [[5, 6]]}'),
    ]
    with port.raw() as connection:
        connection.sendall(b"".join(requests))
        answers = read_answers(connection, len(requests))
    assert [status for status, _, _ in answers] == [200, 200, 200, 400, 404, 200]
    assert [
        json.loads(body)["outputs"][0]["data"] for _, _, body in (answers[0], answers[2], answers[5])
    ] == [[3.0], [7.0], [11.0]]
    assert json.loads(answers[1][2]) == {"live": True}


def test_a_slow_request_holds_back_those_behind_it_on_its_connection_only(serve: Serve) -> None:
    gate, entered = threading.Event(), threading.Event()

    def wait(columns: Any) -> None:
        if columns["a"][0] == 99:
            entered.set()
            assert gate.wait(20)

    version = live_version(1, Adding(before=wait))
    port = serve(plane(LiveModel(everything_to("m", 1), {1: version}, {}), inline_seconds=-1.0))
    with port.raw() as connection:
        connection.sendall(post(b'{"instances": [[99, 1]]}') + post(b'{"instances": [[1, 1]]}'))
        assert entered.wait(20)
        assert port.infer({"instances": [[2, 2]]})[0] == 200
        gate.set()
        answers = read_answers(connection, 2)
    assert [json.loads(body)["outputs"][0]["data"] for _, _, body in answers] == [[100.0], [2.0]]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_request_may_come_in_pieces(serve: Serve, chunk: int) -> None:
    port = serve(plane())
    request = post()
    with port.raw() as connection:
        for start in range(0, len(request), chunk):
            connection.sendall(request[start : start + chunk])
        [(status, _, body)] = read_answers(connection, 1)
    assert (status, json.loads(body)["id"]) == (200, "e")


def test_chunked_bodies_and_their_limit(serve: Serve) -> None:
    port = serve(plane(), limits=LimitSettings(body_bytes=1000))
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with port.raw() as connection:
        connection.sendall(
            head + b"5\r\n" + ROWS[:5] + b"\r\n" + b"%x\r\n" % len(ROWS[5:]) + ROWS[5:] + b"\r\n0\r\n\r\n"
        )
        [(status, _, _)] = read_answers(connection, 1)
        assert status == 200
        connection.sendall(head + b"258\r\n" + b" " * 600 + b"\r\n258\r\n" + b" " * 600 + b"\r\n0\r\n\r\n")
        [(status, _, body)] = read_answers(connection, 1)
    assert status == 413
    assert "the limit is 1000" in json.loads(body)["error"]


def test_what_expects_100_continue_gets_it(serve: Serve) -> None:
    port = serve(plane())
    with port.raw() as connection:
        connection.sendall(post(ROWS, b"/v2/models/m/infer", b"expect: 100-continue")[: -len(ROWS)])
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(ROWS)
        assert read_answers(connection, 1)[0][0] == 200


@pytest.mark.parametrize(
    ("version", "header"),
    [(b"1.0", b"x: y"), (b"1.1", b"connection: close"), (b"1.0", b"connection: keep-alive")],
)
def test_connections_that_end_or_are_old(serve: Serve, version: bytes, header: bytes) -> None:
    port = serve(plane())
    with port.raw() as connection:
        connection.sendall(post(ROWS, b"/v2/models/m/infer", header).replace(b"HTTP/1.1", b"HTTP/" + version))
        assert read_answers(connection, 1)[0][0] == 200
        if header != b"connection: keep-alive":
            assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /v2/models/m/infer HTTP/1.1\r\ncontent-length: abc\r\n\r\n",
        b"POST /v2/models/m/infer HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /v2/models/m/infer HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_what_is_not_http_is_a_400_and_the_end(serve: Serve, sent: bytes) -> None:
    port = serve(plane())
    with port.raw() as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert port.infer(ROWS)[0] == 200


@pytest.mark.parametrize("head", [b"x: " + b"y" * 3000, b"\r\n".join(b"x%d: y" % i for i in range(700))])
def test_a_head_over_the_limit_is_a_431_and_the_end(serve: Serve, head: bytes) -> None:
    port = serve(plane(), limits=LimitSettings(header_bytes=2048))
    with port.raw() as connection:
        connection.sendall(post(ROWS, b"/v2/models/m/infer", head))
        answer = b""
        while part := connection.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 431")
    assert answer.count(b"HTTP/1.1") == 1
    assert port.infer(ROWS)[0] == 200


def test_a_caller_who_leaves_in_the_middle_harms_nobody(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    port = serve(plane(inline_seconds=-1.0))
    for cut in (60, len(post()) - 5, len(post())):
        with port.raw() as connection:
            connection.sendall(post()[:cut])
    with port.raw() as connection:
        connection.sendall(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n" + b" " * 300_000
        )
    assert port.infer(ROWS)[0] == 200
    assert "Traceback" not in caplog.text


def test_an_idle_connection_is_closed_in_time_and_a_busy_one_is_not(serve: Serve) -> None:
    gate = threading.Event()
    version = live_version(1, Adding(before=lambda columns: gate.wait(20) and None))
    port = serve(plane(LiveModel(everything_to("m", 1), {1: version}, {}), inline_seconds=-1.0))
    port.server.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    with port.raw() as idle, port.raw() as busy:
        busy.sendall(post())
        assert idle.recv(1) == b""
        time.sleep(0.3)  # longer than an idle connection lives
        gate.set()
        assert read_answers(busy, 1)[0][0] == 200


def test_a_connection_too_many_is_closed_and_the_others_are_not(serve: Serve) -> None:
    port = serve(plane(), limits=LimitSettings(connections=2))
    with port.raw() as first, port.raw() as second:
        first.sendall(post())
        second.sendall(post())
        assert [read_answers(each, 1)[0][0] for each in (first, second)] == [200, 200]
        with port.raw() as third, third.makefile("rb") as told:
            assert told.read().startswith(b"HTTP/1.1 503 ")
        first.sendall(post())
        assert read_answers(first, 1)[0][0] == 200
    deadline = time.monotonic() + 10
    while port.infer(ROWS)[0] != 200:  # until the server has seen that they are closed
        assert time.monotonic() < deadline


@pytest.mark.parametrize("size", [200, 900_000], ids=["short way", "long way"])
def test_a_request_whose_rest_does_not_come_is_given_up(serve: Serve, size: int) -> None:
    port = serve(plane())
    port.server.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
    with port.raw() as stalled:
        stalled.sendall(head + b" " * min(size - 1, 300_000))
        with stalled.makefile("rb") as told:
            assert told.read() == b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n"
    assert port.infer(ROWS)[0] == 200


@pytest.mark.parametrize(
    ("begun", "told"),
    [
        (b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nx-slow: ", b"HTTP/1.1 408 "),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n", b"HTTP/1.1 408 "),
        (
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n" + b" " * 300_000,
            b"HTTP/1.1 408 ",
        ),
        (b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n", b"HTTP/1.1 404 "),
    ],
    ids=["head", "short way", "long way", "answered before its body"],
)
def test_a_trickle_keeps_no_request_alive(serve: Serve, begun: bytes, told: bytes) -> None:
    port = serve(plane(), limits=LimitSettings(receive_seconds=0.3, receive_rate=10**9))
    port.server.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    answer = b""
    with port.raw() as slow:
        slow.sendall(begun)
        slow.settimeout(0.02)
        try:
            for _ in range(1000):
                slow.sendall(b" ")
                try:
                    part = slow.recv(1000)
                except TimeoutError:
                    continue
                answer += part
                if not part:
                    break
        except OSError:
            pass
    assert answer.startswith(told)
    assert port.infer(ROWS)[0] == 200


def test_a_client_that_never_reads_its_answer_is_let_go(serve: Serve) -> None:
    port = serve(plane(), limits=LimitSettings(receive_seconds=0.5, receive_rate=10**9))
    port.server.config.timeout_keep_alive = 0.5  # type: ignore[assignment]
    rows = json.dumps({"instances": [[0.1234567890123, 0.1234567890123]] * 10_000}).encode()
    with port.raw() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(post())
        read_answers(deaf, 1)
        (connection,) = port.server.server_state.connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        deaf.sendall(post(rows))
        deadline = time.monotonic() + 60
        while port.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def exchange(port: Any, *parts: bytes) -> list[int]:
    """The statuses of all answers until the server ends the connection, which a last request asks it to."""
    with port.raw() as connection:
        try:
            connection.sendall(b"".join(parts) + b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            told = b""
            while part := connection.recv(65536):
                told += part
        except ConnectionResetError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", told)]


CHUNKED = b"transfer-encoding: chunked"


def chunked(*headers: bytes, trailers: bytes = b"") -> bytes:
    lines = (b"POST /v2/models/m/infer HTTP/1.1", b"host: x", *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n%x;e=1\r\n%b\r\n0\r\n%b\r\n" % (len(ROWS), ROWS, trailers)


def told_length(length: bytes) -> bytes:
    return post().replace(b"content-length: %d" % len(ROWS), b"content-length: " + length)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        # RFC 9112: who is meant (3.2), and in which version (2.3)
        (post().replace(b"host: x\r\n", b""), [400]),
        (post(ROWS, b"/v2/models/m/infer", b"host: y"), [400]),
        (post(path=b"http://elsewhere/v2/models/m/infer"), [200, 200]),
        (post(path=b"/v2/models/%6D/infer"), [200, 200]),
        (post(path=b"/v2/models/%ff%00/infer"), [404, 200]),
        (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", [404, 200]),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n", [400]),
        (post().replace(b"HTTP/1.1", b"HTTP/1.0"), [200]),
        (post().replace(b"HTTP/1.1\r\nhost: x", b"HTTP/1.0"), [200]),
        (post().replace(b"HTTP/1.1", b"HTTP/2.0"), [505]),
        (b"GET /v2\r\n\r\n", [505]),
        # where a message ends (6): anything that two readers may understand differently
        (chunked(CHUNKED), [200, 200]),
        (chunked(CHUNKED, b"content-length: 5"), [400]),
        (chunked(b"content-length: 5", CHUNKED), [400]),
        (chunked(CHUNKED, CHUNKED), [400]),
        (chunked(b"transfer-encoding: gzip, chunked"), [501]),
        (chunked(b"transfer-encoding: xchunked"), [501]),
        (chunked(b"transfer-encoding: chunked, identity"), [400]),
        (chunked(b"transfer-encoding : chunked"), [400]),
        (chunked(b"transfer-encoding: \x0bchunked"), [400]),
        (chunked(CHUNKED).replace(b";e=1\r\n", b"\n"), [400]),
        (chunked(CHUNKED).replace(b";e=1", b"ffffffffffffffff"), [400]),
        (chunked(CHUNKED, trailers=b"content-length: 5\r\n"), [400]),
        (post(ROWS, b"/v2/models/m/infer", b"content-length: %d" % len(ROWS)), [400]),
        *((told_length(length), [400]) for length in (b"5, 5", b"+5", b"-1", b"0x5", b"", b"9" * 23)),
        (told_length(b"9223372036854775807"), [413]),
        # how a head is written (5)
        (post(ROWS, b"/v2/models/m/infer", b"x: a\r\n b"), [400]),
        (post(ROWS, b"/v2/models/m/infer", b"x: a\nb: c"), [400]),
        (post(ROWS, b"/v2/models/m/infer", b"x: a\0"), [400]),
        (post().replace(b"\r\n", b"\n"), [400]),
        # what a client may ask for, and gets or does not
        (post(ROWS, b"/v2/models/m/infer", b"expect: 100-continue"), [100, 200, 200]),
        (post() * 3, [200, 200, 200, 200]),
    ],
)
def test_each_message_is_read_in_the_one_way_there_is(serve: Serve, sent: bytes, statuses: list[int]) -> None:
    port = serve(plane())
    if statuses == [413]:
        with port.raw() as connection:
            connection.sendall(sent)
            assert read_answers(connection, 1)[0][0] == 413, "without waiting for what is too much"
    else:
        assert exchange(port, sent) == statuses
    assert port.infer(ROWS)[0] == 200


@pytest.mark.parametrize("expect", [(), (b"expect: 100-continue",)], ids=["short way", "long way"])
def test_a_trailer_does_not_pass_for_a_header(serve: Serve, expect: tuple[bytes, ...]) -> None:
    port = serve(plane())
    with port.raw() as connection:
        connection.sendall(chunked(CHUNKED, *expect, trailers=b"x-request-id: forged\r\n"))
        answers = read_answers(connection, 1 + len(expect))
    assert answers[-1][0] == 200
    assert answers[-1][1]["x-request-id"] != "forged"
    assert exchange(port, chunked(CHUNKED, trailers=b"x: %b\r\n" % (b"y" * 100) * 1000)) == [431]


def test_who_asks_for_another_protocol_is_answered_in_this_one(serve: Serve) -> None:
    """As Java's own client does, which asks for HTTP/2 with its first request."""
    port = serve(plane())
    ask = (
        b"connection: Upgrade, HTTP2-Settings",
        b"upgrade: h2c",
        b"http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
    )
    upgrading = post(ROWS, b"/v2/models/m/infer", *ask)
    assert exchange(port, upgrading, upgrading, post(), chunked(CHUNKED, *ask)) == [200, 200, 200, 200, 200]
    assert exchange(port, b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + b"\r\n".join(ask) + b"\r\n\r\n") == [200, 200]
    assert set(exchange(port, upgrading * 2000)) == {200}
    with port.raw() as connection:
        for begin in range(0, len(upgrading), 7):
            connection.sendall(upgrading[begin : begin + 7])
        assert json.loads(read_answers(connection, 1)[0][2])["outputs"][0]["data"] == [3.0]
    closing = post(ROWS, b"/v2/models/m/infer", b"connection: upgrade, close", b"upgrade: websocket")
    assert exchange(port, closing) == [200]


@pytest.mark.parametrize(
    ("behind", "status"),
    [(b"garbage\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431)],
    ids=["not http", "head too large"],
)
def test_an_answer_due_comes_before_the_refusal_of_what_follows(
    serve: Serve, behind: bytes, status: int
) -> None:
    """Answers are written at the end of the loop's turn; a refusal is written at once, and closes."""
    port = serve(plane())
    with port.raw() as connection:
        connection.sendall(post() + behind)
        answers = read_answers(connection, 2)
    assert [answer[0] for answer in answers] == [200, status]
    assert json.loads(answers[0][2])["outputs"][0]["data"] == [3.0]


def test_many_connections_get_their_own_answers(serve: Serve) -> None:
    port = serve(plane())
    with ExitStack() as stack:
        connections = [stack.enter_context(port.raw()) for _ in range(20)]
        for turn in range(5):
            for i, connection in enumerate(connections):
                connection.sendall(post(b'{"instances": [[%d, %d]]}' % (i, turn)))
            for i, connection in enumerate(connections):
                [(status, _, body)] = read_answers(connection, 1)
                assert status == 200
                assert json.loads(body)["outputs"][0]["data"] == [float(i + turn)]
