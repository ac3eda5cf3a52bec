"""Domain errors as gRPC statuses, and the header blocks that carry them.

Source: grpc/doc/PROTOCOL-HTTP2.md, grpc/doc/statuscodes.md.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from urllib.parse import quote

from fairway.core.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FairwayError,
    Forbidden,
    InvalidInput,
    NotFound,
    NotSupported,
    OutOfMemory,
    PayloadTooLarge,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from fairway.inference.live import LiveVersion
from fairway.inference.precomputed import Found
from fairway.serving.errors import error_text
from fairway.serving.grpc.frames import literal


class Status(IntEnum):
    ok = 0
    cancelled = 1
    unknown = 2
    invalid_argument = 3
    deadline_exceeded = 4
    not_found = 5
    already_exists = 6
    permission_denied = 7
    resource_exhausted = 8
    failed_precondition = 9
    aborted = 10
    unimplemented = 12
    internal = 13
    unavailable = 14
    unauthenticated = 16


_STATUS: tuple[tuple[type[FairwayError], Status], ...] = (
    (PayloadTooLarge, Status.resource_exhausted),
    (InvalidInput, Status.invalid_argument),
    (NotFound, Status.not_found),
    (AlreadyExists, Status.already_exists),
    (Conflict, Status.failed_precondition),
    (Unauthenticated, Status.unauthenticated),
    (Forbidden, Status.permission_denied),
    (RateLimited, Status.resource_exhausted),
    (DeadlineExceeded, Status.deadline_exceeded),
    (OutOfMemory, Status.resource_exhausted),
    (Unavailable, Status.unavailable),
    (NotSupported, Status.unimplemented),
)
"""The first class that fits decides; anything else is INTERNAL."""

OPENING = (
    b"\x88"
    + literal(b"content-type", b"application/grpc")
    + literal(b"grpc-accept-encoding", b"identity,deflate,gzip")
)
"""Status 200, by its number in HPACK's static table, and what every answer says."""
_OK = literal(b"grpc-status", b"0")
_PROBLEMS = 10
_LONGEST_MESSAGE = 2048


def status_of(error: Exception) -> Status:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), Status.internal)


def message_of(error: Exception, *, safe: bool) -> str:
    """The text of an error; the places that are wrong follow it, as gRPC has no body to put them in."""
    if safe or not isinstance(error, InvalidInput) or not error.problems:
        return error_text(error, safe=safe)
    shown = [
        " ".join(
            part
            for part in (
                problem.field or "",
                "" if problem.row is None else f"row {problem.row}",
                problem.reason,
            )
            if part
        )
        for problem in error.problems[:_PROBLEMS]
    ]
    rest = len(error.problems) - len(shown)
    return f"{error} {'; '.join(shown)}{f'; and {rest} more' if rest else ''}"


def failure(error: Exception, request_id: str, *, safe: bool) -> bytes:
    """The trailers of a call that failed."""
    block = trailers(status_of(error), message_of(error, safe=safe), request_id)
    block += literal(
        b"fairway-code", (error.code if isinstance(error, FairwayError) else "internal_error").encode()
    )
    if isinstance(error, RateLimited):
        block += literal(b"grpc-retry-pushback-ms", b"%d" % max(1, round(error.retry_after * 1000)))
    return block


def trailers(status: int, message: str, request_id: str = "") -> bytes:
    block = literal(b"grpc-status", b"%d" % status) + literal(b"grpc-message", _percent(message))
    return block + request_id_field(request_id) if request_id else block


def success(live: LiveVersion | None, request_id: str, found: Found | None = None) -> bytes:
    """The trailers of a call that went well; `live` is the version that answered, `found` who did for a model with
    precomputed answers."""
    if live is None:
        return _OK + request_id_field(request_id)
    told = _version_block(live.model, live.version, live.digest) + request_id_field(request_id)
    if found is None:
        return told
    age = literal(b"fairway-age", b"%d" % found.age)
    return told + literal(b"fairway-source", found.source.value.encode()) + age


def request_id_field(request_id: str) -> bytes:
    return b"\x00\x0cx-request-id%c%b" % (len(request_id), request_id.encode())


@lru_cache(maxsize=256)
def _version_block(model: str, version: int, digest: str) -> bytes:
    named = literal(b"fairway-version", quote(f"{model}:{version}", safe=":/ ").encode())
    return _OK + named + literal(b"fairway-digest", digest.encode())


def _percent(text: str) -> bytes:
    """grpc-message: what is not printable ASCII, and `%`, percent-encoded."""
    return quote(text[:_LONGEST_MESSAGE], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
