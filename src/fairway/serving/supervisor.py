"""The parent of the serving processes: opens the sockets, starts the workers and the watcher of the registry, restarts
the dead, stops them all.

It holds the listening sockets itself, one a worker (SO_REUSEPORT), so connections that wait on a dead worker's
socket are taken up by its successor. It imports no model, no numpy and no database.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec

from fairway.core.errors import FairwayError, InsecureBinding, Unavailable
from fairway.core.settings import Settings
from fairway.registry.snapshot import ServingSnapshot
from fairway.serving.folder import ServerFolder

logger = logging.getLogger("fairway.supervisor")

_MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "2097152",
}
"""glibc's own choices, an arena a thread and freed memory kept for later, cost a worker 20 MB and more under load."""
_POLL_SECONDS = 0.05
_START_SECONDS = 120.0
_END_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_CONTROL_PAUSE_SECONDS = 60.0
_STEADY_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""What a worker has beyond `drain_seconds` to write its log and end."""
_HURRY_SECONDS = 2.0


class WorkerFailed(FairwayError):
    """A worker could not start; the message is the worker's own."""

    code = "worker_failed"


def check_binding(host: str, *, insecure: bool, keys: bool = False, tls: bool = False) -> None:
    """Refuses to listen beyond loopback while there are no keys, and so no authentication; warns when keys, or what
    the models are asked, would travel there in the clear. `insecure` says that something else takes care of it."""
    if insecure or is_loopback(host):
        return
    if not keys:
        raise InsecureBinding(
            f"refusing to listen on {host}: anybody who reaches it could use the models, and no authentication is on.",
            hint="Make a key with: fairway keys create NAME. Or listen on 127.0.0.1, or pass --insecure if something "
            "in front of Fairway checks who is calling.",
        )
    if not tls:
        logger.warning(
            "listening on %s without TLS: API keys can be read on the way. Give --tls-cert and --tls-key, or "
            "--insecure if something in front of Fairway speaks TLS",
            host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it. A name other than `localhost` may be anything."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Supervisor:
    """`run` serves until SIGTERM or SIGINT. `on_ready(port, grpc_port)` is called once, when every worker answers;
    `grpc_port` is None where gRPC is not served."""

    def __init__(
        self,
        settings: Settings,
        snapshot: ServingSnapshot,
        on_ready: Callable[[int, int | None], None],
        *,
        control: str = "",
        quiet: bool = False,
    ) -> None:
        """`control` is the module of the process that stands beside the workers, started once they are ready; none
        where it is empty. `quiet` has it print nothing."""
        self._control = control
        self._quiet = quiet
        self._settings = settings
        self._snapshot = snapshot
        self._on_ready = on_ready
        self._stopping = False
        self._hurry = False
        self._running = False
        self._folder = Path(tempfile.mkdtemp(prefix="fairway-"))
        self._lifeline_read, self._lifeline_write = os.pipe()

    def run(self) -> None:
        serving = self._settings.serving
        sockets: list[socket.socket] = []
        grpc_sockets: list[socket.socket] = []
        before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
        try:
            sockets = _listen(serving.host, serving.port, serving.workers)
            if serves_grpc(self._settings):
                grpc_sockets = _listen(
                    serving.host, serving.listening_grpc_port, serving.workers, "--grpc-port"
                )
            ServerFolder(self._folder).write_snapshot(self._snapshot)
            slots: list[_Slot] = [
                _Slot(
                    f"worker {i}",
                    partial(self.spawn, i, listening, grpc_sockets[i] if grpc_sockets else None),
                )
                for i, listening in enumerate(sockets)
            ]
            for name in before:
                signal.signal(name, self._stop)
            try:
                for slot in slots:
                    slot.start()
                self._await_ready(slots)
                if not self._stopping:
                    self._running = True
                    grpc_port = grpc_sockets[0].getsockname()[1] if grpc_sockets else None
                    self._on_ready(sockets[0].getsockname()[1], grpc_port)
                    slots.append(_Slot("the watcher of the registry", self.spawn_watcher))
                    slots[-1].try_to_start()
                    if self._control:
                        slots.append(
                            _Slot("the control process", self.spawn_control, _LONGEST_CONTROL_PAUSE_SECONDS)
                        )
                        slots[-1].try_to_start()
                while not self._stopping:
                    for slot in slots:
                        slot.tend()
                    time.sleep(_POLL_SECONDS)
            finally:
                self._end(slots)
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
            for listening in [*sockets, *grpc_sockets]:
                listening.close()
            os.close(self._lifeline_read)
            os.close(self._lifeline_write)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._hurry = self._stopping
        self._stopping = True

    def _await_ready(self, slots: list[_Slot]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        for slot in slots:
            while not self._stopping and not slot.reported():
                if time.monotonic() > deadline:
                    raise WorkerFailed(f"a worker was not ready within {_START_SECONDS:.0f} s.")

    def _end(self, slots: list[_Slot]) -> None:
        """SIGTERM to all, a second one when somebody is in a hurry, and SIGKILL to those that did not stop in time."""
        deadline = time.monotonic() + self._settings.serving.drain_seconds + GRACE_SECONDS
        for slot in slots:
            slot.terminate()
        hurried = False
        while any(slot.runs() for slot in slots) and time.monotonic() < deadline:
            if self._hurry and not hurried:
                hurried = True
                deadline = min(deadline, time.monotonic() + _HURRY_SECONDS)
                for slot in slots:
                    slot.terminate()
            time.sleep(_POLL_SECONDS)
        for slot in slots:
            slot.end()

    def spawn(
        self, number: int, listening: socket.socket, grpc: socket.socket | None = None
    ) -> tuple[subprocess.Popen[bytes], int]:
        """Starts a worker; returns the process and the pipe it reports on."""
        report_read, report_write = os.pipe()
        plan = {
            "settings": self._settings,
            "folder": str(self._folder),
            "number": number,
            "first": not self._running,
            "listen": listening.fileno(),
            "grpc_listen": None if grpc is None else grpc.fileno(),
            "report": report_write,
            "lifeline": self._lifeline_read,
        }
        path = self._folder / f"worker-{number}.json"
        try:
            path.write_bytes(msgspec.json.encode(plan))
            process = subprocess.Popen(
                [sys.executable, "-m", "fairway.serving.worker", str(path)],
                pass_fds=(
                    listening.fileno(),
                    report_write,
                    self._lifeline_read,
                    *(() if grpc is None else (grpc.fileno(),)),
                ),
                stdin=subprocess.DEVNULL,
                env={**_MALLOC, **os.environ},
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then drains the workers
            )
        except OSError:
            os.close(report_read)
            raise
        finally:
            os.close(report_write)
        return process, report_read

    def spawn_watcher(self) -> tuple[subprocess.Popen[bytes], int]:
        """Starts the process that watches the registry. It reports into the folder, not on a pipe."""
        plan = {"settings": self._settings, "folder": str(self._folder), "lifeline": self._lifeline_read}
        path = self._folder / "watcher.json"
        path.write_bytes(msgspec.json.encode(plan))
        path.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-m", "fairway.serving.watcher", str(path)],
            pass_fds=(self._lifeline_read,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        return process, -1

    def spawn_control(self) -> tuple[subprocess.Popen[bytes], int]:
        """Starts the control process, whose life or death is nothing to the workers."""
        plan = {"settings": self._settings, "lifeline": self._lifeline_read, "quiet": self._quiet}
        path = self._folder / "control.json"
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.encode(plan))
        process = subprocess.Popen(
            [sys.executable, "-m", self._control, str(path)],
            pass_fds=(self._lifeline_read,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        return process, -1


class _Slot:
    """A place for one process: what starts it, the current one, and how long to wait before the next one."""

    def __init__(
        self,
        name: str,
        spawn: Callable[[], tuple[subprocess.Popen[bytes], int]],
        longest_pause: float = _LONGEST_PAUSE_SECONDS,
    ) -> None:
        """`spawn` gives the process and the pipe it reports on, -1 for none."""
        self._longest_pause = longest_pause
        self._name = name
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._report = -1
        self._started = 0.0
        self._pause = 0.0
        self._start_at: float | None = None

    def start(self) -> None:
        self._process, self._report = self._spawn()
        self._started = time.monotonic()
        self._start_at = None

    def try_to_start(self) -> None:
        """As `start`. A machine that has no process, memory, file or room to spare is asked again later: what runs already
        goes on serving."""
        try:
            self.start()
        except OSError as error:
            self._pause = self._longer_pause()
            logger.warning(
                "%s could not be started: %s; trying again in %.1f s", self._name, error, self._pause
            )
            self._start_at = time.monotonic() + self._pause

    def _longer_pause(self) -> float:
        return min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), self._longest_pause)

    def reported(self) -> bool:
        """True once the worker is ready. Raises WorkerFailed with what it said, if it failed."""
        assert self._process is not None
        readable, _, _ = select.select([self._report], [], [], _POLL_SECONDS)
        if not readable:
            return False
        said = os.read(self._report, 65536).decode(errors="replace").strip()
        if said == "ready":
            os.close(self._report)
            self._report = -1
            return True
        try:
            code = self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:  # what it has said counts, however long its threads take to end
            raise WorkerFailed(said or "a worker gave up before it was ready; its output says why.") from None
        raise WorkerFailed(
            said or f"a worker ended with exit code {code} before it was ready; its output says why."
        )

    def tend(self) -> None:
        """Notices a dead worker and starts another: at once, then after ever longer pauses if it keeps dying."""
        now = time.monotonic()
        if self._start_at is not None:
            if now >= self._start_at:
                self.try_to_start()
            return
        if self._process is None or self._process.poll() is None:
            return
        steady = now - self._started > _STEADY_SECONDS
        self._pause = 0.0 if steady else self._longer_pause()
        logger.warning(
            "%s ended with %s; starting another in %.1f s%s",
            self._name,
            self._process.returncode,
            self._pause,
            self._last_words(),
        )
        self._close_report()
        self._start_at = now + self._pause

    def _last_words(self) -> str:
        """Why a dead worker could not start, if it said so."""
        said = os.read(self._report, 65536).decode(errors="replace").strip() if self._report >= 0 else ""
        return "" if said in ("", "ready") else f": {said}"

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """Kills the process if it has not stopped."""
        self._close_report()
        if self._process is not None and self.runs():
            logger.warning("%s did not stop in time and is killed", self._name)
            self._process.kill()
            self._process.wait()

    def _close_report(self) -> None:
        if self._report >= 0:
            os.close(self._report)
            self._report = -1


def serves_grpc(settings: Settings) -> bool:
    """Whether gRPC is wanted and can be had; says so when it is missing."""
    if not settings.serving.grpc:
        return False
    missing = [name for name in ("hpack", "google.protobuf") if not _is_installed(name)]
    if missing:
        logger.warning("serving HTTP only; for gRPC: pip install 'fairway[grpc]'")
    return not missing


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is part of
        return False


def _listen(host: str, port: int, count: int, option: str = "--port") -> list[socket.socket]:
    """`count` listening sockets on one address; port 0 lets the system choose. `option` is what chooses the port."""
    sockets: list[socket.socket] = []
    try:
        if (
            count > 1 and port
        ):  # sockets that share a port would share it with another server's too, unnoticed
            _bound(host, port, shared=False).close()
        for _ in range(count):
            sockets.append(_bound(host, port, shared=count > 1))
            sockets[-1].listen(2048)
            port = sockets[-1].getsockname()[1]
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror or error}.",
            hint=f"Stop what listens there, or choose another port with {option}.",
        ) from error
    return sockets


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
