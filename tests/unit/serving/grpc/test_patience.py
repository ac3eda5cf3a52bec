"""Peers that stall, trickle or flood: each costs a bounded amount, for a bounded time, and nobody else is disturbed.

Time stands in the settings; the tests wait for what must come and measure nothing.
"""

import socket
import struct
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from fairway.core.settings import LimitSettings, Settings
from fairway.serving.grpc import frames
from fairway.serving.grpc.frames import Reason, Setting
from fairway.serving.grpc.head import HeadReader
from fairway.serving.grpc.messages import message
from tests.unit.serving.grpc.conftest import INFER, Port, Serve, asking, raw
from tests.unit.serving.grpc.peers import HEADERS, Peer, Raw, framed

BODY = framed(asking().SerializeToString())


def limited(serve: Serve, **limits: float) -> Port:
    return serve(settings=Settings(limits=LimitSettings(**limits)))


@pytest.fixture
def hasty(serve: Serve) -> Iterator[Port]:
    """Waits a quarter of a second and for a fast link; still answers, and holds nothing, when the test is over."""
    port = limited(serve, receive_seconds=0.25, receive_rate=10**9)
    yield port
    assert raw(port.infer(asking())).tolist() == [4.0, 6.0]
    assert port.call(lambda: port.server.waiting) == 0


def large(rows: int) -> bytes:
    request = message("inference.ModelInferRequest")(model_name="m")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP64", shape=[rows])
        request.raw_input_contents.append(np.ones(rows).tobytes())
    return framed(request.SerializeToString())


@pytest.mark.parametrize(
    ("method", "came"),
    [
        *(("ModelInfer", came) for came in (b"", BODY[:3], BODY[:-1], BODY)),
        *(
            ("ModelStreamInfer", came) for came in (BODY[:3], BODY + BODY[:-1])
        ),  # between messages it may be quiet
    ],
)
def test_half_a_message_is_waited_for_so_long_and_no_longer(hasty: Port, method: str, came: bytes) -> None:
    peer = Peer(hasty)
    fields = [(name, INFER + method if name == ":path" else value) for name, value in HEADERS]
    number = peer.ask(came, fields, end=False)
    peer.wait(number)
    assert peer.status(number) == 4
    assert "limits.receive_seconds" in peer.headers[number]["grpc-message"]
    again = peer.ask(BODY)
    peer.wait(again)
    assert peer.status(again) == 0, "the connection goes on"


def test_a_trickle_does_not_help(hasty: Port) -> None:
    peer = Peer(hasty)
    number = peer.ask(BODY[:5], end=False)
    for byte in BODY[5:] * 1000:
        if number in peer.ended:
            break
        peer.h2.send_data(number, bytes([byte]))
        peer.flush()
        peer.socket.settimeout(0.02)
        try:
            peer.read()
        except TimeoutError:
            pass
    peer.socket.settimeout(10)
    peer.wait(number)
    assert peer.status(number) == 4


def test_a_slow_link_has_the_time_that_its_bytes_need(serve: Serve) -> None:
    port = limited(serve, receive_seconds=0.1, receive_rate=10)
    peer = Peer(port)
    number = peer.ask(BODY[:-1], end=False)
    other = peer.ask(BODY[:2], end=False)
    peer.wait(other)
    assert peer.status(other) == 4
    peer.send(number, BODY[-1:], end=True)
    peer.wait(number)
    assert peer.status(number) == 0


def test_the_deadline_of_a_call_counts_from_its_headers(serve: Serve) -> None:
    peer = Peer(serve())
    number = peer.ask(BODY[:20], [*HEADERS, ("grpc-timeout", "80m")], end=False)
    peer.wait(number)
    assert peer.status(number) == 4
    assert "deadline passed" in peer.headers[number]["grpc-message"]


