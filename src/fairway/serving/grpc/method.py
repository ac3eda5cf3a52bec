"""What a service's file exports: its methods, each with how its messages are read and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from fairway.core.columns import Outputs
from fairway.core.settings import Settings
from fairway.inference.live import LiveVersion, Table
from fairway.inference.plane import Plane
from fairway.inference.repository import Repository
from fairway.security.access import Access
from fairway.security.keys import Scope
from fairway.serving.entrance import Reading
from fairway.serving.grpc.stream import Call
from fairway.serving.logs import FailureLog
from fairway.serving.tracing import Tracer
from fairway.stores.limits import Limits


class Host(Protocol):
    """The server that a call stands in: `serving.app.DataApp`."""

    plane: Plane
    settings: Settings
    safe: bool
    ready: bool
    access: Access
    counters_directory: Path | None
    repository: Repository | None
    tracer: Tracer | None
    failures: FailureLog
    client_name: Callable[[Mapping[str, Any]], str | None] | None
    """The name in a verified client certificate, where one stands for a key."""

    @property
    def key_limits(self) -> Limits:
        """What keys with limits have used."""

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs something that takes long outside the event loop. Raises Overloaded when too much waits."""


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """What a call's metadata say. `deadline` is on the clock of `time.perf_counter`."""

    request_id: str
    key: str | None = None
    """What the metadata x-fairway-key say."""
    deadline: float | None = None


Admit = Callable[[str], str]
"""The name of the caller, once it is known that they may use this model. To be asked before anything is said about
the model. Raises Unauthenticated or Forbidden."""


class Predict(Protocol):
    """A protocol's way of writing predictions down. Pure but for `admit`; called from any thread."""

    protocol: str
    """The label of its requests in metrics and logs."""

    def read(self, message: bytes, arrival: Arrival, admit: Admit, table: Table) -> Reading:
        """Raises InvalidInput, NotFound, AccessDenied or Unimplemented."""

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> bytes:
        """The answer; `outputs` are all of the contract's, rows first, and the request may have wanted fewer."""


class Asking(msgspec.Struct, frozen=True, gc=False):
    """A call that is no prediction, for a handler."""

    host: Host
    message: bytes
    admit: Admit
    arrival: Arrival


Handler = Callable[[Asking], bytes]
"""The answer's message. Blocks as long as it likes: it is run in a thread, unless the method is `quick`."""


class Method(msgspec.Struct, frozen=True):
    """Exactly one of `predict`, `handle` and `stream` is given; `stream` is given the connection's service, the
    connection and the stream, and answers message by message. A `protocol` counts failures of calls that are no
    predictions under this label."""

    path: str
    scope: Scope | None
    """What the caller's key must allow; None: no key is asked for."""
    predict: Predict | None = None
    handle: Handler | None = None
    stream: Callable[[Any, Any, Any], Call] | None = None
    quick: bool = False
    protocol: str = ""
