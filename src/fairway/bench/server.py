"""The few questions asked of a server before the load: its models, their inputs, their example, one trial request."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from fairway.bench.address import Address, model_path
from fairway.bench.http import tls_context
from fairway.bench.plan import Plan
from fairway.bench.tensors import Spec, Tensor
from fairway.bench.v2_grpc import METADATA, described_inputs, named_model
from fairway.core.errors import InvalidInput, NotFound, Unavailable

_SHOWN = 600
"""Characters of a server's answer shown when it is an error."""

Headers = list[tuple[str, str]]


class Server(Protocol):
    def only_model(self) -> str:
        """The model there is. Raises InvalidInput when there are more, naming them."""

    def inputs(self, model: str, version: str) -> list[Spec]:
        """Raises NotFound when it does not describe such a model."""

    def example(self, model: str, version: str) -> list[Tensor] | None:
        """The model's own example, where the server gives one."""


class _Metadata(msgspec.Struct):
    inputs: list[Spec]


class _Example(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class _ExampleBody(msgspec.Struct):
    inputs: list[_Example]


class HttpServer:
    """Over HTTP, one connection a question."""

    def __init__(self, address: Address, headers: Headers, timeout: float, ca_file: str = "") -> None:
        self._address = address
        self._headers = headers
        self._timeout = timeout
        self._ca_file = ca_file

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Headers | None = None
    ) -> tuple[int, bytes]:
        """Status and body. Raises Unavailable when nobody answers."""
        address = self._address
        if address.protocol == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=self._timeout, context=tls_context(self._ca_file)
            )
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=self._timeout)
        try:
            connection.request(method, path, body, dict([*self._headers, *(headers or [])]))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"{address.root} cannot be reached: {error}.", hint="Is the server running?"
            ) from error
        finally:
            connection.close()

    def only_model(self) -> str:
        """From V2's repository index, which may need a key of its own, or from KServe V1's list of models."""
        kind = [("content-type", "application/json")]
        names = _names(*self.ask("POST", "/v2/repository/index", b"{}", kind))
        return _only(names or _names(*self.ask("GET", "/v1/models")), self._address.root)

    def inputs(self, model: str, version: str) -> list[Spec]:
        path = model_path(model, version)
        status, body = self.ask("GET", path)
        if status != 200:
            raise NotFound(f"{self._address.root}{path} answered {status}: {_shown(body)}")
        try:
            return msgspec.json.decode(body, type=_Metadata).inputs
        except msgspec.MsgspecError as error:
            raise NotFound(f"{self._address.root}{path} is not V2 metadata of a model: {error}.") from None

    def example(self, model: str, version: str) -> list[Tensor] | None:
        for path in (f"{model_path(model, version)}/openapi.json", f"/v2/models/{quote(model, safe='')}/openapi.json", "/openapi.json"):  # fmt: skip
            status, body = self.ask("GET", path)
            if status != 200:
                continue
            try:
                document = msgspec.json.decode(body)
            except msgspec.MsgspecError:
                continue
            for value in _examples(document, model):
                try:
                    found = msgspec.convert(value, _ExampleBody).inputs
                except msgspec.ValidationError:
                    continue
                return [Tensor(Spec(t.name, t.datatype, t.shape), _flat(t.data)) for t in found]
        return None


