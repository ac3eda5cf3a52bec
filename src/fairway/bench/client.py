"""A client process: `python -m fairway.bench.client`. Reads a plan, says when it is connected, waits for the moment to
begin, and writes what it measured. Every message is a line of JSON."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from typing import IO, Any

import msgspec

from fairway.bench.drive import drive
from fairway.bench.plan import Plan
from fairway.bench.recording import Tally


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Client process number `share` of a plan."""

    plan: Plan
    share: int


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client process writes: first `connected`, or `failed` and why; then its `tally`."""

    connected: bool = False
    failed: str = ""
    tally: Tally | None = None


def main() -> int:
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # whoever started this process has ended meanwhile
        return 1
    task = msgspec.json.decode(line, type=Task)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection in the middle would be measured as the server's; a run allocates no cycles to speak of
    try:
        tally = _run(drive(task.plan, task.share, _starter(sys.stdin.buffer, sys.stdout.buffer)))
    except OSError as error:
        _say(sys.stdout.buffer, Said(failed=os.strerror(error.errno) if error.errno else str(error)))
        return 1
    _say(sys.stdout.buffer, Said(tally=tally))
    return 0


def _run(work: Coroutine[Any, Any, Tally]) -> Tally:
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop  # there is none for Windows

    tally: Tally = uvloop.run(work)
    return tally


def _starter(commands: IO[bytes], answers: IO[bytes]) -> Callable[[], float]:
    def start() -> float:
        _say(answers, Said(connected=True))
        return float(commands.readline())

    return start


def _say(answers: IO[bytes], said: Said) -> None:
    answers.write(msgspec.json.encode(said) + b"\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
