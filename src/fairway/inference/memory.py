"""This process's memory: how much it holds, giving back what is free, and threads that step back for others."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from weakref import ref

LARGE_BYTES = 512 * 1024
"""A call with as much input makes arrays that glibc takes from the system and gives back each time."""
_KEPT_BYTES = 64 * 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident_bytes() -> int:
    """Memory this process holds, mapped files that are in memory included; 0 where the system does not say."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


def give_back(gone: Iterable[ref[Any]] = ()) -> None:
    """Collects what refers to itself, and hands free pages back to the system: glibc keeps them otherwise.

    The collection looks only at what was made since the last `gc.freeze`, which takes a few milliseconds; at
    everything only when something of `gone` is still there, because it refers to itself and was frozen."""
    gc.collect()
    if any(reference() is not None for reference in gone):
        frozen = gc.get_freeze_count() > 0
        gc.unfreeze()
        gc.collect()
        if frozen:
            gc.freeze()
    trim = _glibc("malloc_trim", ctypes.c_size_t)
    if trim is not None:
        trim(0)  # ctypes lets other threads run meanwhile


@cache
def keep_freed() -> None:
    """From now on keeps up to 64 MB of freed memory for the next large call. Touching fresh pages was a tenth of the time
    of an MLP served with 1024 numbers a row; small models never get here, and stay small."""
    mallopt = _glibc("mallopt", ctypes.c_int, ctypes.c_int)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def step_back(nice: int) -> None:
    """Gives this thread alone a lower priority, where the system has threads of several priorities (Linux).

    A thread that is lower already stays where it is."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        try:
            os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
        except OSError:  # forbidden here: the load is only less polite
            pass


@cache
def _glibc(name: str, *takes: Any) -> Any:
    """A function of glibc that returns an int, or None elsewhere."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = list(takes), ctypes.c_int
    return function
