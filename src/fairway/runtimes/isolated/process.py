"""One child process: started, called by one thread at a time, told apart when it dies, hangs or talks nonsense."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway.core.columns import Array
from fairway.core.errors import ModelFailed, PayloadTooLarge
from fairway.runtimes.isolated import child as program
from fairway.runtimes.isolated.channel import Tail, open_shared, read_some

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_LOOK_SECONDS = 0.1
_LAST_WORDS_CHARACTERS = 2000


@dataclass(frozen=True)
class Program:
    """What a child runs. `python` is the interpreter of its environment; `label` is how messages call the model;
    `memory_bytes` of address space, 0 for no limit; `buffer_bytes` for the rows or the answers of one call."""

    python: Path
    file: Path
    function: str
    fields: tuple[str, ...]
    dtypes: Mapping[str, str]
    label: str
    threads: int = 1
    memory_bytes: int = 0
    buffer_bytes: int = 256 * 1024**2


class Lost(Exception):
    """The child can answer no more; the message says how it ended, without its last words."""


class Child:
    """A running child. It dies with the thread that makes it (Linux): make it in one that lives as long."""

    def __init__(self, run: Program) -> None:
        self.answered = 0
        self.started = time.monotonic()
        self._run = run
        self._tail = Tail()
        self._reading = threading.Lock()
        self._killed = ""
        self._sequence = 0
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            try:
                self.connection, other = socket.socketpair()
                undo.enter_context(self.connection)
                theirs.enter_context(other)
                self._request = undo.enter_context(contextlib.closing(open_shared(run.buffer_bytes)))
                self._response = undo.enter_context(contextlib.closing(open_shared(run.buffer_bytes)))
                self.output, written = os.pipe()
                undo.callback(os.close, self.output)
                theirs.callback(os.close, written)
                os.set_blocking(self.output, False)
                passed = (other.fileno(), self._request.descriptor, self._response.descriptor)
                self._process = subprocess.Popen(
                    [
                        str(run.python),
                        "-I",
                        "-B",
                        "-u",
                        "-X",
                        "faulthandler",
                        program.__file__,
                        *map(str, passed),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    pass_fds=passed,
                    env=_environment(run.threads),
                    start_new_session=True,  # Ctrl-C is for the server; and all that it starts is killed with it
                )
            except OSError as error:
                raise Lost(f"cannot be started: {error}") from error
            self._free = undo.pop_all()
        self.pid = self._process.pid
        self.connection.settimeout(10.0)
        start = {
            "parent": os.getpid(),
            "file": str(run.file),
            "function": run.function,
            "fields": run.fields,
            "dtypes": dict(run.dtypes),
            "memory_bytes": run.memory_bytes,
            "buffer_bytes": self._response.most_bytes,
        }
        with contextlib.suppress(OSError):  # dead already: whoever waits for its first message learns how
            program.send(self.connection, start)

    def hello(self) -> str:
        """Its first message, when there is one: what it could not do, or "" when it is ready. Raises Lost."""
        message = self._message()
        return str(message["error"]) if "error" in message else ""

    def call(self, arrays: Mapping[str, Array], seconds: float) -> dict[str, Array]:
        """The function's outputs by name.

        Raises ModelFailed when the function raised, PayloadTooLarge when the rows need more shared memory than
        allowed, and Lost when the child died, was killed because `seconds` were over, or talks nonsense.
        """
        deadline = time.monotonic() + seconds
        described, blocks, size = program.lay_out(arrays)
        try:
            self._request.grow(size)
        except program.BufferFull as full:
            raise PayloadTooLarge(
                f"these rows need {size:,} bytes of memory shared with {self._run.label} and may have {full.args[1]:,}.",
                hint="Send fewer rows at a time, or raise isolation.buffer_bytes.",
            ) from full
        program.write(blocks, self._request.memory)
        self._sequence += 1
        try:
            program.send(self.connection, {"id": self._sequence, "arrays": described})
        except OSError as error:
            raise Lost(self.ending()) from error
        self._await(deadline, seconds)
        message = self._message()
        self.answered += 1
        if message.get("id") != self._sequence:
            raise Lost("answered another call than it was asked; it was stopped")
        if "error" in message:
            raise ModelFailed(f"{self._run.label}: {message['error']}")
        try:
            self._response.map()
            return program.read(message["arrays"], self._response.memory)
        except (KeyError, TypeError, ValueError) as error:
            raise Lost(f"gave an answer that cannot be read ({error}); it was stopped") from error

    def _await(self, deadline: float, seconds: float) -> None:
        """Until there is something to read. What a child forked may hold its end open, so it is looked after too."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if poll.poll(max(0.0, min(left, _LOOK_SECONDS)) * 1000):
                return
            if self._process.poll() is not None:
                raise Lost(self.ending())
            if left <= 0:
                self.kill(f"did not answer within {seconds:g} s and was killed")
                raise Lost(self.ending())

    def _message(self) -> dict[str, Any]:
        try:
            message = program.receive(self.connection)
        except OSError as error:
            raise Lost(self.ending()) from error
        except ValueError as error:
            raise Lost(f"sent what is no message ({error}); it was stopped") from error
        if message is None:
            raise Lost(self.ending())
        if not isinstance(message, dict):
            raise Lost("sent what is no message; it was stopped")
        return message

    def ending(self) -> str:
        """How it ended; it is killed if it has not."""
        try:
            code = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.kill("closed its connection and was killed")
            code = self._process.wait()
        if self._killed:
            return self._killed
        if code >= 0:
            return f"ended with exit code {code}"
        why = "; the system does so when memory runs out" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{why}"

    def alive(self) -> bool:
        return self._process.poll() is None

    def drain(self) -> tuple[list[str], bool]:
        """(lines for the log, whether there may be more later): what it wrote since, read without waiting."""
        lines: list[str] = []
        with self._reading:
            for _ in range(16):  # a child that writes without end must not hold its reader
                content = read_some(self.output)
                if not content:
                    return lines, content is None
                lines += self._tail.lines(content, time.monotonic())
        return lines, True

    def last_words(self) -> str:
        """The end of what it wrote, bounded."""
        self.drain()
        with self._reading:
            return self._tail.words()[-_LAST_WORDS_CHARACTERS:]

    def kill(self, why: str = "was stopped") -> None:
        """Kills it and what it started."""
        if self._process.poll() is None:
            self._killed = self._killed or why
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self, seconds: float = 0.0) -> None:
        """Ends it: its connection is closed, and after `seconds` it is killed."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()
        self._process.wait()
        self._free.close()


def _environment(threads: int) -> dict[str, str]:
    """The server's own, without what steers another Python or holds Fairway's secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FAIRWAY_"))}
    kept.pop("VIRTUAL_ENV", None)
    return {**dict.fromkeys(_THREAD_VARIABLES, str(threads)), **kept}
