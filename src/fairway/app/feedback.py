"""Labels from a file: straight into the log of a home, or to a running server."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from fairway.app.home import Home
from fairway.core.errors import (
    FairwayError,
    Forbidden,
    MalformedInput,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnsupportedContent,
)
from fairway.core.label import ANY_MODEL
from fairway.inference.feedback import (
    Block,
    Resolve,
    Wrong,
    blocks,
    check_columns,
    csv_cells,
    from_cells,
    read_labels,
    read_stream,
    told,
)
from fairway.inference.opening import open_label_log

_CHUNK_ROWS = 20_000
_TIMEOUT_SECONDS = 120
_KINDS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonlines",
    ".ndjson": "jsonlines",
    ".parquet": "parquet",
}
_MEANINGS: dict[int, type[FairwayError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    429: RateLimited,
}
_MOST_WRONG = 100


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file's rows. `wrong` names the first of the `rejected`, by their place in the file from 0."""

    accepted: int
    rejected: int
    wrong: tuple[Wrong, ...] = ()


Tell = Callable[[int], None]
"""Told how many rows are done."""


def store_labels(home: Home, path: Path, *, model: str | None = None, tell: Tell = lambda rows: None) -> Sent:
    """A file's labels into the home's own log; they are on the disk when this returns. Raises NotFound, MalformedInput,
    UnsupportedContent, StorageFull or Unavailable."""
    log = open_label_log(home.settings)
    accepted = rejected = 0
    wrong: list[Wrong] = []
    try:
        for block in _read(path, _resolver(home, model)):
            if block.labels:
                log.append(block.labels, "", time.time())
            accepted += block.rows - len(block.wrong)
            rejected += len(block.wrong)
            wrong += block.wrong[: _MOST_WRONG - len(wrong)]
            tell(accepted + rejected)
        log.sync()
    finally:
        log.close()
    return Sent(accepted=accepted, rejected=rejected, wrong=tuple(wrong))


def send_labels(
    url: str,
    path: Path,
    *,
    model: str | None = None,
    key: str = "",
    trust: ssl.SSLContext | None = None,
    tell: Tell = lambda rows: None,
) -> Sent:
    """A file's labels to a server, some at a time: what was answered is on its disk. To send a file again does no harm."""
    accepted = rejected = begin = 0
    wrong: list[Wrong] = []
    for rows in _rows(path):
        sent = [(place, row) for place, row in enumerate(rows, begin) if isinstance(row, bytes)]
        found = [Wrong(place, row) for place, row in enumerate(rows, begin) if isinstance(row, str)]
        begin += len(rows)
        if sent:
            answer = _post(url, b"\n".join([row for _, row in sent]), model, key, trust)
            accepted += answer["accepted"]
            rejected += answer["rejected"]
            found += [Wrong(sent[one["row"]][0], one["reason"]) for one in answer["errors"]]
        rejected += sum(isinstance(row, str) for row in rows)
        wrong += sorted(found, key=lambda one: one.row)[: _MOST_WRONG - len(wrong)]
        tell(begin)
    return Sent(accepted=accepted, rejected=rejected, wrong=tuple(wrong))


def _resolver(home: Home, model: str | None) -> Resolve:
    known = {summary.name for summary in home.registry.models()}
    default = model or (next(iter(known)) if len(known) == 1 else ANY_MODEL)
    keys_kept = home.settings.log.key_privacy != "drop"

    def resolve(named: str, key: str) -> str:
        named = named or default
        if named != ANY_MODEL and named not in known:
            raise ValueError(f"there is no model {named[:128]!r}.")
        if key and not keys_kept:
            raise ValueError("keys are not kept here (log.key_privacy); give the request_id.")
        return named

    return resolve


def _kind(path: Path) -> str:
    if not path.is_file():
        raise NotFound(f"there is no file {path}.")
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UnsupportedContent(f"{path.name} is of no kind that labels are read from: {', '.join(_KINDS)}.")
    return kind


def _read(path: Path, resolve: Resolve) -> Iterator[Block]:
    kind = _kind(path)
    if kind == "parquet":
        yield from blocks((from_cells(cells) for cells in _cells(path)), resolve, time.time())
    elif kind == "json":
        yield from read_labels(kind, path.read_bytes(), resolve, time.time())
    else:
        with path.open("rb") as stream:
            yield from read_stream(kind, stream, resolve, time.time())


def _cells(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            check_columns(file.schema_arrow.names)
            for batch in file.iter_batches(_CHUNK_ROWS):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise MalformedInput(f"{path} is not a Parquet file that can be read: {error}.") from error


def _rows(path: Path) -> Iterator[list[bytes | str]]:
    """A file's rows as JSON on one line each, some at a time, for a server to judge; a text says what is wrong with one
    that cannot be written so."""
    kind = _kind(path)
    chunk: list[bytes | str] = []
    for row in _lines(path) if kind in ("json", "jsonlines") else _as_json(path, kind):
        chunk.append(row)
        if len(chunk) >= _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _lines(path: Path) -> Iterator[bytes]:
    if _kind(path) == "jsonlines":
        with path.open("rb") as stream:
            yield from (line.strip() for line in stream if line.strip())
        return
    content = path.read_bytes()
    try:
        single = content.lstrip()[:1] == b"{"
        rows = [content] if single else map(bytes, msgspec.json.decode(content, type=list[msgspec.Raw]))
    except msgspec.DecodeError as error:
        raise MalformedInput(f"{path} is not JSON: {error}.") from error
    for row in rows:
        yield row.replace(b"\n", b" ").replace(b"\r", b" ")  # neither can stand in a text of JSON


def _as_json(path: Path, kind: str) -> Iterator[bytes | str]:
    for row in _cells(path) if kind == "parquet" else csv_rows(path):
        given = row if isinstance(row, str) else from_cells(row)
        yield given if isinstance(given, str) else msgspec.json.encode(told(given))


def csv_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open("rb") as stream:
        yield from csv_cells(stream)


def _post(url: str, body: bytes, model: str | None, key: str, trust: ssl.SSLContext | None) -> dict[str, Any]:
    headers = {"content-type": "application/x-ndjson"}
    if model:
        headers["x-fairway-model"] = model
    if key:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url.rstrip("/") + "/feedback", body, headers, method="POST")  # noqa: S310 - the user's own URL
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=trust) as answer:  # noqa: S310
            counted: dict[str, Any] = msgspec.json.decode(answer.read())
            return counted
    except urllib.error.HTTPError as error:
        content = error.read()
        try:
            said = msgspec.json.decode(content, type=dict[str, Any])
        except msgspec.DecodeError:
            said = {"error": content.decode("utf-8", "replace")[:300]}
        if said.get("problems"):  # none of the rows could be taken
            wrong = [{"row": p.get("row", 0), "reason": p.get("reason", "")} for p in said["problems"]]
            return {"accepted": 0, "rejected": body.count(b"\n") + 1, "errors": wrong}
        raise _MEANINGS.get(error.code, Unavailable)(
            f"{url} said {error.code}: {said.get('error', '')}"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise Unavailable(f"{url} cannot be reached: {error}.", hint="Is the server running?") from error
