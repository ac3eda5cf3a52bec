"""Clients of HTTP/2 that keep to the rules (h2), or do not (frames by hand)."""

import struct
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack

from fairway.serving.grpc import frames
from fairway.serving.grpc.frames import Reason, Setting
from tests.unit.serving.grpc.conftest import INFER, Port

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", INFER + "ModelInfer"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + struct.pack(">I", len(message)) + message


class Peer:
    """A client of h2's, which fails the test when the server breaks HTTP/2."""

    def __init__(self, port: Port, **settings: int) -> None:
        self.socket = port.connect()
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({getattr(Setting, name): value for name, value in settings.items()})
        self.headers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: dict[int, Any] = {}
        self.events: list[Any] = []
        self.over = False
        self.grants = True
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, body: bytes, headers: list[tuple[str, str]] = HEADERS, *, end: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, headers)
        self.send(number, body, end=end)
        return number

    def send(self, number: int, body: bytes, *, end: bool) -> None:
        while True:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            part, body = body[:room], body[room:]
            self.h2.send_data(number, part, end_stream=end and not body)
            self.flush()
            if not body:
                return
            while self.h2.local_flow_control_window(number) == 0 and number not in self.ended:
                self.read()
            if number in self.ended:
                return

    def read(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            self.over = True
            return
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                self.headers.setdefault(event.stream_id, {}).update(dict(event.headers))
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if self.grants and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.ended.setdefault(event.stream_id, event)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.over = True
        self.flush()

    def wait(self, *numbers: int) -> None:
        while not self.over and not all(number in self.ended for number in numbers):
            self.read()

    def status(self, number: int) -> int:
        return int(self.headers[number]["grpc-status"])


class Raw:
    """Frames by hand, right or wrong."""

    def __init__(self, port: Port) -> None:
        self.socket = port.connect()
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.rest = b""
        self.socket.sendall(frames.PREFACE + frames.settings({}))

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def headers(self, number: int, flags: int = frames.END_HEADERS, fields: Any = HEADERS) -> bytes:
        return frames.frame(frames.HEADERS, flags, number, self.encoder.encode(fields))

    def next(self) -> tuple[int, int, int, bytes] | None:
        """Type, flags, stream and payload of the next frame; None at the end."""
        while True:
            if len(self.rest) >= 9:
                high, low, kind, flags, number = frames.FRAME_HEAD.unpack_from(self.rest)
                stop = 9 + (high << 16 | low)
                if len(self.rest) >= stop:
                    payload, self.rest = self.rest[9:stop], self.rest[stop:]
                    return kind, flags, number, payload
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.rest += data

    def fault(self) -> Reason:
        """How the server ended the connection."""
        reason = None
        while (found := self.next()) is not None:
            if found[0] == frames.GOAWAY:
                reason = Reason(struct.unpack(">II", found[3][:8])[1])
        assert reason is not None, "the connection ended without a word"
        return reason

    def reset(self) -> Reason:
        """How the server ended the next stream that it reset."""
        while (found := self.next()) is not None:
            if found[0] == frames.RST_STREAM:
                return Reason(int.from_bytes(found[3], "big"))
        raise AssertionError("the connection ended")
