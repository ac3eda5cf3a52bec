"""One serving process: loads what the snapshot names, listens on the socket it was given, says when it is ready.

Started by the supervisor as `python -m fairway.serving.worker PLAN`; see `WorkerPlan`. It never touches the
registry: a snapshot of it is enough, so serving goes on when the registry is away.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import uvicorn

from fairway.core.errors import FairwayError
from fairway.core.settings import Settings
from fairway.inference.live import LiveModel, Table, load_version
from fairway.inference.plane import Plane
from fairway.inference.record import Recorder
from fairway.inference.stats import count_dropped
from fairway.registry.snapshot import ServedModel, ServingSnapshot
from fairway.serving.app import DataApp
from fairway.serving.protocol import protocol_for
from fairway.stores.counters import Counters
from fairway.stores.log_segments import SegmentLog

logger = logging.getLogger("fairway.serving")


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells a worker. `listen` and `report` are inherited file descriptors; the worker writes
    one line to `report`: `ready`, or what went wrong. `lifeline` closes when the supervisor dies."""

    settings: Settings
    snapshot: ServingSnapshot
    counters: str
    listen: int
    report: int
    lifeline: int


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WorkerPlan)
    try:
        plane, recorder = build_plane(plan)
    except FairwayError as error:
        os.write(plan.report, f"{error.code}: {error}\n".encode())
        return 1
    sys.setswitchinterval(0.0005)  # the log's thread must hand the interpreter back within a request's time
    gc.collect()
    gc.freeze()  # models live as long as the process: no collection need look at them again
    gc.set_threshold(50_000, 20, 20)
    np.seterr(all="ignore")
    try:
        _serve(plan, plane)
    finally:
        if recorder is not None:
            recorder.close()
    return 0


def build_plane(plan: WorkerPlan) -> tuple[Plane, Recorder | None]:
    """Loads and checks every model of the snapshot."""
    settings = plan.settings
    counters = Counters(Path(plan.counters))
    table = Table(live_model(model, counters, settings) for model in plan.snapshot.models)
    recorder = None
    if settings.log.enabled:
        log = SegmentLog(
            Path(settings.home) / "log",
            segment_bytes=settings.log.segment_bytes,
            disk_bytes=settings.log.disk_bytes,
        )
        recorder = Recorder(log, settings.log, partial(count_dropped, counters))
    return Plane(table, counters, recorder, settings.serving.inline_seconds), recorder


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


def _serve(plan: WorkerPlan, plane: Plane) -> None:
    settings = plan.settings
    app = DataApp(plane, settings.serving, settings.limits, Path(plan.counters))
    config = uvicorn.Config(
        app,
        http=protocol_for(app),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.serving.drain_seconds),
        backlog=2048,
    )
    config.server_header = False
    with socket.socket(fileno=plan.listen) as listening:
        _Server(config, app, plan).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which reports when it listens and stops when the supervisor is gone."""

    def __init__(self, config: uvicorn.Config, app: DataApp, plan: WorkerPlan) -> None:
        super().__init__(config)
        self._app = app
        self._plan = plan

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._plan.lifeline, self._orphaned)
        os.write(self._plan.report, b"ready\n")
        os.close(self._plan.report)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.ready = False
        await super().shutdown(sockets)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._plan.lifeline)
        self.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
