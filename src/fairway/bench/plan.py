"""What a run is to do: one value, made by the command, given to every client process."""

from __future__ import annotations

import msgspec

from fairway.bench.schedule import Arrivals

LONGEST_SLOTS = 60


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, in pieces. `path` is the HTTP path, or the gRPC method."""

    protocol: str
    """`http`, `https`, `grpc`, or `grpcs` for gRPC over TLS."""
    host: str
    port: int
    path: str

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}{self.path}"


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """The requests, sent in turn. `bodies` are whole HTTP messages' bodies or gRPC messages."""

    bodies: list[bytes]
    content_type: str
    rows: int | None
    """Rows in each body; None when nobody here knows."""
    source: str
    """Where they came from, for people."""
    headers: list[tuple[str, str]] = []
    """Headers that belong to the bodies' format."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` is requests a second over all processes; None is the closed loop. `seconds` are measured after `warmup`.
    `headers` go with every request, keys included. `ca_file` verifies an https server; empty takes the system's."""

    target: Target
    payload: Payload
    rate: float | None = None
    arrivals: Arrivals = Arrivals.fixed
    connections: int = 32
    seconds: float = 10.0
    warmup: float = 2.0
    timeout: float = 10.0
    processes: int = 1
    seed: int = 0
    headers: list[tuple[str, str]] = []
    ca_file: str = ""

    @property
    def slot_seconds(self) -> float:
        """Length of the stretches of time in the picture over time."""
        return max(self.seconds / LONGEST_SLOTS, 0.1)

    def lanes_of(self, share: int) -> int:
        """How many of the connections a client process has."""
        whole, rest = divmod(self.connections, self.processes)
        return whole + (share < rest)
