"""One process that works on a run of a schedule, seen from the control process.

Its order is the first line of its standard input; the lines after it say until when this process leads. When they say
that no more, or the input ends because this process died, it ends itself, and all that it started, at once: another
control process may go on with the run. What it has to say comes on a pipe, a JSON object a line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, Protocol

import msgspec

from fairway.control.planning import Outcome
from fairway.core.schedule import Schedule, ScheduleRun

REPORT_VARIABLE = "FAIRWAY_REPORT_FD"
_MOST_REPORT = 1024 * 1024
_STOPPED = Outcome(state="interrupted", reason="the control process stopped")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do. `held_until` is on `leadership.machine_clock`."""

    home: str
    schedule: Schedule
    run: ScheduleRun
    held_until: float


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process says: the name of its batch run once it has one, how far it is, and at the end its outcome."""

    event: Literal["begun", "progress", "end"]
    batch_run: str = ""
    rows: int = 0
    rejected: int = 0
    outcome: Outcome | None = None


class WorkProcess(Protocol):
    """`poll` never waits."""

    def poll(self) -> list[Said]:
        """What it has said since the last time."""

    @property
    def outcome(self) -> Outcome | None:
        """None while it works."""

    def beat(self, held_until: float) -> None:
        """Until when this process leads."""

    def stop(self) -> None:
        """Asks it to end where it can go on later."""

    def kill(self) -> None:
        """It and all that it started have ended when this returns."""


Launch = Callable[[Schedule, ScheduleRun, float], WorkProcess]


class Subprocess:
    """A process of its own session, at the priority of the control process."""

    def __init__(self, command: Sequence[str], order: Order) -> None:
        self._report, theirs = os.pipe()
        os.set_blocking(self._report, False)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=2,  # what a model prints is not an answer
                pass_fds=(theirs,),
                start_new_session=True,
                env={**os.environ, REPORT_VARIABLE: str(theirs)},
            )
        except OSError:
            os.close(self._report)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdin is not None, "it was asked for"
        self._stdin = self._process.stdin.fileno()
        self._left = b""
        self._outcome: Outcome | None = None
        self._closed = self._stopped = False
        self._guard = threading.Lock()
        """Beats come from another thread; a number of a file that is closed may be another file's by then."""
        self._send(msgspec.json.encode(order))
        os.set_blocking(self._stdin, False)

    def poll(self) -> list[Said]:
        if self._closed:
            return []
        code = self._process.poll()
        said = self._read()
        for each in said:
            self._outcome = each.outcome or self._outcome
        if code is not None:
            self._close()
            self._outcome = self._outcome or (_STOPPED if self._stopped else _ended(code))
        return said

    @property
    def outcome(self) -> Outcome | None:
        return self._outcome if self._closed else None

    def beat(self, held_until: float) -> None:
        self._send(str(held_until).encode())

    def stop(self) -> None:
        self._stopped = True
        self._process.terminate()

    def kill(self) -> None:
        if not self._closed:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self.poll()

    def _send(self, line: bytes) -> None:
        with self._guard, suppress(BrokenPipeError, BlockingIOError):  # it has ended, or does not listen
            if not self._closed:
                os.write(self._stdin, line + b"\n")

    def _read(self) -> list[Said]:
        content = self._left
        with suppress(BlockingIOError):
            while len(content) < _MOST_REPORT and (more := os.read(self._report, 65536)):
                content += more
        *lines, self._left = content.split(b"\n")
        return [msgspec.json.decode(line, type=Said) for line in lines]

    def _close(self) -> None:
        """What it started and left behind ends too."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        os.close(self._report)
        assert self._process.stdin is not None, "it was asked for"
        with self._guard:
            self._closed = True
            with suppress(BrokenPipeError):
                self._process.stdin.close()


def _ended(code: int) -> Outcome:
    """Of one that ended without a word."""
    if code >= 0:
        return Outcome(state="failed", reason=f"its process ended with exit code {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return Outcome(state="failed", reason=f"its process was killed by {name}")
