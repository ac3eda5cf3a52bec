"""From a snapshot of the registry to a plane that answers: load, check, connect the log."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec

from fairway.core.settings import Settings
from fairway.inference.live import Table
from fairway.inference.plane import Plane
from fairway.inference.record import Recorder
from fairway.inference.residents import Residents
from fairway.inference.stats import count_dropped
from fairway.registry.snapshot import ServedModel
from fairway.stores.counters import Counters
from fairway.stores.log_segments import SegmentLog


def open_plane(models: Iterable[ServedModel], counters: Counters, settings: Settings) -> Plane:
    """Loads and checks every model now, for a program that uses these and no others; raises what `load_version` raises
    for the first that fails."""
    serving = msgspec.structs.replace(settings.serving, load="start", memory_bytes=0)
    residents = Residents(counters, msgspec.structs.replace(settings, serving=serving))
    residents.open(models)
    return connect(residents, counters, settings)


def connect(residents: Residents, counters: Counters, settings: Settings) -> Plane:
    """A plane that serves what `residents` has in memory, now and later."""
    recorder = None
    if settings.log.enabled:
        log = SegmentLog(
            Path(settings.home) / "log",
            segment_bytes=settings.log.segment_bytes,
            disk_bytes=settings.log.disk_bytes,
        )
        recorder = Recorder(log, settings.log, partial(count_dropped, counters))
    plane = Plane(residents.table, counters, recorder, settings)

    def publish(table: Table) -> None:
        plane.table = table

    residents.publish = publish
    return plane
