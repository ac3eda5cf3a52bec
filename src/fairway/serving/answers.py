"""What path and headers say about a prediction, before its body is looked at."""

from __future__ import annotations

import re
import time

from fairway.core.errors import MalformedInput
from fairway.core.request import new_request_id
from fairway.inference.live import Table
from fairway.serving.entrance import Headers, Heading, Target

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
