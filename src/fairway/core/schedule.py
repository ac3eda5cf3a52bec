"""Schedules: what runs again and again, and what became of each time it did. Values only.

A run of a schedule:

    waiting  -> running                   a process is started for it, by the leader alone
    running  -> succeeded                 all rows are where they belong
    running  -> waiting                   failed with tries left, or its process or its leader went away: it goes on
                                          where it was
    running  -> failed                    no tries left, or trying again cannot help
    running, waiting -> cancelled         by hand, or with its schedule

Times are UTC in ISO 8601 with microseconds (`core.clock`), so that their texts sort as they do.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from fairway.core.errors import InvalidInput

RunState = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
RunKind = Literal["due", "caught up", "manual"]
ACTIVE: tuple[RunState, ...] = ("waiting", "running")
LONGEST_PAUSE_SECONDS = 3600.0
MOST_INTERRUPTIONS = 20
"""How often a run may lose its process to a stop of the control process, before that counts as failing."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch run scores; what is empty or 0 is left to its plan."""

    keep: tuple[str, ...] = ()
    """Input columns that go to the output."""
    join: bool = False
    """All input columns go to the output."""
    format: str = ""
    """Of output files: parquet, csv, jsonl, arrow; empty: by the output's name."""
    input_format: str = ""
    """Of input files; empty: by their names."""
    encoding: str = "utf-8"
    """Of CSV input."""
    delimiter: str = ""
    """Of CSV input; empty: what its header shows."""
    rows_per_file: int = 0
    """About so many rows in each file of a folder."""
    file_size: str = ""
    """Begin another file of a folder from about there on, such as 128MB."""
    compression: str = ""
    """Of output files; empty: snappy for Parquet, else none."""
    max_errors: str = ""
    """Stop when more rows are rejected: 1%, or a number; empty: never."""
    workers: int = 0
    """Scorers; 0: one a core."""
    log: str = ""
    """A kept column: predictions go to the log under its values, for the monitor and for labels; empty: they do not."""
    overwrite: bool = False
    """Replace what the output holds."""
    engine: Literal["local", "spark", "ray"] = "local"
    """What scores: this machine, or a cluster."""
    address: str = ""
    """Of a Spark or Ray cluster; empty: as `[batch]` says."""


class BatchWork(BatchOptions, frozen=True, kw_only=True, tag="batch", omit_defaults=True):
    """`fairway batch run`. `input` and `output` may hold placeholders such as `{date}`."""

    model: str
    input: str
    output: str


class PrecomputeWork(msgspec.Struct, frozen=True, kw_only=True, tag="precompute", omit_defaults=True):
    """`fairway precompute`. `files` may hold placeholders; `store` and `ttl_seconds` None: as `[hybrid]` says."""

    model: str
    files: str
    key: str
    store: str | None = None
    ttl_seconds: float | None = None
    allow_empty: bool = False


Work = BatchWork | PrecomputeWork


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`cron` has five fields, or six with seconds first, on the clocks of `time_zone`. A failed run is tried `retries`
    times again, after `retry_seconds`, then twice as long each time. `source` is "fairway.toml" for one of the file,
    whose definition only the file changes."""

    name: str
    cron: str
    work: Work
    time_zone: str = "UTC"
    allow_overlap: bool = False
    retries: int = 3
    retry_seconds: float = 60.0
    source: Literal["registry", "fairway.toml"] = "registry"
    changed: str = ""
    changed_by: str = ""

    def pause_seconds(self, attempt: int) -> float:
        """How long to wait after the failed try number `attempt` (from 1)."""
        return float(min(self.retry_seconds * 2.0 ** min(attempt - 1, 30), LONGEST_PAUSE_SECONDS))


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is kept. Due times up to `settled` are dealt with; runs that were due up to `forgotten` may no
    longer be in the history, so nothing due then is run."""

    schedule: Schedule
    paused: bool = False
    settled: str = ""
    forgotten: str = ""

    @property
    def name(self) -> str:
        return self.schedule.name


class ScheduleRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One time that a schedule was run. `id` is given by the store.

    `attempt` counts the tries begun; `interruptions` those of them that ended only because the control process did.
    `missed` is how many earlier due times this run stands for too. `next_attempt` is when a waiting run may begin.
    `batch_run` is the name for `fairway batch show`. `token` is that of the leader who changed the run last.
    """

    schedule: str
    model: str
    due: str
    kind: RunKind
    state: RunState
    created: str
    next_attempt: str
    id: int = 0
    attempt: int = 0
    interruptions: int = 0
    missed: int = 0
    started: str = ""
    ended: str = ""
    reason: str = ""
    batch_run: str = ""
    rows: int = 0
    rejected: int = 0
    who: str = ""
    token: int = 0

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE


def check_schedule_name(name: str) -> str:
    """`name` unchanged, or InvalidInput: names stand in URLs."""
    if not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} is not a name for a schedule: use letters, digits, '.', '_' and '-', starting with a letter or "
            "digit."
        )
    return name
