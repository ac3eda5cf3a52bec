"""How long a connection waits for what its peer has begun.

One timer a connection, moved on when it fires, instead of one a call. When it does, it looks for messages that have
not come whole, answers that were not read, frames cut short, and a connection that nobody uses. Time is given as
Apache's mod_reqtimeout gives it: some seconds, and for every byte what the slowest link needs for it, so that a long
upload may go on and a byte a minute may not.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Protocol

from fairway.inference.work import now
from fairway.serving.grpc.answering import Bounds
from fairway.serving.grpc.stream import Stream

_SOONEST = 0.05
"""Seconds between two looks: deadlines as short as a peer likes must not make work."""

_PARTING = 1.0
"""Seconds for a peer to hear that it should call elsewhere."""


class Kept(Protocol):
    """A connection, as far as it can be waited for. Streams that are open are in `streams`, by number."""

    transport: asyncio.Transport

    @property
    def streams(self) -> Mapping[int, Stream]: ...

    def late(self, stream: Stream, why: str) -> None:
        """Ends a call whose message did not come, or whose answer nobody took, in time."""

    def stalled(self, why: str) -> None:
        """Ends a connection on which nothing can go on."""

    def drain(self, *, last: bool) -> None:
        """Asks the peer for no new calls; with `last`, those that come anyway are left to be tried elsewhere."""


class Patience:
    """Of one connection, which tells what it hears. Moments are `perf_counter` seconds, `math.inf` for none."""

    def __init__(self, connection: Kept, bounds: Bounds, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._bounds = bounds
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.look_at = math.inf
        """When it looks next."""
        self.heard = now()
        """When the last bytes came."""
        self.part_since = self.heard
        """Since when the rest of a frame or of a header block is awaited: at first, of the peer's greeting."""
        self.paused_since = math.inf
        """Since when the peer does not read."""
        self._closing_since = math.inf
        self._parting = False

    def begin(self) -> None:
        self._look_in(min(self._bounds.receive_seconds, self._bounds.idle_seconds))

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.look_at = -math.inf

    def partly(self, *, new: bool) -> None:
        """A frame or a header block has come in part; `new`: not the one that was awaited before."""
        if new or self.part_since == math.inf:
            self.part_since = self.heard

    def until(self, moment: float) -> None:
        """Something ends at this moment."""
        if moment < self.look_at:
            self._look_in(moment - now())

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = max(_SOONEST, seconds)
        self.look_at = now() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        connection, bounds, time = self._connection, self._bounds, now()
        self._timer = None
        if connection.transport.is_closing():  # what waits to be sent has to leave first, if anybody reads it
            if self._closing_since + bounds.receive_seconds <= time:
                connection.transport.abort()
                return
            self._closing_since = min(self._closing_since, time)
            self._look_in(bounds.receive_seconds)
            return
        if min(self.part_since, self.paused_since) + bounds.receive_seconds <= time:
            connection.stalled(f"nothing whole came, or was read, for {bounds.receive_seconds:g} s")
            return
        if not connection.streams and (self._parting or self.heard + bounds.idle_seconds <= time):
            # Said first, and done when the peer has heard it: a call that it has just sent is answered still.
            connection.drain(last=self._parting)
            self._parting = True
            self._look_in(_PARTING)
            return
        upcoming = time + min(bounds.receive_seconds, bounds.idle_seconds)
        for stream in list(connection.streams.values()):
            due, why = _due(stream, bounds)
            if due <= time:
                connection.late(stream, why)
            else:
                upcoming = min(upcoming, due)
        upcoming = min(upcoming, min(self.part_since, self.paused_since) + bounds.receive_seconds)
        self._look_in(upcoming - time)


def _due(stream: Stream, bounds: Bounds) -> tuple[float, str]:
    """When a stream is too late, and what its caller is told then; `math.inf` while it is not the caller's turn."""
    if stream.queued:
        return stream.owed_since + bounds.receive_seconds + stream.owed / bounds.receive_rate, ""
    if stream.ended or (stream.call is not None and not stream.buffer):
        return math.inf, ""
    came = 0 if stream.buffer is None else len(stream.buffer)
    due = stream.begun + bounds.receive_seconds + came / bounds.receive_rate
    timeout = stream.head.timeout
    if stream.call is None and timeout is not None and stream.begun + timeout < due:
        return stream.begun + timeout, "the message had not arrived whole when the call's deadline passed"
    return due, (
        f"the message did not arrive whole within {bounds.receive_seconds:g} s and what its bytes need "
        "(limits.receive_seconds, limits.receive_rate)"
    )
