"""What the control process does again and again: a feature that has something to do adds it to `jobs_of`."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import msgspec

from fairway.app.alerts import HomeAlerts
from fairway.app.servers import ServerWatch
from fairway.app.settings import read_settings
from fairway.control.definitions import synchronise
from fairway.control.jobs import PeriodicJob, Turn
from fairway.control.scheduler import Scheduler
from fairway.control.web.gate import Gate
from fairway.core.errors import NotFound, SettingsError
from fairway.core.settings import Settings
from fairway.monitoring.sender import Sender
from fairway.registry.registry import Registry
from fairway.security.access import Access
from fairway.security.tls import Tls
from fairway.stores.control import ControlStore

logger = logging.getLogger("fairway.control")


def jobs_of(
    settings: Settings, store: ControlStore, scheduler: Scheduler, counters: Path | None
) -> tuple[PeriodicJob, ...]:
    """What is done again and again, beside keeping the keys. `counters` are those of the server it stands beside."""
    watching: tuple[PeriodicJob, ...] = (Watching(settings),) if settings.monitoring.enabled else ()
    if settings.monitoring.enabled and counters is not None:
        watching = (*watching, ServerWatch(settings, counters, dict(os.environ)))
    return (
        Definitions(store, Path(settings.home)),
        scheduler,
        Telling(settings),
        Compaction(settings),
        *watching,
    )


class Definitions(PeriodicJob):
    """The schedules of fairway.toml are those of the registry, within seconds of a change."""

    name = "fairway.toml"
    interval_seconds = 2.0
    leader_only = True

    def __init__(self, store: ControlStore, home: Path) -> None:
        self._store = store
        self._home = home
        self._wrong: list[str] = []

    def run(self, turn: Turn) -> None:
        wrong = synchronise(self._store, read_settings(self._home).schedules, self._home)
        for said in wrong:
            if said not in self._wrong:
                logger.error("%s", said)
        self._wrong = wrong
        if wrong:
            raise SettingsError(wrong[0])


class Keys(PeriodicJob):
    """Of every control process: keys made and revoked, and TLS files, count from the next turn on."""

    name = "keys and certificates"
    interval_seconds = 1.0
    leader_only = False

    def __init__(self, registry: Registry, gate: Gate, settings: Settings, tls: Tls | None) -> None:
        self._registry = registry
        self._gate = gate
        self._open_admin = settings.access.open_admin
        self._tls = tls
        self._revision = -1

    def run(self, turn: Turn) -> None:
        if self._tls is not None:
            self._tls.refresh()
        if self._registry.revision() != self._revision:
            self._revision, keys = self._registry.keys_at()
            self._gate.access = Access(keys, open_admin=self._open_admin)


class Telling(PeriodicJob):
    """Of every control process: the channels of alerts are told what is in the outbox. Of several
    processes one at a time sends to a channel."""

    name = "alerts"
    interval_seconds = 5.0
    leader_only = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alerts: HomeAlerts | None = None
        self._sender: Sender | None = None

    def run(self, turn: Turn) -> None:
        if self._alerts is None or self._sender is None:
            self._alerts = HomeAlerts(self._settings, os.environ)
            self._sender = self._alerts.sender()
            self._sender.start()
        self._alerts.alerts.observe()  # reminders and silences that end need only time

    def close(self, turn: Turn) -> None:
        if self._sender is not None:
            self._sender.stop()
        if self._alerts is not None:
            self._alerts.close()


class Compaction(PeriodicJob):
    """Of every control process, for the log that this machine's workers write: segments become Parquet, and
    what is too old or too much goes."""

    name = "prediction log"
    interval_seconds = 60.0
    leader_only = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, turn: Turn) -> None:
        import_module("fairway.app.log").compact_log(self._settings)  # pyarrow, which pages need not wait for


class Watching(PeriodicJob):
    """Keeps the monitor's process running while this control process leads."""

    name = "monitor"
    interval_seconds = 1.0
    leader_only = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, turn: Turn) -> None:
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            self._process.communicate()
            self._process = None
            if code:
                raise NotFound(f"the monitor's process ended with exit code {code}; its output says why.")
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fairway.app.watch"],
                stdin=subprocess.PIPE,
                stdout=2,
                start_new_session=True,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(msgspec.json.encode(self._settings) + b"\n")
            self._process.stdin.flush()
            os.set_blocking(self._process.stdin.fileno(), False)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, BlockingIOError):  # it has ended, or has not listened for an hour
            os.write(self._process.stdin.fileno(), f"{turn.held_until}\n".encode())

    def lose(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            process.kill()
            process.communicate()

    def close(self, turn: Turn) -> None:
        self.lose()
