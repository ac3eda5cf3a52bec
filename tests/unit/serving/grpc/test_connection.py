"""HTTP/2 as a peer sees it that keeps to the rules (h2) or does not (frames by hand)."""

import socket
import struct
import zlib
from typing import Any

import hpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.settings import LimitSettings, Settings
from fairway.serving.grpc import frames
from fairway.serving.grpc.answering import Bounds
from fairway.serving.grpc.connection import Connection
from fairway.serving.grpc.frames import Reason, Setting
from fairway.serving.grpc.messages import message
from fairway.serving.grpc.sending import Outbox, Waiting
from tests.unit.serving.grpc.conftest import Port, Serve, asking, raw
from tests.unit.serving.grpc.peers import HEADERS, Peer, Raw, framed


@pytest.fixture
def still(port: Port) -> Port:
    """A port that still answers when the test is over."""
    yield port
    assert raw(port.infer(asking())).tolist() == [4.0, 6.0]


BODY = framed(asking().SerializeToString())
Answer = message("inference.ModelInferResponse")


def test_a_peer_that_keeps_to_the_rules_is_answered(port: Port) -> None:
    peer = Peer(port)
    numbers = [peer.ask(BODY) for _ in range(20)]
    peer.wait(*numbers)
    for number in numbers:
        told = peer.headers[number]
        assert (told[":status"], told["content-type"], told["grpc-status"]) == (
            "200",
            "application/grpc",
            "0",
        )
        assert (told["fairway-version"], told["fairway-digest"]) == ("m:1", "sha256:1")
        assert raw(Answer.FromString(peer.bodies[number][5:])).tolist() == [4.0, 6.0]


@pytest.mark.parametrize("parts", [1, 3, 7, 1000])
def test_bytes_may_come_in_any_pieces(port: Port, parts: int) -> None:
    peer = Raw(port)
    whole = peer.headers(1) + frames.frame(frames.DATA, frames.END_STREAM, 1, BODY)
    size = max(1, len(whole) // parts)
    peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for begin in range(0, len(whole), size):
        peer.send(whole[begin : begin + size])
    kinds = []
    while not kinds or kinds[-1][1:] != (5, 1):
        kind, flags, number, _ = peer.next()
        kinds.append((kind, flags, number))
    assert [kind for kind, _, number in kinds if number == 1] == [frames.HEADERS, frames.DATA, frames.HEADERS]


def test_a_message_may_come_in_many_frames_with_padding_and_an_empty_last_one(port: Port) -> None:
    peer = Peer(port)
    number = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(number, HEADERS)
    for byte in BODY:
        peer.h2.send_data(number, bytes([byte]), pad_length=3)
    peer.h2.end_stream(number)
    peer.flush()
    peer.wait(number)
    assert peer.status(number) == 0


def test_headers_may_be_continued_padded_and_prioritised(port: Port) -> None:
    peer = Raw(port)
    block = peer.encoder.encode(HEADERS)
    first = b"\x02" + struct.pack(">IB", 0, 16) + block[:10] + b"\0\0"
    flags = frames.PADDED | frames.PRIORITISED
    peer.send(
        frames.frame(frames.HEADERS, flags, 1, first),
        frames.frame(frames.CONTINUATION, 0, 1, block[10:20]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:]),
        frames.frame(frames.DATA, frames.END_STREAM, 1, BODY),
    )
    while (found := peer.next())[0] != frames.DATA:
        pass
    assert found[3][0] == 0


def test_large_answers_wait_for_the_windows_of_the_peer(port: Port) -> None:
    rows = 20_000
    request = message("inference.ModelInferRequest")(model_name="m")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP64", shape=[rows])
        request.raw_input_contents.append(struct.pack(f"<{rows}d", *([2.0] * rows)))
    peer = Peer(port, initial_window_size=1000)
    peer.grants = False
    body = framed(request.SerializeToString())
    one, two = peer.ask(body), peer.ask(body)
    small = peer.ask(BODY)
    peer.wait(small)
    assert peer.status(small) == 0, "small answers do not wait behind large ones"
    assert len(peer.bodies.get(one, b"")) <= 1000
    peer.h2.update_settings({Setting.initial_window_size: 10**6})
    peer.h2.increment_flow_control_window(10**6)
    peer.flush()
    peer.wait(one, two)
    for number in (one, two):
        answer = Answer.FromString(peer.bodies[number][5:])
        assert raw(answer).tolist() == [4.0] * rows


