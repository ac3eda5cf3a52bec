"""Functions that run in a child process, and engines around them in this interpreter's own environment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.columns import Columns
from fairway.core.errors import Unavailable
from fairway.core.settings import IsolationSettings
from fairway.runtimes.isolated.engine import IsolatedEngine
from fairway.runtimes.isolated.process import Program

TRICKS = """
import ctypes, os, sys, time
import numpy as np

def fork_and_hold():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)

ACTS = {
    1: lambda: ctypes.string_at(0),
    2: lambda: os._exit(3),
    3: lambda: time.sleep(60),
    4: lambda: exec('raise ValueError("four is not allowed")'),
    5: lambda: [os.write(1, b"garbage \\x00\\xff" * 1000) for _ in range(500)],
    6: lambda: sys.exit("said goodbye"),
    7: lambda: os.kill(os.getpid(), 9),
    8: lambda: (fork_and_hold(), os._exit(4)),
    9: lambda: (os.write(2, b"last words\\n"), os.abort()),
    10: lambda: os.closerange(0, 3),
}

def score(rows: dict):
    a = rows["a"]
    for act in {int(value) for value in a}:
        if act in ACTS:
            ACTS[act]()
    if (a == 20).any():
        return a[:-1]
    if (a == 21).any():
        return np.zeros((len(a), 1 << 20))
    if (a == 22).any():
        return [b"bytes"] * len(a)
    if (a == 23).any():
        return a.astype(complex)
    if (a == 24).any():
        return np.array([bytearray(1 << 24) and 1.0 for _ in range(len(a))])
    if (a == 25).any():
        bytearray(1 << 34)
    return a * 2

def who(rows: dict):
    return {"pid": np.full(len(rows["a"]), os.getpid()), "a": rows["a"]}
"""

FAST = IsolationSettings(call_seconds=20.0, start_seconds=30.0)


def one(value: float) -> Columns:
    return Columns(("a",), 1, packed=np.array([[value]]))


@contextmanager
def running(
    folder: Path,
    source: str = TRICKS,
    function: str = "score",
    *,
    settings: IsolationSettings = FAST,
    fields: tuple[str, ...] = ("a",),
    **program: Any,
) -> Iterator[IsolatedEngine]:
    """The function of `source`, in processes of this interpreter's own environment."""
    file = folder / "predict.py"
    file.write_text(source, encoding="utf-8")
    given: dict[str, Any] = {
        "dtypes": {},
        "label": "legacy:1",
        "buffer_bytes": settings.buffer_bytes,
        "memory_bytes": settings.memory_bytes,
        **program,
    }
    engine = IsolatedEngine(
        Program(python=Path(sys.executable), file=file, function=function, fields=fields, **given), settings
    )
    try:
        yield engine
    finally:
        engine.unload()


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(engine: IsolatedEngine) -> bool:
    """Whether a process is there again."""
    try:
        engine.predict(one(100.0))
    except Unavailable:
        return False
    return True
