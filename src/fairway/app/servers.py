"""Watches errors, saturation and the log of the server that a control process stands beside."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from fairway.app.alerts import HomeAlerts
from fairway.app.monitor_files import server_codes
from fairway.control.jobs import PeriodicJob, Turn
from fairway.core.clock import utc_text
from fairway.core.settings import ModelSettings, Settings
from fairway.stores.counters import read_totals
from fairway.stores.opening import open_windows
from fairway.stores.windows import WindowStore


def server_name(settings: Settings) -> str:
    """The machine and the port, as several servers of a machine may share a home; a port that is chosen at the start is no name."""
    host, port = socket.gethostname(), settings.serving.port
    return f"{host}:{port}" if port else host


class ServerWatch(PeriodicJob):
    """The counters of `folder`'s workers become a step of a series every window, judged by those before."""

    name = "server"
    leader_only = False

    def __init__(
        self,
        settings: Settings,
        counters: Path,
        environ: dict[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.interval_seconds = min(5.0, settings.monitoring.window_seconds / 2)
        self._settings = settings
        self._counters = counters
        self._environ = environ
        self._clock = clock
        self._store: WindowStore | None = None
        self._alerts: HomeAlerts | None = None
        self._codes = server_codes()
        self._server = server_name(settings)
        self._begun: float | None = None
        self._before: dict[str, Any] = {}
        self._fullest: dict[str, float] = {}

    def run(self, turn: Turn) -> None:
        servers = import_module(
            "fairway.monitoring.watch.servers"
        )  # numpy, which a process that has just begun spares
        now = self._clock()
        seconds = self._settings.monitoring.window_seconds
        slot = math.floor(now / seconds) * seconds
        counted = servers.count_models(read_totals(self._counters), self._codes)
        for model, seen in counted.items():
            own = self._settings.models.get(model, ModelSettings())
            room = own.queue or self._settings.serving.queue
            full = min(1.0, seen.waiting / max(room * self._settings.serving.workers, 1))
            self._fullest[model] = max(self._fullest.get(model, 0.0), full)
        if self._begun is None or slot < self._begun:  # the first time, or the clock was put back
            self._begun, self._before = slot, counted
        elif slot > self._begun:
            self._end_window(servers, counted, self._begun, slot)
            self._begun, self._before, self._fullest = slot, counted, {}

    def _end_window(self, servers: Any, counted: dict[str, Any], begun: float, ended: float) -> None:
        store, alerts = self._opened()
        windows = []
        for model, seen in counted.items():
            before = self._before.get(model, servers.Counted())
            name = f"server {self._server} of {model}"
            known = store.mark(name)
            series = msgspec.json.decode(known, type=tuple[servers.Step, ...]) if known else ()
            step = servers.Step(
                end=_text(ended),
                requests=max(0.0, seen.requests - before.requests),
                failed=max(0.0, seen.failed - before.failed),
                saturation=self._fullest.get(model, 0.0),
            )
            series = servers.add_step(series, step)
            store.put_mark(name, msgspec.json.encode(series).decode())
            dropped = max(0.0, seen.dropped - before.dropped)
            windows.append(servers.server_window(model, self._server, _text(begun), series, dropped))
        alerts.alerts.observe(windows)

    def _opened(self) -> tuple[WindowStore, HomeAlerts]:
        if self._store is None or self._alerts is None:
            self._store = open_windows(Path(self._settings.home), self._settings.registry)
            self._alerts = HomeAlerts(self._settings, self._environ)
        return self._store, self._alerts

    def close(self, turn: Turn) -> None:
        if self._store is not None:
            self._store.close()
        if self._alerts is not None:
            self._alerts.close()


def _text(moment: float) -> str:
    return utc_text(datetime.fromtimestamp(moment, UTC))
