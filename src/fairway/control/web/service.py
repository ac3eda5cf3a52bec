"""What handlers may use of the control process. `app/control.py` fills it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from fairway.control.desk import ScheduleDesk
from fairway.control.jobs import JobState
from fairway.core.settings import Settings
from fairway.registry.registry import ModelSummary


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


@dataclass(frozen=True, kw_only=True)
class Service:
    """`batch_runs` lists runs as `fairway batch list` does; `batch_run` gives one with its report."""

    settings: Settings
    models: Models
    desk: ScheduleDesk
    state: Callable[[], ControlState]
    batch_runs: Callable[[], Sequence[Any]]
    batch_run: Callable[[str], Any]
