"""Domain errors as HTTP answers."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from fairway.core.errors import (
    AccessDenied,
    Conflict,
    DeadlineExceeded,
    FairwayError,
    InvalidInput,
    NotFound,
    OutOfMemory,
    PayloadTooLarge,
    Problem,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnsupportedContent,
)


class MethodNotAllowed(FairwayError):
    """`allowed` are the methods that the path knows."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed here; use {' or '.join(allowed)}.")
        self.allowed = allowed


_STATUS: tuple[tuple[type[FairwayError], HTTPStatus], ...] = (
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedContent, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (MethodNotAllowed, HTTPStatus.METHOD_NOT_ALLOWED),
    (Conflict, HTTPStatus.CONFLICT),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (AccessDenied, HTTPStatus.FORBIDDEN),
    (DeadlineExceeded, HTTPStatus.GATEWAY_TIMEOUT),
    (OutOfMemory, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The first class that fits decides; anything else is 500."""

_SAFE_TEXT = {
    HTTPStatus.BAD_REQUEST: "The request is not valid.",
    HTTPStatus.NOT_FOUND: "Not found.",
    HTTPStatus.METHOD_NOT_ALLOWED: "Method not allowed.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The content type is not supported.",
    HTTPStatus.UNAUTHORIZED: "An API key is needed.",
    HTTPStatus.FORBIDDEN: "The API key does not allow this.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests.",
    HTTPStatus.GATEWAY_TIMEOUT: "The deadline has passed.",
    HTTPStatus.INSUFFICIENT_STORAGE: "Not enough memory for the model.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is not available now.",
}


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    error: str
    code: str
    request_id: str
    problems: tuple[Problem, ...] = ()


def status_of(error: Exception) -> HTTPStatus:
    return next(
        (status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR
    )


def error_answer(error: Exception, request_id: str, *, safe: bool) -> tuple[HTTPStatus, bytes]:
    """Status and JSON body. In safe mode the body names neither fields, values, models nor limits; what a
    server does not expect to go wrong is never described to a caller in either mode."""
    status = status_of(error)
    code = error.code if isinstance(error, FairwayError) else "internal_error"
    if safe or not isinstance(error, FairwayError):
        text = _SAFE_TEXT.get(status, "Something went wrong on the server; its log has the request id.")
        return status, msgspec.json.encode(ErrorBody(text, code, request_id))
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return status, msgspec.json.encode(ErrorBody(str(error), code, request_id, problems))
