"""`fairway predict`."""

from __future__ import annotations

import http.client
import json as jsonlib
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from fairway.app.load import load
from fairway.batch.delimited import cut_records, record_end
from fairway.cli.options import CaFileOption, HomeOption, JsonOption, KeyOption, ReferenceArgument
from fairway.cli.output import print_json
from fairway.core.columns import Outputs
from fairway.core.errors import (
    ContractViolation,
    FairwayError,
    Forbidden,
    InvalidInput,
    NotFound,
    Problem,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from fairway.core.version import Reference, parse_reference
from fairway.inference.loaded import LoadedModel
from fairway.inference.rows import from_csv
from fairway.packaging.sample import read_sample

app = typer.Typer(add_completion=False)
_CHUNK_ROWS = 10_000
_ALL_ROWS = 2**62
_CHUNK_BYTES = 128 * 1024
"""Of CSV in one request: at two bytes a row fewer rows than a server takes at once."""
_TIMEOUT_SECONDS = 60
_MEANINGS: dict[int, type[FairwayError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    429: RateLimited,
}


@app.command(epilog="Example:  fairway predict payments rows.csv --url http://127.0.0.1:8080")
def run(
    model: ReferenceArgument,
    rows: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV, Parquet, Arrow or JSON Lines; - for CSV on stdin.")
    ],
    url: Annotated[
        str | None, typer.Option("--url", help="A running server; without it the model runs here.")
    ] = None,
    key: KeyOption = "",
    ca_file: CaFileOption = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Predict the rows of a file, here or on a running server. Prints CSV, or JSON with --json."""
    reference = parse_reference(model)
    parts: Iterable[Outputs]
    if url is None:
        parts = [_local(model, rows, home)]
    else:
        parts = _remote(_Server(url, key, trust(ca_file)), reference, rows)
    if json:
        print_json({name: values.tolist() for name, values in _joined(list(parts)).items()})
        return
    for line in _csv(parts):
        sys.stdout.write(line + "\n")


def _local(model: str, rows: str, home: str | None) -> Outputs:
    with load(model, home=home) as loaded:
        if rows == "-" or rows.endswith(".csv"):
            inputs: Any = from_csv(_read(rows), loaded.contract)
            return _joined([_predict(loaded, chunk, start) for start, chunk in _chunks(inputs)])
        frame = read_sample(rows, rows=_ALL_ROWS).frame
        return _joined(
            [
                _predict(loaded, frame.iloc[start : start + _CHUNK_ROWS], start)
                for start in range(0, max(len(frame), 1), _CHUNK_ROWS)
            ]
        )


def _predict(loaded: LoadedModel, rows: Any, start: int) -> Outputs:
    """Predicts a chunk; its problems are told by their row in the whole file."""
    try:
        return loaded.predict(rows)
    except ContractViolation as error:
        raise ContractViolation(str(error), tuple(_moved(p, start) for p in error.problems)) from None


def _moved(problem: Problem, start: int) -> Problem:
    return problem if problem.row is None else msgspec.structs.replace(problem, row=problem.row + start)


def _chunks(inputs: dict[str, list[Any]]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    total = max((len(values) for values in inputs.values()), default=0)
    for start in range(0, max(total, 1), _CHUNK_ROWS):
        yield start, {name: values[start : start + _CHUNK_ROWS] for name, values in inputs.items()}


def _joined(parts: list[Outputs]) -> Outputs:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class _Server:
    """A running one, and how it is talked to."""

    url: str
    key: str
    trust: ssl.SSLContext


def trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise NotFound(f"{ca_file} holds no certificates that can be read: {error}.") from error


def _remote(server: _Server, reference: Reference, rows: str) -> Iterator[Outputs]:
    """Sends the rows a chunk at a time, and gives the answers as they come; nothing about the model is known here."""
    wanted = reference.alias or reference.version
    version = "" if wanted is None else f"/versions/{wanted}"
    address = f"{server.url.rstrip('/')}/v2/models/{reference.model}{version}/infer"
    start = 0
    for body, kind in _bodies(rows):
        try:
            outputs = _post(server, address, body, kind)
        except InvalidInput as error:
            raise type(error)(str(error), tuple(_moved(p, start) for p in error.problems)) from None
        yield outputs
        start += len(next(iter(outputs.values()), ()))


def _bodies(rows: str) -> Iterator[tuple[bytes, str]]:
    """CSV is read and sent a piece at a time, each below the header."""
    if rows != "-" and not rows.endswith(".csv"):
        frame = read_sample(rows, rows=_ALL_ROWS).frame
        for start in range(0, max(len(frame), 1), _CHUNK_ROWS):
            part = frame.iloc[start : start + _CHUNK_ROWS]
            text = part.to_json(orient="split", index=False, date_format="iso", double_precision=15)
            yield text.encode(), "split"
        return
    try:
        opened: Any = nullcontext(sys.stdin.buffer) if rows == "-" else Path(rows).open("rb")  # noqa: SIM115 - next line
        with opened as file:
            header, sent = b"", False
            for cut in cut_records(file, 0, _CHUNK_BYTES):
                data = cut.data
                if not header:
                    end = record_end(data, last=False)
                    header, data = (data[:end], data[end:]) if end > 0 else (data, b"")
                if data:
                    yield header + data, "text/csv"
                    sent = True
            if not sent:
                yield header, "text/csv"
    except OSError as error:
        raise NotFound(f"{rows} cannot be read: {error.strerror}.") from error


def _post(server: _Server, address: str, body: bytes, kind: str) -> Outputs:
    if kind == "split":
        body, kind = b'{"dataframe_split":' + body + b"}", "application/json"
    if not address.startswith(("http://", "https://")):
        raise InvalidInput(f"{address!r} is not an http address.")
    request = urllib.request.Request(address, data=body, headers={"content-type": kind}, method="POST")  # noqa: S310
    if server.key:  # not sent on to where a redirect leads
        request.add_unredirected_header("Authorization", f"Bearer {server.key}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=server.trust) as answer:  # noqa: S310
            decoded = jsonlib.load(answer)
            return {
                output["name"]: np.array(output["data"]).reshape(output["shape"])
                for output in decoded["outputs"]
            }
    except urllib.error.HTTPError as error:
        raise _as_error(error) from None
    except (OSError, http.client.HTTPException) as error:
        distrusted = isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)
        hint = (
            "Give the certificate of its authority: --ca-file FILE"
            if distrusted
            else "Is the server running?"
        )
        raise Unavailable(f"{address} does not answer: {error}.", hint=hint) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"what answers at {address} is not a Fairway server.") from error


def _as_error(error: urllib.error.HTTPError) -> FairwayError:
    try:
        body = msgspec.json.decode(error.read(), type=dict[str, Any])
        problems = msgspec.convert(body.get("problems", []), tuple[Problem, ...])
        message = str(body["error"])
    except (msgspec.MsgspecError, KeyError):
        message, problems = f"the server answered {error.code}", ()
    if error.code in _MEANINGS:
        return _MEANINGS[error.code](message)
    return InvalidInput(message, problems) if error.code < 500 else Unavailable(message)


def _read(rows: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if rows == "-" else Path(rows).read_bytes()
    except OSError as error:
        raise NotFound(f"{rows} cannot be read: {error.strerror}.") from error


def _csv(parts: Iterable[Outputs]) -> Iterator[str]:
    for number, outputs in enumerate(parts):
        columns: dict[str, list[Any]] = {}
        for name, values in outputs.items():
            flat = values.reshape(len(values), -1)
            if values.ndim == 1:
                columns[name] = flat[:, 0].tolist()
            else:
                columns.update({f"{name}_{i}": flat[:, i].tolist() for i in range(flat.shape[1])})
        if number == 0:
            yield ",".join(columns)
        for row in zip(*columns.values(), strict=True):
            yield ",".join(_csv_cell(value) for value in row)


def _csv_cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text
