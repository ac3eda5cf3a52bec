"""Starts the client processes together and adds up what they measured."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from fairway.bench.alarm import clock
from fairway.bench.client import Said, Task
from fairway.bench.plan import Plan
from fairway.bench.recording import Tally, added_up
from fairway.core.errors import Unavailable

_HEAD_START_SECONDS = 0.05
"""From the word to begin until the beginning, so that all processes have read it."""
_POLL_SECONDS = 0.1


def run(plan: Plan, progress: Callable[[str, float], None] = lambda stage, fraction: None) -> Tally:
    """Drives the server as planned. Raises Unavailable when it cannot be reached, or a client process died."""
    clients: list[subprocess.Popen[bytes]] = []
    try:
        for share in range(plan.processes):
            clients.append(_start(plan, share))
        for client in clients:
            said = _heard(client, plan)
            if said.failed:
                raise Unavailable(
                    f"{plan.target.address} cannot be reached: {said.failed}.", hint="Is the server running?"
                )
        begin = clock() + _HEAD_START_SECONDS
        for client in clients:
            _tell(client, f"{begin!r}".encode())
        _watch(plan, begin, clients[0], progress)
        tallies = [_heard(client, plan).tally for client in clients]
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    return added_up([tally for tally in tallies if tally is not None])


def _start(plan: Plan, share: int) -> subprocess.Popen[bytes]:
    client = subprocess.Popen(
        [sys.executable, "-m", "fairway.bench.client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _tell(client, msgspec.json.encode(Task(plan=plan, share=share)))
    return client


def _tell(client: subprocess.Popen[bytes], line: bytes) -> None:
    assert client.stdin is not None
    with suppress(BrokenPipeError):  # it has ended, which is found when its answer is read
        client.stdin.write(line + b"\n")
        client.stdin.flush()


def _heard(client: subprocess.Popen[bytes], plan: Plan) -> Said:
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise Unavailable(
            f"a client process for {plan.target.address} ended with {client.wait()}.",
            hint="What it said stands above.",
        )
    return msgspec.json.decode(line, type=Said)


def _watch(
    plan: Plan, begin: float, client: subprocess.Popen[bytes], progress: Callable[[str, float], None]
) -> None:
    """Shows how far the run is, until it should be over."""
    whole = plan.warmup + plan.seconds
    while (passed := clock() - begin) < whole and client.poll() is None:
        progress("warming up" if passed < plan.warmup else "measuring", max(passed, 0.0) / whole)
        time.sleep(min(_POLL_SECONDS, max(whole - passed, 0.0)))
    progress("waiting for the last answers", 1.0)
