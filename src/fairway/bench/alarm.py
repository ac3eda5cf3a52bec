"""Wakes an event loop at a moment.

uvloop's own timers count whole milliseconds: a request due in 0.2 ms would be sent up to a millisecond late, and that
would be measured as the server's. Linux's timerfd is exact to some 50 us and costs nothing while it waits; elsewhere
the last millisecond is spent turning the loop, which keeps a core busy.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable

_COARSE_SECONDS = 0.0015
_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE = 1

clock = time.perf_counter
"""Seconds; on Linux the monotonic clock, the same in every process."""


class Alarm:
    """`ring` is called in the loop at the last moment given to `set`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._moment: float | None = None
        self._coarse: asyncio.Handle | None = None
        self._timer = _timerfd() if sys.platform == "linux" else None
        if self._timer is not None:
            loop.add_reader(self._timer, self._rang)

    def set(self, moment: float) -> None:
        """`moment` is on `clock`; one that has passed rings at the loop's next turn."""
        self._moment = moment
        if self._timer is not None:
            _arm(self._timer, max(moment, 1e-9))
        elif self._coarse is None:
            self._approach()

    def close(self) -> None:
        if self._timer is not None:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)
            self._timer = None
        if self._coarse is not None:
            self._coarse.cancel()

    def _rang(self) -> None:
        assert self._timer is not None
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            return  # set anew since it rang
        self._ring()

    def _approach(self) -> None:
        self._coarse = None
        if self._moment is None:
            return
        rest = self._moment - clock()
        if rest <= 0:
            self._moment = None
            self._ring()
        elif rest <= _COARSE_SECONDS:
            self._coarse = self._loop.call_soon(self._approach)
        else:
            self._coarse = self._loop.call_later(rest - _COARSE_SECONDS, self._approach)


def _timerfd() -> int | None:
    try:
        return int(_libc().timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
    except (OSError, AttributeError):
        return None  # a C library without it


def _arm(timer: int, moment: float) -> None:
    seconds = int(moment)
    value = struct.pack("qqqq", 0, 0, seconds, int((moment - seconds) * 1e9))
    _libc().timerfd_settime(timer, _ABSOLUTE, value, None)


_library: ctypes.CDLL | None = None


def _libc() -> ctypes.CDLL:
    global _library  # noqa: PLW0603 - opened at first use
    if _library is None:
        _library = ctypes.CDLL(None, use_errno=True)
    return _library
