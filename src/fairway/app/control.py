"""The control process wired up: `fairway control`, and `python -m fairway.app.control PLAN` beside `fairway serve`."""

from __future__ import annotations

import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec

from fairway.app.control_jobs import Keys, jobs_of
from fairway.app.home import Home
from fairway.app.schedules import model_check
from fairway.app.servers import server_name
from fairway.control.desk import ScheduleDesk
from fairway.control.leadership import Leadership
from fairway.control.process import Order, Subprocess, WorkProcess
from fairway.control.scheduler import Scheduler
from fairway.control.server import ControlServer
from fairway.control.web.app import control_app
from fairway.control.web.gate import Gate
from fairway.control.web.service import Service
from fairway.control.web.session import Sessions, session_secret
from fairway.core.errors import FairwayError
from fairway.core.priority import give_way
from fairway.core.schedule import Schedule, ScheduleRun
from fairway.core.settings import Settings
from fairway.monitoring.alerts import Alerts
from fairway.monitoring.channels.opening import channel_settings
from fairway.security.access import Access
from fairway.security.tls import open_tls
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
    with Home(settings) as place, ExitStack() as opened:
        registry = place.registry
        store = opened.enter_context(closing(open_control(place.path, settings.registry)))
        windows = opened.enter_context(closing(open_windows(place.path, settings.registry)))
        alerts = opened.enter_context(closing(_open_alerts(place)))
        tls = open_tls(settings.tls)
        keys = registry.keys()
        check_binding(control.host, insecure=insecure, keys=bool(keys), tls=tls is not None)
        gate = Gate(
            Sessions(session_secret(place.path, control.session_key), seconds=control.session_seconds),
            host=control.host,
        )
        gate.access = Access(keys, open_admin=settings.access.open_admin)
        scheduler = _scheduler(settings, store)
        name = f"{socket.gethostname()} process {os.getpid()}"
        server = ControlServer(
            control,
            Leadership(store, name, lease_seconds=control.lease_seconds),
            (Keys(registry, gate, settings, tls), *jobs_of(settings, store, scheduler, counters)),
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
            server=server_name(settings),
        )
        server.run(
            control_app(service, gate),
            tls=tls,
            lifeline=lifeline,
            must_listen=must_listen,
            on_ready=lambda port: on_ready(_address(control.host, port, secure=tls is not None)),
        )


def _open_alerts(place: Home) -> Alerts:
    settings = place.settings
    store = open_alert_store(place.path, settings.registry)
    return Alerts(store, settings.alerts, channel_settings(settings.alerts))


def _scheduler(settings: Settings, store: ControlStore) -> Scheduler:
    control = settings.control
    return Scheduler(
        store,
        lambda schedule, run, held_until: _launch(settings, schedule, run, held_until),
        interval_seconds=control.interval_seconds,
        processes=control.processes,
        keep_runs=control.history_runs,
        stop_seconds=control.stop_seconds,
    )


def _address(host: str, port: int, *, secure: bool) -> str:
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


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
    give_way(plan.settings.control.nice)

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