class GrpcServer:
    """Over gRPC. There is no example to be had there, and no list of models without the repository's rights."""

    def __init__(self, address: Address, headers: Headers, timeout: float, ca_file: str = "") -> None:
        self._address = address
        self._metadata = [(name.lower(), value) for name, value in headers]
        self._timeout = timeout
        self._ca_file = ca_file

    def ask(self, method: str, message: bytes) -> tuple[str, bytes]:
        """`OK` and the answer, or the name of another code and its details."""
        from fairway.bench import grpc  # needs the extra `bench`

        address = self._address
        return grpc.ask(
            f"{address.host}:{address.port}",
            method,
            message,
            self._metadata,
            self._timeout,
            grpc.credentials(self._ca_file) if address.protocol == "grpcs" else None,
        )

    def only_model(self) -> str:
        return _only([], self._address.root)

    def inputs(self, model: str, version: str) -> list[Spec]:
        code, answer = self.ask(METADATA, named_model(model, version))
        if code == "UNAVAILABLE":
            raise Unavailable(f"{self._address.root} cannot be reached: {_shown(answer)}")
        if code != "OK":
            raise NotFound(f"{self._address.root} does not describe {model!r}: {code}: {_shown(answer)}")
        try:
            return [Spec(*described) for described in described_inputs(answer)]
        except (ValueError, UnicodeDecodeError) as error:
            raise NotFound(f"{self._address.root} does not speak V2 over gRPC: {error}.") from None

    def example(self, model: str, version: str) -> list[Tensor] | None:
        return None


def connect(address: Address, headers: Headers, timeout: float, ca_file: str = "") -> HttpServer | GrpcServer:
    kind = GrpcServer if address.protocol.startswith("grpc") else HttpServer
    return kind(address, headers, timeout, ca_file)


def try_once(server: HttpServer | GrpcServer, plan: Plan) -> None:
    """Sends the first request. Raises InvalidInput with the server's own words when the answer is an error: a load of
    requests that cannot succeed measures nothing."""
    payload = plan.payload
    if isinstance(server, GrpcServer):
        code, answer = server.ask(plan.target.path, payload.bodies[0])
        accepted, told = code == "OK", code
        if code == "UNAVAILABLE":
            raise Unavailable(f"{plan.target.address} cannot be reached: {_shown(answer)}")
    else:
        kind = ("content-type", payload.content_type)
        status, answer = server.ask("POST", plan.target.path, payload.bodies[0], [kind, *payload.headers])
        accepted, told = 200 <= status < 300, str(status)
    if not accepted:
        raise InvalidInput(
            f"the first request, from {payload.source}, was answered {told}: {_shown(answer)}",
            hint="Give rows that fit with --data FILE, a whole request with --body FILE, a key with --key.",
        )


def _names(status: int, body: bytes) -> list[str]:
    """The models in `[{"name"}]` or `{"models": [name]}`; none in anything else."""
    if status != 200:
        return []
    try:
        found = msgspec.json.decode(body)
        models = found["models"] if isinstance(found, dict) else found
        return sorted({str(model["name"] if isinstance(model, dict) else model) for model in models})
    except (msgspec.MsgspecError, KeyError, TypeError):
        return []


def _only(names: list[str], root: str) -> str:
    if len(names) == 1:
        return names[0]
    if names:
        raise InvalidInput(
            f"{root} has several models: {', '.join(names[:20])}.", hint="Choose one with --model."
        )
    raise InvalidInput(f"{root} does not say which models it has.", hint="Name one with --model.")


def _examples(document: Any, model: str) -> Iterator[Any]:
    """Example bodies of the infer paths of an OpenAPI document: that of the model's own path, or of a template."""
    paths = document.get("paths", {}) if isinstance(document, dict) else {}
    if not isinstance(paths, dict):
        return
    own = [path for path in paths if path.endswith("/infer") and f"/{quote(model, safe='')}/" in path]
    for path in own or [path for path in paths if path.endswith("/infer") and "{" in path]:
        try:
            media = paths[path]["post"]["requestBody"]["content"]["application/json"]
        except (KeyError, TypeError):
            continue
        if "example" in media:
            yield media["example"]
        examples = media.get("examples", {})
        for example in examples.values() if isinstance(examples, dict) else ():
            if isinstance(example, dict) and "value" in example:
                yield example["value"]


def _flat(values: list[Any]) -> list[Any]:
    while any(isinstance(value, list) for value in values):
        values = [inner for value in values for inner in (value if isinstance(value, list) else [value])]
    return values


def _shown(answer: bytes) -> str:
    text = answer.decode("utf-8", "replace").strip()
    return text[:_SHOWN] + ("..." if len(text) > _SHOWN else "")
