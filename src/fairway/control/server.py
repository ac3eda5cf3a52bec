"""The control process from start to stop.

start   the lease is looked for, jobs begin, pages are served; where the port is taken, jobs go on without pages and
        the port is tried again
stop    no new requests; jobs end, as leader if this process leads; the lease is given back, so that another begins
        at once
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from fairway.control.jobs import JobRunner, PeriodicJob
from fairway.control.leadership import Leadership
from fairway.control.web.service import ControlState
from fairway.core.errors import FairwayError, Unavailable
from fairway.core.settings import ControlSettings
from fairway.security.tls import Tls

logger = logging.getLogger("fairway.control")

_BIND_AGAIN_SECONDS = 10.0
_GRACE_SECONDS = 5.0
_START_SECONDS = 10.0
_NOT_LOOKED = "The registry has not been looked at yet."


class ControlServer:
    """`run` goes on until SIGTERM, SIGINT or, with a lifeline, until that closes."""

    def __init__(
        self,
        settings: ControlSettings,
        leadership: Leadership,
        jobs: tuple[PeriodicJob, ...],
        *,
        on_renewed: Callable[[float], None] = lambda held_until: None,
    ) -> None:
        """`on_renewed` is told until when this process leads, whenever it has renewed its lease."""
        self._settings = settings
        self._leadership = leadership
        self._jobs = JobRunner(leadership, jobs)
        self._on_renewed = on_renewed
        self._stopping = threading.Event()
        self._trouble = _NOT_LOOKED

    @property
    def state(self) -> ControlState:
        return ControlState(
            leads=self._leadership.leads,
            leader=self._leadership.leader,
            registry=self._trouble,
            jobs=self._jobs.states,
        )

    def run(
        self,
        app: ASGIApp,
        *,
        tls: Tls | None = None,
        lifeline: int | None = None,
        must_listen: bool = True,
        on_ready: Callable[[int], None] = lambda port: None,
    ) -> None:
        """`on_ready` is told the port, once pages are served. With `must_listen`, a port that is taken is Unavailable;
        without, it is said, and tried again now and then."""
        listening = None
        try:
            listening = listen(self._settings.host, self._settings.port)
        except Unavailable as error:
            if must_listen:
                raise
            logger.warning("no pages and no admin API for now: %s", error)
        woken = self._on_signals()
        leading = threading.Thread(target=self._lead, name="leadership", daemon=True)
        web = threading.Thread(
            target=self._serve, args=(app, tls, listening, on_ready), name="pages", daemon=True
        )
        for thread in (leading, web):
            thread.start()
        self._jobs.start()
        waiting = [woken] if lifeline is None else [woken, lifeline]
        while not self._stopping.is_set():
            select.select(waiting, [], [])
            self._stopping.set()
        web.join(_GRACE_SECONDS)
        self._jobs.stop(self._settings.stop_seconds + _GRACE_SECONDS)
        leading.join(self._leadership.step_seconds + _GRACE_SECONDS)
        try:
            self._leadership.give_up()
        except FairwayError as error:
            logger.warning("another control process will wait for the lease to run out: %s", error)

    def _on_signals(self) -> int:
        """A pipe that can be read once SIGTERM or SIGINT came."""
        read, write = os.pipe()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            os.write(write, b".")

        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, stop)
        return read

    def _lead(self) -> None:
        """Goes on while jobs end, so that they end as the leader's."""
        while not self._jobs.ended.is_set():
            try:
                self._leadership.step()
            except FairwayError as error:
                if not self._trouble or self._trouble == _NOT_LOOKED:
                    logger.warning("no control process can lead: %s", error)
                self._trouble = str(error)
            else:
                if self._trouble not in ("", _NOT_LOOKED):
                    logger.warning("the registry is back")
                self._trouble = ""
                if self._leadership.leads:
                    self._on_renewed(self._leadership.held_until)
            self._jobs.ended.wait(self._leadership.step_seconds)

    def _serve(
        self, app: ASGIApp, tls: Tls | None, listening: socket.socket | None, on_ready: Callable[[int], None]
    ) -> None:
        while listening is None:
            if self._stopping.wait(_BIND_AGAIN_SECONDS):
                return
            try:
                listening = listen(self._settings.host, self._settings.port)
            except Unavailable:
                continue
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=int(_GRACE_SECONDS) - 1,
            server_header=False,
            proxy_headers=False,
        )
        if tls is not None:
            config.load()
            config.ssl = tls.context
        server = _Pages(config, self._stopping)
        announcing = threading.Thread(target=_announce, args=(server, lambda: on_ready(port)), daemon=True)
        announcing.start()
        with listening:
            asyncio.run(server.serve(sockets=[listening]))


class _Pages(uvicorn.Server):
    """uvicorn's server, ended by an event; signals are the process's own affair."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or self._stopping.is_set()
        return await super().on_tick(counter)


def _announce(server: uvicorn.Server, on_ready: Callable[[], None]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    if server.started:
        on_ready()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; 0 takes any free port. Unavailable."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"The control process cannot listen on {host}:{port}: {error.strerror or error}.",
            hint="Stop what listens there, or choose another port with --port or control.port.",
        ) from error
    return bound
