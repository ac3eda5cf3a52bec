"""grpc.health.v1: what load balancers and Kubernetes' gRPC probes ask. No key is asked for.

Source: grpc/grpc-proto, grpc/health/v1/health.proto; grpc/doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fairway.core.errors import DeadlineExceeded, NotFound
from fairway.inference.work import now
from fairway.serving.grpc.answering import Peer
from fairway.serving.grpc.calls import fail
from fairway.serving.grpc.method import Asking, Host, Method
from fairway.serving.grpc.status import OPENING
from fairway.serving.grpc.stream import Call, Stream
from fairway.serving.grpc.texts import TRUE, texts

if TYPE_CHECKING:
    from fairway.serving.grpc.service import GrpcService

SERVICE = "/grpc.health.v1.Health/"
SERVICES = frozenset(
    {
        "",
        "inference.GRPCInferenceService",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    }
)
"""What may be asked about; empty is the server as a whole."""
_SERVING = TRUE
_NOT_SERVING = b"\x08\x02"
_UNKNOWN = b"\x08\x03"
_WATCH_SECONDS = 0.1


def _state(host: Host, service: str) -> bytes:
    if service not in SERVICES:
        return _UNKNOWN
    return _SERVING if host.ready else _NOT_SERVING


def check(asking: Asking) -> bytes:
    service = texts(asking.message).get(1, "")
    state = _state(asking.host, service)
    if state == _UNKNOWN:
        raise NotFound(f"there is no service {service[:100]!r} here.")
    return state


class Watch(Call):
    """Sends the state, and again whenever it changes, until the caller has enough."""

    def __init__(self, service: GrpcService, connection: Peer, stream: Stream) -> None:
        self._service = service
        self._connection = connection
        self._stream = stream
        self._arrival = service.arrival(stream.head, now())
        self._asked = ""
        self._told: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        return True

    def received(self, message: bytes, compressed: bool) -> None:
        if self._timer is not None:
            return
        try:
            self._asked = texts(message).get(1, "")
        except Exception as error:  # noqa: BLE001 - told to the caller
            self._fail(error)
            return
        self._look()

    def cancelled(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        deadline = self._arrival.deadline
        if deadline is not None and deadline <= now():
            self._fail(DeadlineExceeded("the deadline has passed."))
            return
        state = _state(self._service.host, self._asked)
        if state != self._told and not self._stream.queued:
            self._told = state
            self._connection.open(self._stream, OPENING)
            self._connection.send(self._stream, state)
        self._timer = self._service.loop.call_later(_WATCH_SECONDS, self._look)

    def _fail(self, error: Exception) -> None:
        self.cancelled()
        fail(
            self._connection,
            self._stream,
            error,
            self._arrival.request_id,
            safe=self._service.host.safe,
        )


METHODS = (
    Method(SERVICE + "Check", None, handle=check, quick=True),
    Method(SERVICE + "Watch", None, stream=Watch),
)
