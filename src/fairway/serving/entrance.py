"""What an entrance is: the paths of a protocol, how its bodies are read, how its answers and errors are worded.

An entrance translates and decides nothing: routing, validation, batching, running and recording are the request
path's, the same for every protocol. Its file exports `ENTRIES`; `serving/entrances.py` lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import msgspec

from fairway.core.columns import Outputs
from fairway.core.contract import Contract
from fairway.core.request import Inputs, Request
from fairway.core.settings import Settings
from fairway.inference.live import LiveVersion
from fairway.inference.plane import Plane
from fairway.inference.repository import Health, Repository
from fairway.security.access import Access
from fairway.serving.errors import MethodNotAllowed, NoSuchPath, error_answer
from fairway.serving.label_writer import LabelWriter

Headers = Mapping[bytes, bytes]
"""By lower-case name; of a name sent twice, the last."""
JSON = b"application/json"


class Reply(NamedTuple):
    """An HTTP answer. `headers` need neither content-length nor x-request-id."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]


class Call(msgspec.Struct, frozen=True, gc=False):
    """A request that is not a prediction. `names` are the path's parts by name, percent-decoded."""

    method: str
    path: str
    names: Mapping[str, str]
    query: str
    headers: Headers
    body: bytes
    caller: str = ""


class Target(msgspec.Struct, frozen=True, gc=False):
    """What the path of a prediction says. `model` is None where the path names none; `verb` is what the protocol
    asks for when it knows several (TensorFlow Serving's classify and regress)."""

    codec: Codec
    model: str | None
    version: str | None = None
    verb: str = ""


class Heading(msgspec.Struct, frozen=True, gc=False):
    """What path and headers say about a prediction, for the codec to put into its `Request` as it is.

    `deadline` is on the clock of `time.perf_counter`; `caller` is the name of the API key. `key_name` is what the model
    calls the key of a precomputed answer, empty where it has none."""

    model: str
    version: str | None
    request_id: str
    key: str | None = None
    deadline: float | None = None
    caller: str = ""
    key_name: str = ""

    def request(
        self,
        inputs: Inputs,
        protocol: str,
        wanted: tuple[str, ...] | None,
        keys: list[bytes] | None = None,
    ) -> Request:
        """The request with what the body said."""
        return Request(
            model=self.model,
            version=self.version,
            inputs=inputs,
            request_id=self.request_id,
            key=self.key or (keys[0].decode() if keys else None),
            wanted=wanted,
            protocol=protocol,
            deadline=self.deadline,
            caller=self.caller,
            keys=keys,
        )


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A body that was read. `notes` is what the codec itself needs to write the answer."""

    request: Request
    notes: Any = None


class Written(msgspec.Struct, frozen=True, gc=False):
    """An answer's body and the headers that describe it."""

    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Codec(Protocol):
    """A protocol's way of writing predictions down. Pure: bytes to values and back, called from any thread."""

    protocol: str
    """The label of its requests in metrics and logs."""

    def read(
        self, target: Target, heading: Heading, body: bytes, headers: Headers, contract: Contract
    ) -> Reading:
        """Raises MalformedInput, ContractViolation, PayloadTooLarge or UnsupportedContent."""

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> Written:
        """The answer; `outputs` are all of the contract's, rows first, and the request may have wanted fewer."""

    def word(self, error: Exception, request_id: str, *, safe: bool) -> tuple[int, Written]:
        """Status and body of an error, in the protocol's own form."""


class Service(Protocol):
    """What a handler may use of the server it stands in."""

    plane: Plane
    settings: Settings
    access: Access
    ready: bool
    counters_directory: Path | None
    repository: Repository | None
    """None where nothing can be loaded while serving."""
    health: Callable[[], Health]
    """What readiness tells."""
    labels: LabelWriter
    """Where feedback goes."""

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs something that takes long outside the event loop. Raises Overloaded when too much waits."""


Handler = Callable[[Service, Call], Awaitable[Reply]]
Words = Callable[..., tuple[int, Written]]


def words(error: Exception, request_id: str, *, safe: bool) -> tuple[int, Written]:
    """Fairway's own error form: `{"error", "code", "request_id", "problems"}`."""
    status, body = error_answer(error, request_id, safe=safe)
    return int(status), Written(body)


class Entry(msgspec.Struct, frozen=True):
    """A path. `{name}` in `path` stands for one segment (or what is left of it: `/v1/models/{model}:predict`).

    `scope` is what the caller's key must allow: `infer`, `feedback`, `metrics`, `admin`, or `open` for none. Exactly one of
    `codec` (a prediction; `{model}`, `{version}` or `{label}`, and `{verb}` make its Target) and `handler` is given.
    """

    method: str
    path: str
    scope: str
    codec: Codec | None = None
    handler: Handler | None = None
    words: Words = words


class Match(NamedTuple):
    entry: Entry
    names: Mapping[str, str]
    target: Target | None


class Router:
    """Finds the entry of a path; the first that fits wins."""

    _REMEMBERED = 1024

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = [(entry, _pattern(entry.path)) for entry in entries]
        self._known: dict[tuple[str, bytes], Match] = {}

    def find(self, method: str, raw_path: bytes) -> Match:
        """Raises NoSuchPath, or MethodNotAllowed where the path exists for other methods. HEAD is GET."""
        found = self._known.get((method, raw_path))
        if found is None:
            found = self._search("GET" if method == "HEAD" else method, raw_path)
            if len(self._known) < self._REMEMBERED:
                self._known[method, raw_path] = found
        return found

    def _search(self, method: str, raw_path: bytes) -> Match:
        path = raw_path.partition(b"?")[0].decode("latin-1")
        if len(path) > 1:
            path = path.rstrip("/")
        allowed: list[str] = []
        for entry, pattern in self._entries:
            parts = pattern.fullmatch(path)
            if parts is None:
                continue
            if entry.method == method:
                names = {name: unquote(part) for name, part in parts.groupdict().items() if part is not None}
                return Match(entry, names, _target(entry, names))
            allowed += ["GET", "HEAD"] if entry.method == "GET" else [entry.method]
        if allowed:
            raise MethodNotAllowed(method, tuple(dict.fromkeys(allowed)))
        raise NoSuchPath(
            f"there is nothing at {path[:200]}.", hint="Predictions are at POST /v2/models/NAME/infer."
        )


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(re.escape(part) if i % 2 == 0 else f"(?P<{part}>[^/]*?)" for i, part in enumerate(parts))
    )


def _target(entry: Entry, names: Mapping[str, str]) -> Target | None:
    if entry.codec is None:
        return None
    return Target(
        entry.codec, names.get("model"), names.get("version", names.get("label")), names.get("verb", "")
    )


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(status, msgspec.json.encode(value), [(b"content-type", JSON)])
