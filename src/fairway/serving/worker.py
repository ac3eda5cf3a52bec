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
from pathlib import Path
from types import FrameType

import msgspec
import numpy as np
import uvicorn

from fairway.core.errors import FairwayError
from fairway.core.settings import Settings
from fairway.inference.opening import open_plane
from fairway.inference.plane import Plane
from fairway.registry.snapshot import ServingSnapshot
from fairway.security.access import Access
from fairway.security.tls import Tls, open_tls
from fairway.serving.app import DataApp
from fairway.serving.protocol import protocol_for
from fairway.stores.counters import Counters
from fairway.stores.limits import Limits

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
        tls = open_tls(plan.settings.tls)
        counters = Counters(Path(plan.counters))
        plane = open_plane(plan.snapshot.models, counters, plan.settings)
    except FairwayError as error:
        os.write(plan.report, f"{error.code}: {error}\n".encode())
        return 1
    sys.setswitchinterval(0.0005)  # the log's thread must hand the interpreter back within a request's time
    gc.collect()
    gc.freeze()  # models live as long as the process: no collection need look at them again
    gc.set_threshold(50_000, 20, 20)
    np.seterr(all="ignore")
    try:
        _serve(plan, plane, tls)
    finally:
        plane.close()
    return 0


def _serve(plan: WorkerPlan, plane: Plane, tls: Tls | None) -> None:
    settings = plan.settings
    app = DataApp(
        plane,
        settings,
        Path(plan.counters),
        access=Access(plan.snapshot.keys, open_admin=settings.access.open_admin),
        limits=Limits(Path(plan.counters).with_name("limits")),
    )
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
        _Server(config, app, plan, tls).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which reports when it listens and stops when the supervisor is gone."""

    def __init__(self, config: uvicorn.Config, app: DataApp, plan: WorkerPlan, tls: Tls | None) -> None:
        super().__init__(config)
        self._tls = tls
        self._app = app
        self._plan = plan

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._plan.lifeline, self._orphaned)
        if self._tls is not None:
            watch_files(self._tls, self._plan.settings.tls.poll_seconds)
        os.write(self._plan.report, b"ready\n")
        os.close(self._plan.report)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.ready = False
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains and stops. uvicorn's own would raise the signal once more at the end, which would kill this process
        before it has written its log."""
        self.should_exit = True

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._plan.lifeline)
        self.should_exit = True


def watch_files(tls: Tls, poll_seconds: float) -> None:
    """Looks at the certificate's files now and again, for as long as the running loop runs."""
    tls.refresh()
    asyncio.get_running_loop().call_later(poll_seconds, watch_files, tls, poll_seconds)


if __name__ == "__main__":
    sys.exit(main())
