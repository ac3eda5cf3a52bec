"""`fairway control` as users start it, and what tests ask of it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.asking import ask
from tests.e2e.servers import FAIRWAY

FAST = {
    "FAIRWAY_CONTROL_LEASE_SECONDS": "2",
    "FAIRWAY_CONTROL_INTERVAL_SECONDS": "0.1",
    "FAIRWAY_CONTROL_NICE": "0",
}
"""Waits short enough for tests."""


@dataclass
class Control:
    process: subprocess.Popen[str]
    address: str
    errors: Path

    def ask(self, path: str, method: str = "GET", body: Any = None, key: str = "") -> tuple[int, Any]:
        headers = {"x_api_key": key} if key else {}
        sent = None if body is None else json.dumps(body).encode()
        status, _, content = ask(self.address, method, path, sent, **headers)
        return status, json.loads(content) if content.startswith((b"{", b"[")) else content

    @property
    def leads(self) -> bool:
        return bool(self.ask("/api/v1/control")[1]["leads"])

    def jobs(self) -> list[int]:
        """The processes that work on runs."""
        listed = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for path in listed for pid in path.read_text().split()]


@contextmanager
def controlling(home: Path, *options: str, environ: dict[str, str] | None = None) -> Iterator[Control]:
    """A control process on a free port, until it answers."""
    errors = home / f"control-{time.monotonic_ns()}.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [FAIRWAY, "control", "--port", "0", "--home", str(home), "--json", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **FAST, **(environ or {})},
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, errors.read_text()
        yield Control(process, urlsplit(json.loads(line)["address"]).netloc, errors)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def fairway(home: Path, *arguments: str) -> Any:
    """What a verb prints as JSON."""
    done = subprocess.run(
        [FAIRWAY, *arguments, "--home", str(home), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def history(home: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fairway(home, "schedules", "history", name)
    return found


def schedule(home: Path, *arguments: str) -> Sequence[Any]:
    found: Sequence[Any] = fairway(home, "batch", "schedule", *arguments)
    return found