def test_a_cancelled_call_frees_what_it_held(still: Port) -> None:
    peer = Peer(still)
    for _ in range(50):
        number = peer.ask(BODY[:40], end=False)
        peer.h2.reset_stream(number)
    number = peer.ask(BODY)
    peer.wait(number)
    assert peer.status(number) == 0
    (connection,) = [c for c in still.server._connections if c._last_stream == number]
    assert still.call(lambda: (connection.streams, connection.unfinished, connection.unread)) == ({}, 0, 0)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 13, "needs a message"),
        (BODY[:3], 13, "cut short"),
        (BODY[:-1], 13, "cut short"),
        (BODY + BODY, 12, "takes one message"),
        (b"\x07" + BODY[1:], 13, "neither 0 nor 1"),
        (b"\x01" + BODY[1:], 3, "grpc-encoding says that it is not"),
        (b"\0\xff\xff\xff\xff", 8, "the limit is 67108864 (limits.body_bytes)"),
        (framed(b"\xff" * 50), 3, "not a inference.ModelInferRequest"),
        (framed(b""), 5, "no model ''"),
    ],
)
def test_bodies_that_are_no_message_are_told_why(still: Port, body: bytes, status: int, says: str) -> None:
    peer = Peer(still)
    number = peer.ask(body)
    peer.wait(number)
    assert peer.status(number) == status
    assert says in peer.headers[number]["grpc-message"]


def test_a_message_over_the_limit_is_refused_before_it_has_come(serve: Serve) -> None:
    port = serve(settings=Settings(limits=LimitSettings(body_bytes=1000)))
    peer = Peer(port)
    number = peer.ask(framed(b"x" * 1001)[:200], end=False)
    peer.wait(number)
    assert peer.status(number) == 8
    assert "1001 bytes; the limit is 1000" in peer.headers[number]["grpc-message"]
    number = peer.ask(BODY)
    peer.wait(number)
    assert peer.status(number) == 0


def test_compressed_messages_are_unpacked_up_to_the_limit(serve: Serve) -> None:
    port = serve(settings=Settings(limits=LimitSettings(body_bytes=10_000)))
    peer = Peer(port)
    fields = [*HEADERS, ("grpc-encoding", "deflate")]
    plain = asking().SerializeToString()
    good = peer.ask(framed(zlib.compress(plain), 1), fields)
    bomb = peer.ask(framed(zlib.compress(b"\0" * 10_000_000), 1), fields)
    torn = peer.ask(framed(zlib.compress(plain)[:-5], 1), fields)
    other = peer.ask(framed(plain, 1), [*HEADERS, ("grpc-encoding", "br")])
    peer.wait(good, bomb, torn, other)
    assert [peer.status(number) for number in (good, bomb, torn, other)] == [0, 8, 3, 12]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": ""}, "415"),
    ],
)
def test_what_is_not_grpc_gets_an_http_answer(still: Port, change: dict[str, str], status: str) -> None:
    peer = Peer(still)
    fields = {**dict(HEADERS), **change}
    number = peer.ask(BODY, list(fields.items()))
    peer.wait(number)
    assert peer.headers[number][":status"] == status


def test_an_unknown_method_is_named(still: Port) -> None:
    peer = Peer(still)
    number = peer.ask(BODY, list({**dict(HEADERS), ":path": "/inference.GRPCInferenceService/Nope"}.items()))
    peer.wait(number)
    assert peer.status(number) == 12
    assert "Nope" in peer.headers[number]["grpc-message"]


@pytest.mark.parametrize(
    "fields",
    [
        [field for field in HEADERS if field[0] != ":path"],
        [*HEADERS, ("Upper", "x")],
        [*HEADERS, ("connection", "close")],
        [*HEADERS, (":late", "x")],
        [*HEADERS, ("grpc-timeout", "soon")],
        [*HEADERS, ("broken", "a\r\nb")],
    ],
)
def test_malformed_headers_end_their_stream_alone(still: Port, fields: list[tuple[str, str]]) -> None:
    peer = Raw(still)
    peer.send(peer.headers(1, fields=fields))
    assert peer.reset() is Reason.protocol_error
    peer.send(peer.headers(3), frames.frame(frames.DATA, frames.END_STREAM, 3, BODY))
    while (found := peer.next())[0] != frames.DATA:
        pass
    assert found[2] == 3


