"""Rows in and answers out in the forms that people's tools write: one name per form, the same for every protocol.

    json       application/json         a list of rows, or an object of columns
    csv        text/csv                 a header row; in UTF-8
    jsonlines  application/jsonlines    one row a line, an object or a list
    npy        application/x-npy        one array: a matrix, or a structured array
    arrow      ...vnd.apache.arrow.stream, ...vnd.apache.arrow.file
    parquet    ...vnd.apache.parquet

Nothing here executes what it reads: there is no pickle in any form. Arrow and Parquet need pyarrow, which is imported
when the first such body comes (about 40 MB and 0.3 s).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from fairway.core.columns import Outputs
from fairway.core.contract import Contract
from fairway.core.errors import NotAcceptable, UnsupportedContent
from fairway.core.request import Inputs
from fairway.serving.formats import arrow, npy, text

JSON = "json"
TYPES: dict[str, tuple[str, ...]] = {
    JSON: ("application/json", "text/json"),
    "csv": ("text/csv", "application/csv"),
    "jsonlines": (
        "application/jsonlines",
        "application/x-ndjson",
        "application/jsonl",
        "application/ndjson",
        "application/x-jsonlines",
    ),
    "npy": ("application/x-npy",),
    "arrow-stream": ("application/vnd.apache.arrow.stream",),
    "arrow-file": ("application/vnd.apache.arrow.file",),
    "parquet": ("application/vnd.apache.parquet", "application/x-parquet"),
}
"""Content types by form; the first is the one answers carry."""
_KIND = {name: kind for kind, names in TYPES.items() for name in names}
_UTF8 = frozenset(["utf-8", "utf8", "us-ascii", "ascii"])


def kind_of(content_type: bytes | None) -> str:
    """The form of a body. None and an empty header mean JSON. Raises UnsupportedContent naming what is known."""
    if content_type is None or content_type == b"application/json":
        return JSON
    return _kind_of(content_type[:512])


@lru_cache(maxsize=256)
def _kind_of(content_type: bytes) -> str:
    name, _, options = content_type.decode("latin-1").partition(";")
    name = name.strip().lower()
    for option in options.split(";"):
        key, _, value = option.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            raise UnsupportedContent(f"Bodies are read as UTF-8, not as {value.strip()[:40]!r}.")
    if not name or name.endswith("+json"):
        return JSON
    if name not in _KIND:
        raise UnsupportedContent(
            f"Content type {name[:80]!r} is not read here.",
            hint=f"Known are {', '.join(names[0] for names in TYPES.values())}; "
            "with curl: -H 'content-type: application/json'.",
        )
    return _KIND[name]


def negotiate(accept: bytes | None) -> str:
    """The form of the answer that `Accept` likes best; JSON where it does not care.

    Raises NotAcceptable naming what can be written.
    """
    if accept is None or accept in (b"*/*", b"application/json"):
        return JSON
    return _negotiate(accept[:1024])


@lru_cache(maxsize=256)
def _negotiate(accept: bytes) -> str:
    ranges = [range for range in map(_range, accept.decode("latin-1").split(",")) if range is not None]
    if not ranges:
        return JSON
    best, most = "", 0.0
    for kind, names in TYPES.items():
        quality = max(_quality(name, ranges) for name in names)
        if quality > most:
            best, most = kind, quality
    # application/octet-stream is what answers with binary tensors are called: those who take it know the protocol.
    if _quality("application/octet-stream", ranges) > most:
        return JSON
    if not best:
        known = ", ".join(names[0] for names in TYPES.values())
        raise NotAcceptable(
            f"No answer can be written as {accept.decode('latin-1')[:80]!r}; known are {known}."
        )
    return best


def _range(item: str) -> tuple[str, float] | None:
    name, *options = (part.strip().lower() for part in item.split(";"))
    if not name:
        return None
    quality = 1.0
    for option in options:
        key, _, value = option.partition("=")
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return name, quality if 0.0 <= quality <= 1.0 else 0.0


def _quality(name: str, ranges: list[tuple[str, float]]) -> float:
    """RFC 9110 section 12.5.1: the most specific range that fits decides."""
    family = name.partition("/")[0] + "/*"
    for wanted in (name, family, "*/*"):
        found = [quality for given, quality in ranges if given == wanted]
        if found:
            return max(found)
    return 0.0


def takes_long(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a body or its answer goes through pyarrow, whose import and set-up an event loop should not wait for."""
    kind, accept = headers.get(b"content-type", b""), headers.get(b"accept", b"")
    if kind == b"application/json" and accept in (b"", b"*/*"):
        return False
    asked = (kind + accept).lower()
    return b"arrow" in asked or b"parquet" in asked


def content_type(kind: str) -> bytes:
    return TYPES[kind][0].encode()


def read_rows(kind: str, body: bytes, contract: Contract) -> Inputs:
    """The rows of a body of that form, by field name. Raises MalformedInput, ContractViolation, PayloadTooLarge or
    UnsupportedContent; nothing of what the contract says about values is looked at here."""
    if kind == JSON:
        return text.read_json(body, contract)
    if kind == "csv":
        return text.read_csv(body, contract)
    if kind == "jsonlines":
        return text.read_lines(body, contract)
    if kind == "npy":
        return npy.read(body, contract)
    return arrow.READERS[kind](body, contract)


def write_outputs(kind: str, outputs: Outputs, contract: Contract, wanted: tuple[str, ...] | None) -> bytes:
    """The wanted outputs in contract order, row by row (JSON, CSV, lines) or column by column.

    Raises NotAcceptable where the form cannot hold them."""
    chosen = [output for output in contract.outputs if wanted is None or output.name in wanted]
    if kind == JSON:
        return text.write_json(chosen, outputs)
    if kind == "csv":
        return text.write_csv(chosen, outputs)
    if kind == "jsonlines":
        return text.write_lines(chosen, outputs)
    if kind == "npy":
        return npy.write(chosen, outputs)
    return arrow.WRITERS[kind](chosen, outputs)
