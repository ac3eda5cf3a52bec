"""One stream of a connection: the request that is arriving on it and the answer that is leaving."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.serving.grpc.head import Head


class Stream:
    """What a connection knows of an open stream.

    `send_window` is how much the peer takes on this stream, `receive_window` how much it may still send here.
    `queued` and `tail` are answer bytes that a window holds back, and the end of the answer. `call` belongs to
    whoever answers. Moments are `perf_counter` seconds.
    """

    __slots__ = (
        "begun",
        "buffer",
        "call",
        "consumed",
        "counted",
        "ended",
        "head",
        "held",
        "need",
        "number",
        "opened",
        "owed",
        "owed_since",
        "queued",
        "receive_window",
        "send_window",
        "tail",
    )

    def __init__(
        self, number: int, head: Head, send_window: int, receive_window: int, begun: float = 0.0
    ) -> None:
        self.number = number
        self.begun = begun
        """When the message that is arriving began to: of a unary call, when its headers came."""
        self.counted = 0
        """Bytes that the connection counts for what arrived."""
        self.held = False
        """Only the connection's window holds the answer back."""
        self.owed = 0
        """Bytes of answers, sent and queued, since `owed_since`, when the queue was last empty."""
        self.owed_since = 0.0
        self.head = head
        self.send_window = send_window
        self.receive_window = receive_window
        self.consumed = 0
        """Bytes taken since the peer was last told."""
        self.buffer: bytearray | None = None
        self.need = 0
        """Bytes of the message that is arriving, its five-byte prefix included; 0 while that is not known."""
        self.ended = False
        """The peer has sent everything."""
        self.opened = False
        """The answer's first header block has been sent."""
        self.queued: deque[memoryview] | None = None
        self.tail: bytes | None = None
        self.call: Call | None = None


class Call:
    """What is told when a stream ends before its answer, or when everything held back has left."""

    __slots__ = ("__weakref__",)

    @property
    def full(self) -> bool:
        """Whether the caller should send no more messages for now."""
        return False

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered, and it is for the caller to go on."""
        return False

    def cancelled(self) -> None:
        """The caller gave up, or its connection is gone."""

    def received(self, message: bytes, compressed: bool) -> None:
        """The next message of a streaming call."""

    def ended(self) -> None:
        """The caller has sent its last message."""

    def drained(self) -> None:
        """Nothing of the answer waits any more."""
