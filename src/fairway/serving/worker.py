"""One serving process: loads what the snapshot names, listens on the socket it was given, says when it is ready.

Started by the supervisor as `python -m fairway.serving.worker PLAN`; see `WorkerPlan`. It never touches the
registry: a snapshot of it is enough, so serving goes on when the registry is away.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import uvicorn

from fairway.core.errors import FairwayError
from fairway.core.settings import Settings
from fairway.inference.opening import connect
from fairway.inference.plane import Plane
from fairway.inference.repository import Health
from fairway.inference.residents import Residents
from fairway.registry.snapshot import ServingSnapshot
from fairway.security.access import Access
from fairway.security.tls import Tls, open_tls
from fairway.serving.app import DataApp
from fairway.serving.entrances import entries_for
from fairway.serving.folder import ServerFolder
from fairway.serving.logs import set_up_logging
from fairway.serving.protocol import protocol_for
from fairway.serving.reload import Reload
from fairway.serving.repository import ServerRepository
from fairway.serving.supervisor import GRACE_SECONDS
from fairway.serving.tracing import Tracer, open_tracer
from fairway.stores.counters import Counters

if TYPE_CHECKING:
    from fairway.serving.grpc.server import GrpcServer

logger = logging.getLogger("fairway.serving")


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells worker `number`. `folder` is the server's, with the snapshot. `first`: it takes
    nobody's place, so what cannot be loaded ends it. `listen`, `grpc_listen` (None for no gRPC) and `report` are
    inherited file descriptors; the worker writes one line to `report`: `ready`, or what went wrong. `lifeline` closes when the supervisor dies."""

    settings: Settings
    folder: str
    number: int
    first: bool
    listen: int
    grpc_listen: int | None = None
    report: int
    lifeline: int


def main() -> int:
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WorkerPlan)
    set_up_logging(plan.settings.telemetry, "worker")
    patience = plan.settings.serving.drain_seconds + GRACE_SECONDS
    threading.Thread(target=_end_orphan, args=(plan.lifeline, patience), daemon=True).start()
    folder = ServerFolder(Path(plan.folder))
    try:
        tls = open_tls(plan.settings.tls)
        tracer = open_tracer(plan.settings.telemetry)
        counters = Counters(folder.counters)
        residents = Residents(counters, plan.settings)
        reload = Reload(folder, plan.number, residents, counters)
        reload.open(first=plan.first)
        plane = connect(residents, counters, plan.settings)
    except FairwayError as error:
        os.write(plan.report, f"{error.code}: {error}\n".encode())
        return 1
    sys.setswitchinterval(0.0005)  # the log's thread must hand the interpreter back within a request's time
    gc.collect()
    gc.freeze()  # what is here now mostly stays: no collection need look at it again
    gc.set_threshold(50_000, 20, 20)
    np.seterr(all="ignore")
    try:
        _serve(plan, plane, tls, reload, tracer)
    finally:
        plane.close()
        if tracer is not None:
            tracer.close()
    if residents.loading:  # the interpreter would wait for that, and nobody else does
        logging.shutdown()
        os._exit(0)
    return 0


def _end_orphan(lifeline: int, patience_seconds: float) -> None:
    """Ends this process some time after its supervisor has died: nobody else is left to, where a model never answers and
    holds up the event loop."""
    select.select([lifeline], [], [])
    time.sleep(patience_seconds)
    os._exit(1)


def _serve(plan: WorkerPlan, plane: Plane, tls: Tls | None, reload: Reload, tracer: Tracer | None) -> None:
    settings = plan.settings
    folder = ServerFolder(Path(plan.folder))
    app = DataApp(
        plane,
        settings,
        folder.counters,
        limits_directory=folder.path / "limits",
        entries=entries_for(settings),
    )
    app.tracer = tracer

    def take(snapshot: ServingSnapshot) -> None:
        app.access = Access(snapshot.keys, open_admin=settings.access.open_admin)

    take(reload.snapshot)
    reload.on_snapshot = take

    def health() -> Health:
        found = msgspec.structs.replace(reload.health(ready=app.ready), log=plane.log_health)
        return found.without_reasons() if app.safe else found

    app.health = health
    app.repository = ServerRepository(folder, settings.serving.workers, settings.serving.load_seconds)
    if tls is not None and settings.tls.client_names:
        app.client_name = tls.client_name
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
    if tls is not None:
        config.load()
        config.ssl = tls.context
    with socket.socket(fileno=plan.listen) as listening:
        _Server(config, app, plan, tls, reload).run(sockets=[listening])
    app.labels.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which reports when it listens and stops when the supervisor is gone."""

    def __init__(
        self, config: uvicorn.Config, app: DataApp, plan: WorkerPlan, tls: Tls | None, reload: Reload
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._app = app
        self._plan = plan
        self._reload = reload
        self._leave_at = math.inf
        self._grpc: GrpcServer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._plan.lifeline, self._orphaned)
        if self._tls is not None:
            watch_files(self._tls, self._plan.settings.tls.poll_seconds)
        if self._plan.grpc_listen is not None:
            self._grpc = await start_grpc(self._app, self._tls, self._plan.grpc_listen)
        self._reload.start()
        os.write(self._plan.report, b"ready\n")
        os.close(self._plan.report)

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or time.monotonic() >= self._leave_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """In this order: not ready, nothing new is loaded, no new connections, what was begun is finished. The log is
        written after that, by who runs this server."""
        self._app.ready = False
        self._reload.stop()
        ends = [super().shutdown(sockets)]
        if self._grpc is not None:
            drain = self._plan.settings.serving.drain_seconds
            ends.append(self._grpc.stop(drain, lambda: self.force_exit))
        await asyncio.gather(*ends)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains and stops; a second time, at once. uvicorn's own would raise the signal once more at the end, which
        would kill this process before it has written its log."""
        self._leave(again=not self._app.ready)

    def _leave(self, *, again: bool) -> None:
        self._app.ready = False
        if again:
            self.should_exit = self.force_exit = True
        self._leave_at = time.monotonic() + self._plan.settings.serving.unready_seconds

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._plan.lifeline)
        self._leave(again=False)


async def start_grpc(app: DataApp, tls: Tls | None, listen: int) -> GrpcServer:
    """gRPC on the running loop."""
    # Needs the extra `grpc`; without it the supervisor gives no socket.
    from fairway.serving.grpc.server import GrpcServer

    server = GrpcServer(app, tls)
    await server.start(socket.socket(fileno=listen))
    return server


def watch_files(tls: Tls, poll_seconds: float) -> None:
    """Looks at the certificate's files now and again, for as long as the running loop runs."""
    tls.refresh()
    asyncio.get_running_loop().call_later(poll_seconds, watch_files, tls, poll_seconds)


if __name__ == "__main__":
    sys.exit(main())
