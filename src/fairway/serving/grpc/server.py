"""gRPC on a worker's event loop, from its listening socket to the last answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from fairway.inference.work import now
from fairway.security.tls import Tls
from fairway.serving.grpc import (
    health,
    infer,
    infer_stream,
    models,
    reflection,
    repository,
    tensorflow,
    tensorflow_models,
)
from fairway.serving.grpc.answering import Bounds
from fairway.serving.grpc.connection import Connection
from fairway.serving.grpc.method import Host, Method
from fairway.serving.grpc.sending import Outbox, Waiting
from fairway.serving.grpc.service import GrpcService

METHODS: tuple[Method, ...] = (
    *infer.METHODS,
    *infer_stream.METHODS,
    *models.METHODS,
    *repository.METHODS,
    *tensorflow.METHODS,
    *tensorflow_models.METHODS,
    *health.METHODS,
    *reflection.METHODS,
)
_NOTICE_SECONDS = 0.1
"""How long clients have to hear that they should call elsewhere, before calls they make here are left to be retried."""
_POLL_SECONDS = 0.02


class GrpcServer:
    """`start`, then `stop`; both in the running event loop."""

    def __init__(self, host: Host, tls: Tls | None = None) -> None:
        """`tls` is the caller's to refresh."""
        self._host = host
        self._tls = tls
        self._connections: set[Connection] = set()
        self._waiting = Waiting()
        self._server: asyncio.Server | None = None

    @property
    def waiting(self) -> int:
        """Bytes of half-sent messages and unread answers that are held."""
        return self._waiting.size

    async def start(self, listening: socket.socket) -> None:
        """Takes calls on a bound socket."""
        loop = asyncio.get_running_loop()
        limits = self._host.settings.limits
        bounds = Bounds(
            message=limits.body_bytes,
            header_block=limits.header_bytes,
            connections=limits.connections,
            waiting=limits.waiting_bytes,
            receive_seconds=limits.receive_seconds,
            receive_rate=limits.receive_rate,
            idle_seconds=limits.grpc_idle_seconds,
        )
        outbox, waiting = Outbox(loop), self._waiting
        self._service = service = GrpcService(self._host, METHODS, loop, limits.body_bytes, outbox.send)

        def connection() -> Connection:
            return Connection(service, bounds, outbox, self._connections, waiting)

        self._server = await loop.create_server(
            connection, sock=listening, ssl=None if self._tls is None else self._tls.grpc_context
        )

    async def stop(self, seconds: float, in_hurry: Callable[[], bool] = lambda: False) -> None:
        """No new connections, no new calls; what was begun is finished, for at most `seconds`."""
        if self._server is None:
            return
        self._server.close()
        deadline = now() + seconds
        for connection in list(self._connections):
            connection.drain(last=False)
        await asyncio.sleep(min(_NOTICE_SECONDS, seconds))
        for connection in list(self._connections):
            connection.drain(last=True)
        while self._connections and now() < deadline and not in_hurry():
            for connection in list(self._connections):
                connection.end_idle()
            await asyncio.sleep(_POLL_SECONDS)
        for connection in list(self._connections):
            connection.transport.abort()
