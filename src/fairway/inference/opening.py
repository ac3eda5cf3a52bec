"""From a snapshot of the registry to a plane that answers: load, check, connect the log."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from fairway.core.settings import Settings
from fairway.inference.live import LiveModel, Table, load_version
from fairway.inference.plane import Plane
from fairway.inference.record import Recorder
from fairway.inference.stats import count_dropped
from fairway.registry.snapshot import ServedModel
from fairway.stores.counters import Counters
from fairway.stores.log_segments import SegmentLog


def open_plane(models: Iterable[ServedModel], counters: Counters, settings: Settings) -> Plane:
    """Loads and checks every model; raises what `load_version` raises for the first that fails."""
    table = Table((live_model(model, counters, settings) for model in models), settings.serving.default_model)
    recorder = None
    if settings.log.enabled:
        log = SegmentLog(
            Path(settings.home) / "log",
            segment_bytes=settings.log.segment_bytes,
            disk_bytes=settings.log.disk_bytes,
        )
        recorder = Recorder(log, settings.log, partial(count_dropped, counters))
    return Plane(table, counters, recorder, settings.serving.inline_seconds)


def live_model(model: ServedModel, counters: Counters, settings: Settings) -> LiveModel:
    """Versions that the route or an alias names are loaded now, the others when somebody asks."""
    name = model.route.model
    loaders = {
        served.version: partial(
            load_version,
            name,
            served.version,
            Path(served.directory),
            counters,
            settings.limits,
            threads=settings.serving.engine_threads,
        )
        for served in model.versions
    }
    aliases = {alias: served.version for served in model.versions for alias in served.aliases}
    wanted = {*model.route.versions, *aliases.values()}
    versions = {number: load() for number, load in loaders.items() if number in wanted}
    unloaded = {number: load for number, load in loaders.items() if number not in wanted}
    return LiveModel(model.route, versions, aliases, unloaded)
