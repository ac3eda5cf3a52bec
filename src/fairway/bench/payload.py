"""Which requests to send: a file as it is, rows of a table, the model's own example, or values made up.

The best there is is taken, and the report says which: an example that the server's documentation carries before made-up
values, which may cost a server less, or more, than real ones do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fairway.bench.address import Address, model_path
from fairway.bench.plan import Payload, Target
from fairway.bench.server import Server
from fairway.bench.tensors import (
    Tensor,
    binary_bodies,
    grpc_body,
    json_body,
    made_up,
    of_columns,
    tiled,
)
from fairway.bench.v2_grpc import INFER
from fairway.core.errors import InvalidInput, MalformedInput, NotFound
from fairway.packaging.tables import read_table

BODIES = 64
"""Most different bodies made of one table."""
_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".npy": "application/x-npy",
    ".arrow": "application/vnd.apache.arrow.stream",
    ".parquet": "application/vnd.apache.parquet",
}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for. `body` and `data` are files; `rows` of each request, None for one, or for as many as
    the example has."""

    body: str = ""
    content_type: str = ""
    data: str = ""
    rows: int | None = None
    binary: bool = False


def prepare(address: Address, wish: Wish, server: Server) -> tuple[Target, Payload]:
    """Where to send, and what. Raises InvalidInput, NotFound or Unavailable."""
    grpc = address.protocol.startswith("grpc")
    if wish.body and wish.data:
        raise InvalidInput(
            "--body is a whole request and --data the rows to make requests of: give one of them."
        )
    if address.path:
        if not wish.body:
            raise InvalidInput(
                f"{address.path} is not a path of the V2 protocol, so no request can be made for it.",
                hint="Give one with --body FILE.",
            )
        return _target(address, address.path), _from_file(wish)
    model = address.model or server.only_model()
    target = _target(address, INFER if grpc else f"{model_path(model, address.version)}/infer")
    if wish.body:
        return target, _from_file(wish)
    chosen, source = _tensors(address, model, wish, server)
    if grpc:
        bodies = [grpc_body(model, address.version, tensors) for tensors in chosen]
        return target, _payload(bodies, "application/grpc", chosen, f"{source}, protobuf")
    if wish.binary:
        bodies, head = binary_bodies(chosen)
        payload = _payload(bodies, "application/octet-stream", chosen, f"{source}, binary tensors")
        return target, msgspec.structs.replace(
            payload, headers=[("inference-header-content-length", str(head))]
        )
    return target, _payload([json_body(t) for t in chosen], "application/json", chosen, f"{source}, V2 JSON")


def _tensors(address: Address, model: str, wish: Wish, server: Server) -> tuple[list[list[Tensor]], str]:
    """The inputs of each request, and where they came from."""
    if wish.data:
        columns = _columns(wish.data)
        inputs = server.inputs(model, address.version)
        return [of_columns(inputs, part) for part in _parts(columns, wish.rows or 1)], wish.data
    example = server.example(model, address.version)
    if example:
        return [example if wish.rows is None else tiled(example, wish.rows)], "the model's example"
    inputs = server.inputs(model, address.version)
    return [made_up(inputs, wish.rows or 1, seed) for seed in range(8)], "made-up values"


def _target(address: Address, path: str) -> Target:
    return Target(protocol=address.protocol, host=address.host, port=address.port, path=path)


def _payload(bodies: list[bytes], content_type: str, chosen: list[list[Tensor]], source: str) -> Payload:
    return Payload(bodies=bodies, content_type=content_type, rows=chosen[0][0].rows, source=source)


def _from_file(wish: Wish) -> Payload:
    path = Path(wish.body)
    try:
        body = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.") from error
    kind = wish.content_type or _TYPES.get(path.suffix.lower(), "application/json")
    return Payload(bodies=[body], content_type=kind, rows=wish.rows, source=str(path))


def _columns(path: str) -> dict[str, list[Any]]:
    """A file's columns as Python values."""
    table, _ = read_table(path)
    if not table.num_rows or not table.num_columns:
        raise MalformedInput(f"{path} has no rows.")
    return {name: table[name].to_pylist() for name in table.column_names}


def _parts(columns: dict[str, list[Any]], rows: int) -> list[dict[str, list[Any]]]:
    """The table's rows, `rows` at a time, from its start again where it ends; `BODIES` parts at most."""
    have = len(next(iter(columns.values())))
    count = min(BODIES, max(1, have // rows))
    return [
        {name: [values[(part * rows + i) % have] for i in range(rows)] for name, values in columns.items()}
        for part in range(count)
    ]