LONG = b"x" * (frames.DEFAULT_FRAME + 1)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frames.frame(frames.DATA, 0, 1, b"x"), Reason.protocol_error),
        (frames.frame(frames.DATA, 0, 0, b"x"), Reason.protocol_error),
        (frames.frame(frames.PING, 0, 0, LONG), Reason.frame_size_error),
        (frames.frame(frames.PING, 0, 0, b"short"), Reason.frame_size_error),
        (frames.frame(frames.SETTINGS, 0, 0, b"12345"), Reason.frame_size_error),
        (frames.frame(frames.SETTINGS, 0, 3, b""), Reason.protocol_error),
        (frames.settings({Setting.initial_window_size: 2**31}), Reason.flow_control_error),
        (frames.settings({Setting.max_frame_size: 5}), Reason.protocol_error),
        (frames.window_update(0, 0), Reason.protocol_error),
        (frames.window_update(0, 2**31 - 1), Reason.flow_control_error),
        (frames.window_update(7, 5), Reason.protocol_error),
        (frames.frame(frames.WINDOW_UPDATE, 0, 0, b"1"), Reason.frame_size_error),
        (frames.reset(9, Reason.cancel), Reason.protocol_error),
        (frames.frame(frames.CONTINUATION, 4, 1, b"x"), Reason.protocol_error),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, b"x"), Reason.protocol_error),
        (frames.frame(frames.PRIORITY, 0, 1, b"x"), Reason.frame_size_error),
        (frames.frame(frames.HEADERS, 4, 2, b"\x82"), Reason.protocol_error),
        (frames.frame(frames.HEADERS, 4, 1, b""), Reason.protocol_error),
        (frames.frame(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"), Reason.compression_error),
        (frames.frame(frames.HEADERS, 4 | 8, 1, b"\x09x"), Reason.protocol_error),
        (
            frames.frame(frames.HEADERS, 0, 1, b"\x82") + frames.frame(frames.PING, 0, 0, b"8" * 8),
            Reason.protocol_error,
        ),
    ],
)
def test_what_breaks_http_2_ends_the_connection_with_the_reason(
    still: Port, sent: bytes, reason: Reason
) -> None:
    peer = Raw(still)
    peer.send(sent)
    assert peer.fault() is reason


def test_header_blocks_without_end_are_cut(still: Port) -> None:
    peer = Raw(still)
    peer.send(frames.frame(frames.HEADERS, 0, 1, b"\x82"))
    part = frames.frame(frames.CONTINUATION, 0, 1, b"\0\1a\x7f\xf0\x7f" + b"x" * 16000)
    try:
        for _ in range(1000):
            peer.send(part)
    except OSError:
        return
    assert peer.fault() is Reason.enhance_your_calm


def test_a_table_of_headers_that_unpacks_to_more_than_the_limit_is_refused(still: Port) -> None:
    peer = Raw(still)
    block = (
        peer.encoder.encode([("a" * 10, "b" * 3000)]) + peer.encoder.encode([("a" * 10, "b" * 3000)]) * 100
    )
    peer.send(frames.frame(frames.HEADERS, 4, 1, block))
    assert peer.fault() is Reason.compression_error


def test_a_window_that_was_not_given_may_not_be_used(still: Port) -> None:
    peer = Raw(still)
    peer.send(peer.headers(1))
    part = frames.frame(frames.DATA, 0, 1, b"\0\0\xff\xff\xff" + b"x" * 16000)
    more = frames.frame(frames.DATA, 0, 1, b"x" * 16000)
    try:
        peer.send(part, *[more] * 2000)
    except OSError:
        return
    assert peer.next() is not None


@pytest.mark.parametrize(
    "sent",
    [
        frames.frame(frames.PING, 0, 0, b"12345678"),
        frames.settings({}),
        frames.frame(frames.PRIORITY, 0, 1, b"12345"),
        frames.frame(0xEE, 0, 0, b"new"),
    ],
)
def test_frames_that_ask_for_nothing_without_end_are_too_many(still: Port, sent: bytes) -> None:
    peer = Raw(still)
    try:
        for _ in range(60):
            peer.send(sent * 100)
    except OSError:
        return
    assert peer.fault() is Reason.enhance_your_calm


def test_opening_and_resetting_streams_without_end_is_too_much(still: Port) -> None:
    peer = Raw(still)
    try:
        for number in range(1, 20_000, 2):
            peer.send(peer.headers(number), frames.reset(number, Reason.cancel))
    except OSError:
        return
    assert peer.fault() is Reason.enhance_your_calm


def test_more_streams_than_allowed_are_refused_and_may_be_tried_again(still: Port) -> None:
    peer = Raw(still)
    block = peer.headers(1)
    peer.send(block)
    for number in range(3, 2 * 1024 + 3, 2):
        peer.send(peer.headers(number))
    assert peer.reset() is Reason.refused_stream


