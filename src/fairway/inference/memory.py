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
    trim = _trim()
    if trim is not None:
        trim(0)  # ctypes lets other threads run meanwhile


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
def _trim() -> Any:
    """glibc's malloc_trim, or None elsewhere."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
