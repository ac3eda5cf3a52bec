"""Lanes over gRPC: each has one call under way at a time, on a few channels between them. Needs the extra `bench`.

The messages are made once and sent as they are, so that the client spends nothing on protobuf.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fairway.bench.load import Load
from fairway.bench.plan import Plan
from fairway.bench.recording import OK
from fairway.core.errors import MissingExtra

try:
    import grpc
    from grpc import aio
except ImportError as error:
    raise MissingExtra(
        "gRPC servers need grpcio.", hint="Install it: pip install 'fairway[bench]'"
    ) from error

_LANES_A_CHANNEL = 8
"""A channel is one connection: several spread the load over a server's workers."""
_LARGEST_MESSAGE = 2**31 - 1


def credentials(ca_file: str) -> Any:
    """Those of a server with TLS, verified by `ca_file` or the system's authorities."""
    return grpc.ssl_channel_credentials(Path(ca_file).read_bytes() if ca_file else None)


def ask(
    server: str,
    method: str,
    message: bytes,
    metadata: list[tuple[str, str]],
    timeout: float,
    tls: Any = None,
) -> tuple[str, bytes]:
    """One call, blocking: `OK` and the answer, or the name of another code and its details. `tls` are `credentials`."""
    with grpc.insecure_channel(server) if tls is None else grpc.secure_channel(server, tls) as channel:
        try:
            answer: bytes = channel.unary_unary(method, None, None)(
                message, metadata=metadata, timeout=timeout
            )
        except grpc.RpcError as error:
            return error.code().name, (error.details() or "").encode()
    return "OK", answer


class GrpcLane:
    """One call at a time."""

    def __init__(
        self,
        load: Load,
        method: Any,
        requests: Iterator[bytes],
        metadata: list[tuple[str, str]],
        clock: Callable[[], float],
    ) -> None:
        self.due = 0.0
        self.sent = 0.0
        self._load = load
        self._method = method
        self._requests = requests
        self._metadata = metadata
        self._clock = clock
        self._call: Any = None

    def send(self) -> None:
        self._call = self._method(next(self._requests), metadata=self._metadata)
        self._task = asyncio.ensure_future(self._wait(self._call))

    def cut(self) -> None:
        call, self._call = self._call, None
        call.cancel()
        self._load.joined(self, self._clock())  # the channel lives on

    async def _wait(self, call: Any) -> None:
        code = await call.code()
        if call is not self._call:
            return  # given up
        outcome = OK if code is grpc.StatusCode.OK else code.name
        self._load.answered(self, outcome, self._clock())


class GrpcLanes:
    """`count` lanes."""

    def __init__(self, plan: Plan, count: int, load: Load, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._count = count
        self._load = load
        self._clock = clock
        self._channels: list[Any] = []

    async def open(self) -> None:
        plan = self._plan
        address = f"{plan.target.host}:{plan.target.port}"
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # or all channels would share one connection
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ]
        for _ in range(max(1, -(-self._count // _LANES_A_CHANNEL))):
            self._channels.append(
                aio.secure_channel(address, credentials(plan.ca_file), options)
                if plan.target.protocol == "grpcs"
                else aio.insecure_channel(address, options)
            )
        try:
            await asyncio.wait_for(
                asyncio.gather(*(channel.channel_ready() for channel in self._channels)), plan.timeout
            )
        except TimeoutError:
            raise OSError(f"no gRPC connection within {plan.timeout:g} s") from None
        requests = itertools.cycle(plan.payload.bodies)
        metadata = [(name.lower(), value) for name, value in plan.headers]
        for _, channel in zip(range(self._count), itertools.cycle(self._channels), strict=False):
            method = channel.unary_unary(plan.target.path, None, None)
            self._load.joined(GrpcLane(self._load, method, requests, metadata, self._clock), 0.0)

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))
