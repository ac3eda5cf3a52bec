"""Lanes over HTTP/1.1: one kept connection each, written and read without a client library in between."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import cast

import httptools

from fairway.bench.load import Load
from fairway.bench.plan import Plan
from fairway.bench.recording import OK

_OUTCOMES = {status: OK if 200 <= status < 300 else str(status) for status in range(100, 600)}
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0


def messages(plan: Plan) -> list[bytes]:
    """Whole requests, head and body, one for each body of the payload."""
    target, payload = plan.target, plan.payload
    default = {"http": 80, "https": 443}[target.protocol]
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: {host}" if target.port == default else f"host: {host}:{target.port}",
        f"content-type: {payload.content_type}",
        *(f"{name}: {value}" for name, value in [*payload.headers, *plan.headers]),
    ]
    head = "\r\n".join(lines).encode("latin-1")
    return [b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body) for body in payload.bodies]


class HttpLane(asyncio.Protocol):
    """One connection."""

    def __init__(
        self, load: Load, requests: Iterator[bytes], clock: Callable[[], float], reopen: Callable[[], None]
    ) -> None:
        self.due = 0.0
        self.sent = 0.0
        self._load = load
        self._requests = requests
        self._clock = clock
        self._reopen = reopen
        self._answering = False
        self._given_up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the base class
        self._parser = httptools.HttpResponseParser(self)
        self._load.joined(self, self._clock())

    def send(self) -> None:
        self._answering = True
        self._transport.write(next(self._requests))

    def cut(self) -> None:
        self._given_up = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._given_up:
                self._end("not HTTP")

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK or not self._answering:
            return  # 100 Continue, 103 Early Hints, or nobody asked
        self._answering = False
        reusable = self._parser.should_keep_alive()
        if not reusable:
            self._given_up = True
            self._transport.close()
        self._load.answered(self, _OUTCOMES.get(status) or str(status), self._clock(), reusable=reusable)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._given_up:
            self._end("connection reset" if error is not None else "connection closed")
        self._reopen()

    def _end(self, reason: str) -> None:
        self._given_up = True
        self._load.lost(self, reason, self._clock())
        self._transport.abort()


class HttpLanes:
    """Keeps `count` connections open."""

    def __init__(self, plan: Plan, count: int, load: Load, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._count = count
        self._load = load
        self._clock = clock
        self._requests = itertools.cycle(messages(plan))
        self._tls = tls_context(plan.ca_file) if plan.target.protocol == "https" else None
        self._opening: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.Transport] = set()
        self._closing = False

    async def open(self) -> None:
        """Raises OSError when not one connection can be made."""
        done = await asyncio.gather(*(self._connect() for _ in range(self._count)), return_exceptions=True)
        failed = [error for error in done if isinstance(error, BaseException)]
        if len(failed) == self._count:
            raise failed[0]
        for _ in failed:
            self._reopen()

    async def close(self) -> None:
        self._closing = True
        for task in self._opening:
            task.cancel()
        for transport in self._transports:
            transport.abort()
        await asyncio.sleep(0)

    async def _connect(self) -> None:
        target = self._plan.target
        transport, _ = await asyncio.wait_for(
            asyncio.get_running_loop().create_connection(
                lambda: HttpLane(self._load, self._requests, self._clock, self._reopen),
                target.host,
                target.port,
                ssl=self._tls,
                server_hostname=target.host if self._tls else None,
            ),
            self._plan.timeout,
        )
        self._transports = {known for known in self._transports if not known.is_closing()}
        self._transports.add(transport)

    def _reopen(self) -> None:
        if self._closing:
            return
        task = asyncio.get_running_loop().create_task(self._connect_again())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect_again(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing:
            try:
                await self._connect()
            except (OSError, TimeoutError) as error:
                self._load.unreachable(_reason(error), self._clock())
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                return


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return "no connection"


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Verifies the server by `ca_file`, or by the system's authorities when it is empty."""
    return ssl.create_default_context(cafile=ca_file or None)