def test_a_real_client_that_stops_in_the_middle_is_told(hasty: Port) -> None:
    """grpcio itself, behind a relay that stops passing on what it sends."""
    relay = socket.create_server(("127.0.0.1", 0))

    def pass_on() -> None:
        client, _ = relay.accept()
        server = hasty.connect()

        def back() -> None:
            while data := server.recv(65536):
                client.sendall(data)
            client.close()

        threading.Thread(target=back, daemon=True).start()
        sent = 0
        while sent < 100_000 and (data := client.recv(4096)):
            server.sendall(data)
            sent += len(data)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    address = f"127.0.0.1:{relay.getsockname()[1]}"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER + "ModelInfer")(large(100_000)[5:], timeout=20)
    thread.join(10)
    relay.close()
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        frames.PREFACE[:10],
        frames.PREFACE + frames.settings({}) + b"\0\0\x08\x06",
        frames.PREFACE + frames.settings({}) + frames.frame(frames.HEADERS, 0, 1, b"\x82"),
    ],
    ids=["nothing", "half a greeting", "half a frame", "a header block without its end"],
)
def test_a_connection_on_which_nothing_whole_comes_is_ended(hasty: Port, begun: bytes) -> None:
    with hasty.connect() as peer:
        peer.sendall(begun)
        try:
            while peer.recv(1000):
                pass
        except ConnectionResetError:
            pass


def test_a_connection_that_nobody_uses_is_parted_with(serve: Serve) -> None:
    port = limited(serve, grpc_idle_seconds=0.1)
    peer = Raw(port)
    assert peer.fault() is Reason.no_error
    for _ in range(2):
        assert raw(port.infer(asking())).tolist() == [4.0, 6.0], "a client opens a new one by itself"


def test_an_answer_that_nobody_reads_is_given_up(hasty: Port) -> None:
    peer = Peer(hasty, initial_window_size=0)
    peer.grants = False
    numbers = [peer.ask(BODY), peer.ask(large(20_000))]
    peer.wait(*numbers)
    assert {peer.ended[number].error_code for number in numbers} == {Reason.cancel}


def test_a_peer_that_reads_nothing_at_all_is_let_go(hasty: Port) -> None:
    peer = Peer(hasty, initial_window_size=2**31 - 1)
    peer.h2.increment_flow_control_window(2**31 - 1 - 65_535)
    peer.wait(peer.ask(BODY))
    (connection,) = hasty.server._connections
    served = connection.transport.get_extra_info("socket")
    served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = large(50_000)
    for _ in range(3):
        peer.ask(body)
    while hasty.call(lambda: connection in hasty.server._connections):
        threading.Event().wait(0.05)


def test_all_connections_together_hold_so_many_bytes(serve: Serve) -> None:
    port = limited(serve, waiting_bytes=300_000)
    body = large(6000)  # 96 kB
    peers = [Peer(port) for _ in range(5)]
    numbers = [peer.ask(body[:-1], end=False) for peer in peers]
    last = Peer(port)
    while not any(number in peer.ended for peer, number in zip(peers, numbers, strict=True)):
        for peer in peers:
            peer.socket.settimeout(0.02)
            try:
                peer.read()
            except TimeoutError:
                pass
    refused = [peer for peer, number in zip(peers, numbers, strict=True) if number in peer.ended]
    assert {peer.status(1) for peer in refused} == {8}
    assert "limits.waiting_bytes" in refused[0].headers[1]["grpc-message"]
    assert port.call(lambda: port.server.waiting) < 400_000
    small = last.ask(BODY)
    last.wait(small)
    assert last.status(small) == 0
    for peer in peers:
        peer.socket.close()
    while port.call(lambda: port.server.waiting):
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    "name", ["pings", "settings", "grants of a byte", "resets", "resets of answered calls"]
)
def test_floods_are_cut(hasty: Port, name: str) -> None:
    """The floods of CVE-2019-9512, -9515, -9511 and CVE-2023-44487."""
    peer = Raw(hasty)

    def opened(number: int) -> bytes:
        return peer.headers(number) + frames.frame(frames.DATA, frames.END_STREAM, number, BODY)

    def once(turn: int) -> bytes:
        number = 2 * turn + 1
        if name == "pings":
            return frames.frame(frames.PING, 0, 0, b"12345678")
        if name == "settings":
            return frames.settings({Setting.initial_window_size: turn % 1000})
        if name == "grants of a byte":
            return frames.window_update(0, 1)
        if name == "resets":
            return peer.headers(number) + frames.reset(number, Reason.cancel)
        # One call in a hundred is let through, so that there are answers among the resets.
        return opened(number) + (frames.reset(number, Reason.cancel) if turn % 100 else b"")

    try:
        for begin in range(0, 20_000, 100):
            peer.send(b"".join(once(turn) for turn in range(begin, begin + 100)))
        assert peer.fault() is Reason.enhance_your_calm
    except OSError:
        return


