"""Where it may listen, and workers that will not start."""

import errno
import os
import shutil
import socket
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairway.core.errors import InsecureBinding, Unavailable
from fairway.core.route import everything_to
from fairway.core.settings import ServingSettings, Settings
from fairway.registry.snapshot import ServedModel, ServedVersion, ServingSnapshot
from fairway.serving import supervisor
from fairway.serving.supervisor import Supervisor, WorkerFailed, check_binding
from fairway.serving.worker import WorkerPlan


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    check_binding(host, insecure=False)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.example.com"]
)
def test_anything_else_needs_to_be_told(host: str) -> None:
    with pytest.raises(InsecureBinding, match="--insecure"):
        check_binding(host, insecure=False)
    with pytest.raises(InsecureBinding, match="fairway keys create"):
        check_binding(host, insecure=False, tls=True)
    check_binding(host, insecure=True)


def test_keys_let_it_listen_anywhere_and_without_tls_it_warns(caplog: pytest.LogCaptureFixture) -> None:
    check_binding("127.0.0.1", insecure=False, keys=True)
    check_binding("0.0.0.0", insecure=False, keys=True, tls=True)
    check_binding("0.0.0.0", insecure=True, keys=True)
    assert caplog.messages == []
    check_binding("0.0.0.0", insecure=False, keys=True)
    [said] = caplog.messages
    assert "0.0.0.0 without TLS" in said
    assert "--tls-cert" in said


def test_sockets_share_a_port_and_a_taken_one_is_named() -> None:
    sockets = supervisor._listen("127.0.0.1", 0, 3)
    try:
        ports = {listening.getsockname()[1] for listening in sockets}
        assert len(ports) == 1
    finally:
        for listening in sockets:
            listening.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for count in (1, 2):
            with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
                supervisor._listen("127.0.0.1", port, count)
    with pytest.raises(Unavailable):
        supervisor._listen("no such host.invalid", 0, 1)


def snapshot(directory: Path) -> ServingSnapshot:
    version = ServedVersion(version=1, digest="sha256:0", aliases=(), directory=str(directory))
    return ServingSnapshot(
        revision=1, models=(ServedModel(route=everything_to("m", 1), versions=(version,)),)
    )


def settings(home: Path) -> Settings:
    return Settings(home=str(home), serving=ServingSettings(port=0, workers=1))


def test_a_worker_that_cannot_start_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    started: list[int] = []
    supervising = Supervisor(settings(tmp_path), snapshot(tmp_path / "gone"), started.append)
    with pytest.raises(WorkerFailed, match=r"not_found: there is no bundle at .*gone"):
        supervising.run()
    assert started == []
    assert not supervising._folder.exists()


class Process:
    """A worker that ended as soon as it started."""

    returncode = -9

    def poll(self) -> int:
        return self.returncode


def test_a_worker_that_keeps_dying_is_started_after_ever_longer_pauses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    starts: list[float] = []

    class Spawning(Supervisor):
        def spawn(self, number: int, listening: socket.socket) -> Any:
            starts.append(clock[0])
            return Process(), os.open(os.devnull, os.O_RDONLY)

    supervising = Spawning(settings(tmp_path), snapshot(tmp_path), lambda port: None)
    with socket.socket() as listening:
        slot = supervisor._Slot("worker 0", lambda: supervising.spawn(0, listening))
        slot.start()
        while len(starts) < 9:
            slot.tend()
            clock[0] += 0.05
        pauses = [round(later - earlier, 1) for earlier, later in pairwise(starts)]
        assert pauses == sorted(pauses)
        assert pauses[0] < 0.3
        assert 4.9 <= pauses[-1] <= 5.3
        clock[0] += 60  # a worker that ran for a while is replaced at once
        before = len(starts)
        slot.tend()
        slot.tend()
        assert len(starts) == before + 1
        slot._close_report()
    supervising._folder.rmdir()


def test_a_worker_that_cannot_be_started_now_is_started_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine without a process to spare must not end the workers that serve."""
    clock, starts = [1000.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def spawn() -> Any:
        starts.append(clock[0])
        if len(starts) in (3, 4):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return Process(), -1

    slot = supervisor._Slot("worker 0", spawn)
    slot.start()
    while len(starts) < 6:
        slot.tend()
        slot.terminate()
        assert not slot.runs()
        clock[0] += 0.05
    assert caplog.text.count("could not be started: [Errno 11]") == 2


def test_what_a_worker_said_counts_however_long_it_takes_to_end() -> None:
    class Lingering(Process):
        def wait(self, timeout: float | None = None) -> int:
            raise subprocess.TimeoutExpired("worker", timeout or 0)

    for said, told in ((b"out_of_memory: no room", "out_of_memory: no room"), (b"", "gave up before")):
        read, write = os.pipe()
        os.write(write, said)
        os.close(write)
        slot = supervisor._Slot("worker 0", lambda read=read: (Lingering(), read))  # type: ignore[misc]
        slot.start()
        with pytest.raises(WorkerFailed, match=told):
            slot.reported()
        slot._close_report()


def test_starting_a_worker_in_vain_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> Any:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    supervising = Supervisor(settings(tmp_path), snapshot(tmp_path), lambda port, grpc: None)
    monkeypatch.setattr("fairway.serving.supervisor.subprocess.Popen", full)
    with socket.socket() as listening:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(BlockingIOError):
            supervising.spawn(0, listening)
        assert len(os.listdir("/proc/self/fd")) == len(before)
    shutil.rmtree(supervising._folder)


def test_what_a_worker_is_told_is_json(tmp_path: Path) -> None:
    plan = WorkerPlan(
        settings=settings(tmp_path), folder="f", number=1, first=True, listen=3, report=4, lifeline=5
    )
    assert msgspec.json.decode(msgspec.json.encode(plan), type=WorkerPlan) == plan


def test_a_port_that_another_server_shares_among_its_workers_is_taken() -> None:
    first = supervisor._listen("127.0.0.1", 0, 2)
    port = first[0].getsockname()[1]
    try:
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            supervisor._listen("127.0.0.1", port, 2)
    finally:
        for listening in first:
            listening.close()


def test_without_the_extra_it_serves_http_only_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert supervisor.serves_grpc(Settings())
    assert not supervisor.serves_grpc(Settings(serving=ServingSettings(grpc=False)))
    assert caplog.messages == []
    monkeypatch.setattr(supervisor, "_is_installed", lambda name: name != "hpack")
    assert not supervisor.serves_grpc(Settings())
    [said] = caplog.messages
    assert "pip install 'fairway[grpc]'" in said


def test_any_free_port_is_meant_for_grpc_where_it_is_for_http() -> None:
    assert ServingSettings().listening_grpc_port == 8081
    assert ServingSettings(port=0).listening_grpc_port == 0
    assert ServingSettings(port=0, grpc_port=9000).listening_grpc_port == 9000
    assert not supervisor._is_installed("no_such_package.part")