def test_who_speaks_http_1_is_told(still: Port) -> None:
    with still.connect() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b"".join(iter(lambda: peer.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"gRPC" in answer


def test_pings_are_answered(port: Port) -> None:
    peer = Raw(port)
    peer.send(frames.frame(frames.PING, 0, 0, b"12345678"))
    while (found := peer.next())[0] != frames.PING:
        pass
    assert found == (frames.PING, frames.ACK, 0, b"12345678")


def test_header_tables_that_change_are_followed(port: Port) -> None:
    """The same bytes mean other headers once the table has changed."""
    peer = Peer(port)
    for turn in range(30):
        fields = [*HEADERS, (f"x-{turn % 3}", "v" * (turn * 37 % 1500)), ("x-request-id", f"id-{turn % 5}")]
        number = peer.ask(BODY, fields)
        peer.wait(number)
        assert peer.status(number) == 0
        assert peer.headers[number]["x-request-id"] == f"id-{turn % 5}"


def test_draining_finishes_what_was_begun_and_leaves_the_rest_to_be_tried_elsewhere(port: Port) -> None:
    peer = Raw(port)
    peer.send(
        peer.headers(1),
        frames.frame(frames.DATA, 0, 1, BODY[:20]),
        frames.frame(frames.PING, 0, 0, b"12345678"),
    )
    while peer.next()[0] != frames.PING:
        pass
    (connection,) = port.server._connections
    port.call(lambda: connection.drain(last=False))
    port.call(lambda: connection.drain(last=True))
    late = peer.headers(3) + frames.frame(frames.DATA, frames.END_STREAM, 3, BODY)
    peer.send(late, frames.frame(frames.DATA, frames.END_STREAM, 1, BODY[20:]))
    found = []
    while (one := peer.next()) is not None:
        found.append(one)
    left = [struct.unpack(">I", payload[:4])[0] for kind, _, _, payload in found if kind == frames.GOAWAY]
    assert left == [2**31 - 1, 1]
    assert [number for kind, _, number, _ in found if kind == frames.DATA] == [1]


class Nobody:
    """A service of which nothing is asked."""

    def find(self, path: str) -> None:
        return None

    def client(self, transport: Any) -> None:
        return None

    def refuse(self, connection: Connection, stream: Any, status: int, message: str) -> None:
        connection.close(stream, frames.literal(b"grpc-status", b"12"))


class Unset:
    """A timer that never fires."""

    def cancel(self) -> None:
        return None


class Later:
    """A loop that is asked for a turn and never has one."""

    def call_soon(self, function: Any) -> None:
        return None

    def call_later(self, seconds: float, function: Any) -> Any:
        return Unset()


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str) -> None:
        return None


@pytest.mark.parametrize(("rate", "closed"), [(0.0, True), (1e9, False)])
def test_keepalives_of_a_quiet_client_are_forgiven(rate: float, closed: bool) -> None:
    wire = Wire()
    bounds = Bounds(idle_control=10, idle_control_rate=rate)
    connection = Connection(Nobody(), bounds, Outbox(Later()), set(), Waiting())
    connection.connection_made(wire)
    connection.data_received(frames.PREFACE)
    for _ in range(20):
        connection.data_received(frames.frame(frames.PING, 0, 0, b"keepaliv"))
    connection.flush()
    assert wire.closed is closed


def test_a_connection_too_many_is_closed() -> None:
    wires, everybody = [Wire() for _ in range(3)], set()  # type: tuple[list[Wire], set[Connection]]
    for wire in wires:
        Connection(Nobody(), Bounds(connections=2), Outbox(Later()), everybody, Waiting()).connection_made(
            wire
        )
    assert [wire.closed for wire in wires] == [False, False, True]


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_frames_bring_a_connection_down_unexpectedly(
    caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    """Any frames, in any pieces: the connection lives, or ends with a reason of the peer's making."""
    wire = Wire()
    connection = Connection(
        Nobody(),
        Bounds(message=1000, streams=4, stream_window=5000, connection_window=70_000),
        Outbox(Later()),
        set(),
        Waiting(),
    )
    connection.connection_made(wire)
    block = hpack.Encoder().encode(HEADERS)
    payloads = st.one_of(st.binary(max_size=40), st.just(block), st.just(BODY[:30]), st.just(b"\0\0\0\1\0"))
    sent = frames.PREFACE + b"".join(
        frames.frame(kind, flags, number, payload)
        for kind, flags, number, payload in data.draw(
            st.lists(
                st.tuples(st.integers(0, 10), st.integers(0, 63), st.integers(0, 7), payloads), max_size=12
            )
        )
    )
    cut = data.draw(st.integers(0, len(sent)))
    for part in (sent[:cut], sent[cut:]):
        connection.data_received(part)
    connection.flush()
    connection.connection_lost(None)
    assert "a gRPC connection failed" not in caplog.text
    assert connection.unfinished == 0 or not connection.streams
