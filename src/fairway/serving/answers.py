"""The few bytes around an answer: request ids, header blocks, and reading a predict body by its content type."""

from __future__ import annotations

import re
import time

import msgspec

from fairway.core.contract import Contract
from fairway.core.errors import MalformedInput, UnsupportedContent
from fairway.core.request import Inputs, Request, new_request_id
from fairway.inference.live import Table
from fairway.inference.rows import SplitFrame, from_csv, from_instances, from_records, from_split
from fairway.serving.entrance import Headers, Heading, Target
from fairway.serving.v2 import DecodedBody, check_wanted, decode_body

_JSON = b"application/json"
_TIMEOUT = re.compile(rb"(?=.*[1-9])[0-9]{1,9}(\.[0-9]{1,6})?\Z")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}\Z")


def request_id_from(header: bytes | None) -> str:
    """The caller's `X-Request-Id` if it is short and plain, else a new one."""
    if header is not None and _REQUEST_ID.match(header):
        return header.decode("ascii")
    return new_request_id()


def heading_from(
    target: Target, headers: Headers, request_id: str, table: Table, caller: str = ""
) -> Heading:
    """What path and headers say. Raises ModelNotFound where the path names no model and it is not clear which one
    is meant, and MalformedInput for a deadline that is no number."""
    model = target.model
    if model is None:
        model = _named_model(headers, table)
    key = headers.get(b"x-fairway-key")
    timeout = headers.get(b"x-request-timeout-ms")
    return Heading(
        model,
        target.version,
        request_id,
        None if key is None else key.decode("latin-1"),
        None if timeout is None else time.perf_counter() + _milliseconds(timeout) / 1000,
        caller,
    )


def _named_model(headers: Headers, table: Table) -> str:
    """The model of a path that names none: the header's, or the default."""
    named = headers.get(b"x-fairway-model")
    return table.default() if named is None else named.decode("latin-1")


def _milliseconds(text: bytes) -> float:
    if _TIMEOUT.match(text) is None:
        raise MalformedInput("X-Request-Timeout-Ms must be a number of milliseconds above 0, such as 250.")
    return float(text)


def read_request(
    heading: Heading, contract: Contract, body: bytes, headers: Headers
) -> tuple[Request, str | None]:
    """A predict body of any form accepted on the infer path, and V2's `id` to echo.

    JSON: V2 `inputs`, or exactly one of `dataframe_split`, `dataframe_records`, `instances`. CSV: `text/csv` or
    `application/csv`. Raises MalformedInput, ContractViolation or UnsupportedContent.
    """
    kind = headers.get(b"content-type", _JSON)
    if kind != _JSON:
        kind = kind.partition(b";")[0].strip().lower()
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise UnsupportedContent("Compressed bodies are not supported.", hint="Send the body as it is.")
    echoed: str | None = None
    wanted: tuple[str, ...] | None = None
    key = heading.key
    if kind == _JSON or kind.endswith(b"+json") or not kind:
        parsed = decode_body(body)
        inputs = _one_form(parsed, contract)
        echoed = parsed.id
        if parsed.wanted is not None:
            wanted = parsed.wanted
            check_wanted(wanted, contract)
        key = key or parsed.key
    elif kind in (b"text/csv", b"application/csv"):
        inputs = from_csv(body, contract)
    else:
        raise UnsupportedContent(
            f"Content type {kind.decode('latin-1')!r} is not read here.",
            hint="Send application/json or text/csv; with curl: -H 'content-type: application/json'.",
        )
    request = Request(
        model=heading.model,
        version=heading.version,
        inputs=inputs,
        request_id=heading.request_id,
        key=key,
        wanted=wanted,
        protocol="rest",
        deadline=heading.deadline,
        caller=heading.caller,
    )
    return request, echoed


def _one_form(body: DecodedBody, contract: Contract) -> Inputs:
    """The inputs of a body, which must come in exactly one form."""
    sent = body.rows
    if sent is None:
        assert body.inputs is not None
        return body.inputs
    rows = {
        "dataframe_split": sent.dataframe_split,
        "dataframe_records": sent.dataframe_records,
        "instances": sent.instances,
    }
    given = [name for name, value in rows.items() if bytes(value) not in (b"", b"null")]
    if sent.inputs is not None:
        given.insert(0, "inputs")
    if len(given) != 1:
        found = f"{' and '.join(given)} at once" if given else "none of them"
        raise MalformedInput(f"The body needs exactly one of inputs, {', '.join(rows)}; it has {found}.")
    try:
        if given == ["dataframe_split"]:
            return from_split(msgspec.json.decode(sent.dataframe_split, type=SplitFrame))
        if given == ["dataframe_records"]:
            return from_records(
                msgspec.json.decode(sent.dataframe_records, type=list[dict[str, object]]), contract
            )
        if given == ["instances"]:
            return from_instances(msgspec.json.decode(sent.instances, type=list[object]), contract)
    except msgspec.DecodeError as error:
        raise MalformedInput(f"{given[0]} cannot be read: {error}.") from None
    except UnicodeDecodeError:
        raise MalformedInput(f"{given[0]} is not valid UTF-8.") from None
    except RecursionError:
        raise MalformedInput(f"{given[0]} is nested too deeply.") from None
    assert body.inputs is not None
    return body.inputs
