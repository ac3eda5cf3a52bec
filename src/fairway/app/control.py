"""The control process wired up: `fairway control`, and `python -m fairway.app.control PLAN` beside `fairway serve`.

`jobs_of` is the list of what is done again and again: a feature that has something to do adds it there.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec

from fairway.app.alerts import HomeAlerts
from fairway.app.home import Home
from fairway.app.schedules import model_check
from fairway.app.servers import ServerWatch
from fairway.app.settings import read_settings
from fairway.control.definitions import synchronise
from fairway.control.desk import ScheduleDesk
from fairway.control.jobs import PeriodicJob, Turn
from fairway.control.leadership import Leadership
from fairway.control.process import Order, Subprocess, WorkProcess
from fairway.control.scheduler import Scheduler
from fairway.control.server import ControlServer
from fairway.control.web.app import control_app
from fairway.control.web.gate import Gate
from fairway.control.web.service import Service
from fairway.control.web.session import Sessions, session_secret
from fairway.core.errors import FairwayError, NotFound, SettingsError
from fairway.core.schedule import Schedule, ScheduleRun
from fairway.core.settings import Settings
from fairway.monitoring.alerts import Alerts
from fairway.monitoring.channels.opening import channel_settings
from fairway.monitoring.sender import Sender
from fairway.registry.registry import Registry
from fairway.security.access import Access
from fairway.security.tls import Tls, open_tls
from fairway.serving.folder import ServerFolder
from fairway.serving.logs import set_up_logging
from fairway.serving.supervisor import check_binding
from fairway.stores.control import ControlStore
from fairway.stores.opening import open_alerts as open_alert_store
from fairway.stores.opening import open_control, open_windows

logger = logging.getLogger("fairway.control")


class ControlPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor of `fairway serve` tells the control process beside it. `lifeline` closes when the supervisor
    dies; `quiet` says that its output is for programs."""

    settings: Settings
    lifeline: int
    quiet: bool


class Definitions:
    """A `PeriodicJob`: the schedules of fairway.toml are those of the registry, within seconds of a change."""

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

    def lose(self) -> None:
        return

    def close(self, turn: Turn) -> None:
        return


class Keys:
    """A `PeriodicJob` of every control process: keys made and revoked, and TLS files, count from the next turn on."""

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

    def lose(self) -> None:
        return

    def close(self, turn: Turn) -> None:
        return


class Telling:
    """A `PeriodicJob` of every control process: the channels of alerts are told what is in the outbox. Of several
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

    def lose(self) -> None:
        return

    def close(self, turn: Turn) -> None:
        if self._sender is not None:
            self._sender.stop()
        if self._alerts is not None:
            self._alerts.close()


class Compaction:
    """A `PeriodicJob` of every control process, for the log that this machine's workers write: segments become Parquet, and
    what is too old or too much goes."""

    name = "prediction log"
    interval_seconds = 60.0
    leader_only = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, turn: Turn) -> None:
        import_module("fairway.app.log").compact_log(self._settings)  # pyarrow, which pages need not wait for

    def lose(self) -> None:
        return

    def close(self, turn: Turn) -> None:
        return


class Watching:
    """A `PeriodicJob`: keeps the monitor's process running while this control process leads."""

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


def run_control(
    settings: Settings,
    *,
    insecure: bool = False,
    lifeline: int | None = None,
    must_listen: bool = True,
    counters: Path | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Until it is told to stop. `on_ready` is told the address once pages are served. Raises InsecureBinding,
    SettingsError, Unavailable and what opening the registry raises."""
    control = settings.control
    _limit(control.memory_bytes)
    with Home(settings) as place:
        registry = place.registry
        store = open_control(place.path, settings.registry)
        windows = open_windows(place.path, settings.registry)
        alerts = Alerts(
            open_alert_store(place.path, settings.registry),
            settings.alerts,
            channel_settings(settings.alerts),
        )
        tls = open_tls(settings.tls)
        keys = registry.keys()
        check_binding(control.host, insecure=insecure, keys=bool(keys), tls=tls is not None)
        gate = Gate(
            Sessions(session_secret(place.path, control.session_key), seconds=control.session_seconds),
            host=control.host,
        )
        scheduler = Scheduler(
            store,
            lambda schedule, run, held_until: _launch(settings, schedule, run, held_until),
            interval_seconds=control.interval_seconds,
            processes=control.processes,
            keep_runs=control.history_runs,
            stop_seconds=control.stop_seconds,
        )
        key_keeper = Keys(registry, gate, settings, tls)
        leadership = Leadership(
            store, f"{socket.gethostname()} process {os.getpid()}", lease_seconds=control.lease_seconds
        )
        server = ControlServer(
            control,
            leadership,
            (key_keeper, *jobs_of(settings, store, scheduler, counters)),
            on_renewed=scheduler.beat,
        )
        service = Service(
            settings=settings,
            models=registry,
            desk=ScheduleDesk(store, model_check(place)),
            alerts=alerts,
            windows=windows,
            state=lambda: server.state,
            batch_runs=lambda: _batch_runs().list_runs(place.path),
            batch_run=lambda run: _batch_runs().show_run(run, place.path),
            server=socket.gethostname(),
        )
        gate.access = Access(keys, open_admin=settings.access.open_admin)
        shown = f"[{control.host}]" if ":" in control.host else control.host
        scheme = "http" if tls is None else "https"
        try:
            server.run(
                control_app(service, gate),
                tls=tls,
                lifeline=lifeline,
                must_listen=must_listen,
                on_ready=lambda port: on_ready(f"{scheme}://{shown}:{port}"),
            )
        finally:
            for opened in (alerts, windows, store):
                opened.close()


def _launch(settings: Settings, schedule: Schedule, run: ScheduleRun, held_until: float) -> WorkProcess:
    order = Order(home=settings.home, schedule=schedule, run=run, held_until=held_until)
    return Subprocess([sys.executable, "-m", "fairway.app.scheduled"], order)


def _batch_runs() -> ModuleType:
    """Brings pyarrow, 40 MB that only who looks at batch runs needs."""
    return import_module("fairway.app.batch_runs")


def _limit(memory_bytes: int) -> None:
    """This process's own; the processes it starts lift it for themselves."""
    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def main() -> int:
    """Beside `fairway serve`: gives way to the workers, says little, and needs no port to do its jobs."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ControlPlan)
    set_up_logging(plan.settings.telemetry, "control")
    os.nice(plan.settings.control.nice)

    def ready(address: str) -> None:
        if not plan.quiet:
            sys.stdout.write(f"control  {address}\n")
            sys.stdout.flush()

    try:
        counters = ServerFolder(Path(sys.argv[1]).parent).counters
        run_control(
            plan.settings, lifeline=plan.lifeline, must_listen=False, counters=counters, on_ready=ready
        )
    except FairwayError as error:
        logger.error("no control process: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
