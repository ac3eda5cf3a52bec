"""From a snapshot of the registry to a plane that answers: load, check, connect the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import msgspec

from fairway.core.errors import FairwayError
from fairway.core.settings import Settings
from fairway.inference.live import Table
from fairway.inference.plane import Plane
from fairway.inference.record import Counts, Recorder
from fairway.inference.residents import Residents
from fairway.inference.stats import LogCounts
from fairway.registry.snapshot import ServedModel
from fairway.security.privacy import KEY_FIELD, Vault, open_vault, private_text
from fairway.stores.counters import Counters
from fairway.stores.label_log import LabelLog
from fairway.stores.log_segments import SegmentLog, writer_name

logger = logging.getLogger("fairway.log")


class Told(Counts, Protocol):
    """`Counts` that hear of segments that were removed too."""

    def removed(self, model: str, segments: int) -> None: ...


def open_plane(models: Iterable[ServedModel], counters: Counters, settings: Settings) -> Plane:
    """Loads and checks every model now, for a program that uses these and no others; raises what `load_version` raises
    for the first that fails."""
    serving = msgspec.structs.replace(settings.serving, load="start", memory_bytes=0)
    residents = Residents(counters, msgspec.structs.replace(settings, serving=serving))
    residents.open(models)
    return connect(residents, counters, settings)


def connect(residents: Residents, counters: Counters, settings: Settings) -> Plane:
    """A plane that serves what `residents` has in memory, now and later."""
    recorder = open_recorder(counters, settings) if settings.log.enabled else None
    plane = Plane(residents.table, counters, recorder, settings)

    def publish(table: Table) -> None:
        plane.table = table

    residents.publish = publish
    return plane


def open_recorder(counters: Counters, settings: Settings) -> Recorder:
    """The log of a process that answers, and the thread that writes it."""
    return recorder_of(settings, LogCounts(counters))


def recorder_of(settings: Settings, counts: Told) -> Recorder:
    """The log that the settings name, and the thread that writes it."""
    own = settings.log
    log = SegmentLog(
        Path(own.folder_at(settings.home)),
        segment_bytes=own.segment_bytes,
        disk_bytes=own.disk_bytes,
        segment_seconds=own.segment_seconds,
        on_removed=counts.removed,
    )
    return Recorder(log, own, counts, partial(_vault, settings), writer_name())


def open_label_log(settings: Settings) -> LabelLog:
    """Where this process writes labels; nothing is touched before the first."""
    how = settings.log.key_privacy
    vault = cache(partial(_vault, settings))

    def protect(key: str) -> str | None:
        return private_text(vault() if how in ("hash", "token") else None, KEY_FIELD, key, how)

    return LabelLog(Path(settings.log.folder_at(settings.home)), settings.log, protect)


def _vault(settings: Settings) -> Vault | None:
    """The key of private fields. Without it they are left out of the log, and the log of the server says so."""
    try:
        return open_vault(Path(settings.log.secret_at(settings.home)))
    except FairwayError as error:
        logger.error("private fields are left out of the prediction log: %s", error)
        return None
