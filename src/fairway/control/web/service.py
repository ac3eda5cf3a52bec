"""What handlers may use of the control process. `app/control.py` fills it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from fairway.control.desk import ScheduleDesk
from fairway.control.jobs import JobState
from fairway.core.route import Route
from fairway.core.settings import Settings
from fairway.core.version import Change, ModelVersion
from fairway.monitoring.alerts import Alerts
from fairway.registry.registry import ModelSummary
from fairway.stores.windows import WindowStore


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """How this control process is. `leader` names the process that leads, this one or another; `registry` is what is
    wrong with the database, or empty."""

    leads: bool
    leader: str
    registry: str
    jobs: tuple[JobState, ...]


class Models(Protocol):
    """The registry, as far as it is shown."""

    def models(self) -> tuple[ModelSummary, ...]: ...

    def versions(self, name: str) -> tuple[ModelVersion, ...]: ...

    def route(self, name: str) -> Route | None: ...

    def history(self, name: str, limit: int | None = 100) -> tuple[Change, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Service:
    """`batch_runs` lists runs as `fairway batch list` does; `batch_run` gives one with its report. `windows` are what monitors
    saw, `alerts` the incidents that came of it; `server` names the machine whose server's errors are shown."""

    settings: Settings
    models: Models
    desk: ScheduleDesk
    alerts: Alerts
    windows: WindowStore
    state: Callable[[], ControlState]
    batch_runs: Callable[[], Sequence[Any]]
    batch_run: Callable[[str], Any]
    server: str = ""