def test_settings_that_change_often_in_one_frame_count_once(hasty: Port) -> None:
    """Else 16 kB make two million steps for a peer with a thousand streams."""
    peer = Raw(hasty)
    entries = [struct.pack(">HI", Setting.initial_window_size, value) for value in (2**31 - 1, 5, 70_000)]
    peer.send(peer.headers(1), frames.frame(frames.SETTINGS, 0, 0, b"".join(entries * 900)))
    peer.send(frames.frame(frames.DATA, frames.END_STREAM, 1, BODY))
    while (found := peer.next())[0] != frames.DATA:
        pass
    assert found[2] == 1


def test_a_stream_window_that_settings_overflow_ends_the_connection(hasty: Port) -> None:
    peer = Raw(hasty)
    peer.send(
        peer.headers(1),
        frames.window_update(1, 2**31 - 1 - 65_535),
        frames.settings({Setting.initial_window_size: 2**31 - 1}),
    )
    assert peer.fault() is Reason.flow_control_error


def test_a_window_that_grows_by_nothing_ends_its_stream(hasty: Port) -> None:
    peer = Raw(hasty)
    peer.send(peer.headers(1), frames.window_update(1, 0))
    assert peer.reset() is Reason.protocol_error


def test_grants_on_one_stream_do_not_go_through_all_that_wait(serve: Serve) -> None:
    """A thousand answers wait for their own windows; each grant is for one of them."""
    port = limited(serve)
    peer = Peer(port, initial_window_size=0)
    peer.grants = False
    numbers = [peer.ask(BODY) for _ in range(50)]
    while not all(number in peer.headers for number in numbers):
        peer.read()
    (connection,) = [c for c in port.server._connections if len(c.streams) == 50]
    assert port.call(lambda: len(connection._held)) == 0
    peer.h2.increment_flow_control_window(10_000, numbers[30])
    peer.flush()
    peer.wait(numbers[30])
    assert set(peer.ended) == {numbers[30]}
    peer.h2.update_settings({Setting.initial_window_size: 10_000})
    peer.flush()
    peer.wait(*numbers)
    assert [peer.status(number) for number in numbers] == [0] * 50


def test_kept_headers_are_few_bytes() -> None:
    """A peer whose headers are long and always others leaves nothing behind."""
    reader = HeadReader(lambda path: None, 64 * 1024)
    for turn in range(2000):
        value = b"%04d" % turn + b"x" * (turn % 3 * 4000)
        reader.read(b"\x82\x87\x84" + frames.literal(b"x", value))
    assert sum(len(block) + head.size for block, head in reader._known.items()) <= 256 * 1024
    assert max(len(block) for block in reader._known) < 8 * 1024


def test_long_headers_of_open_calls_are_counted(serve: Serve) -> None:
    port = limited(serve)
    peer = Peer(port)
    peer.ask(BODY[:10], [*HEADERS, ("x", "y" * 20_000)], end=False)
    number = peer.ask(BODY, [*HEADERS, ("x", "z" * 20_000)])
    peer.wait(number)
    assert 20_000 < port.call(lambda: port.server.waiting) < 40_000
    peer.h2.reset_stream(1)
    peer.flush()
    number = peer.ask(BODY)
    peer.wait(number)
    assert port.call(lambda: port.server.waiting) == 0


def test_a_stream_whose_client_grants_what_it_read_each_time_goes_on(serve: Serve) -> None:
    """As gRPC's C core does: a message read, a window opened by its few bytes, for the stream and for the connection."""
    peer = Peer(limited(serve))
    fields = [(name, INFER + "ModelStreamInfer" if name == ":path" else value) for name, value in HEADERS]
    number = peer.ask(b"", fields, end=False)
    peer.grants = False
    size = 0
    for answers in range(1, 1_101):
        peer.send(number, BODY, end=False)
        while not peer.over and len(peer.bodies.get(number, b"")) < max(answers * size, 5):
            peer.read()
        size = size or 5 + int.from_bytes(peer.bodies[number][1:5], "big")
        assert len(peer.bodies[number]) == answers * size
        for stream in (None, number):
            peer.h2.increment_flow_control_window(size, stream)
    peer.send(number, b"", end=True)
    peer.wait(number)
    assert peer.status(number) == 0
