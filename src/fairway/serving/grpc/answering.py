"""What a connection is told about bounds, and whom it asks for answers."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from fairway.serving.grpc.stream import Stream


class Bounds(msgspec.Struct, frozen=True):
    """Of one connection, but for `connections` and `waiting`. Sizes are bytes."""

    message: int = 64 * 1024 * 1024
    header_block: int = 64 * 1024
    streams: int = 1024
    connections: int = 10_000
    stream_window: int = 1024 * 1024
    connection_window: int = 8 * 1024 * 1024
    waiting: int = 1024 * 1024 * 1024
    """Of half-sent messages and unread answers of all connections together."""
    receive_seconds: float = 75.0
    """How long a message may take to arrive, or an answer to be read, beside its bytes at `receive_rate` a second."""
    receive_rate: float = 4096.0
    idle_seconds: float = 3600.0
    """How long a connection without calls is kept."""
    idle_control: int = 2000
    """Frames that ask for nothing, or take back what they asked for, or open a window by next to nothing, more than
    there were answers to forgive them: ten an answer."""
    idle_control_rate: float = 20.0
    """How many of them are forgiven each second: keepalives of a client that is quiet for days."""


class Peer(Protocol):
    """The connection that a call came by, as who answers it sees it."""

    client: str | None
    """The name in the peer's certificate, where one stands for a key."""

    def reply(self, stream: Stream, opening: bytes, message: bytes, closing: bytes) -> None:
        """A whole unary answer: header block, message, trailer block."""

    def open(self, stream: Stream, block: bytes) -> None:
        """The answer's headers."""

    def send(self, stream: Stream, message: bytes) -> None:
        """One message of the answer."""

    def close(self, stream: Stream, block: bytes) -> None:
        """The trailers; nothing is sent on the stream after them."""

    def take_more(self, stream: Stream) -> None:
        """Lets the peer send more on this stream."""


class Service(Protocol):
    """Who answers. Every call made here must return at once; answers come by `Peer.reply` and its like."""

    def find(self, path: str) -> object:
        """What answers this path; None for a path nobody knows. The result stays with the headers."""

    def client(self, transport: asyncio.Transport) -> str | None:
        """The name in the peer's certificate, where one stands for a key."""

    def unary(self, connection: Peer, stream: Stream, message: bytes, compressed: bool) -> None:
        """A whole unary call."""

    def streaming(self, connection: Peer, stream: Stream) -> None:
        """A streaming call begins: give the stream a `call`."""

    def is_streaming(self, method: object) -> bool:
        """Whether calls of this method may carry many messages."""

    def may_begin(self, connection: Peer, stream: Stream) -> bool:
        """Whether the caller may send a message that comes in parts; if not, it was refused."""

    def refuse(self, connection: Peer, stream: Stream, status: int, message: str) -> None:
        """A call that never became a message: answer it with a gRPC status."""
