"""Domain errors as HTTP answers."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from fairway.core.errors import (
    AccessDenied,
    Conflict,
    ContractViolation,
    DeadlineExceeded,
    FairwayError,
    InvalidInput,
    NotAcceptable,
    NotFound,
    NotSupported,
    OutOfMemory,
    PayloadTooLarge,
    Problem,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnsupportedContent,
)


class NoSuchPath(NotFound):
    code = "no_such_path"


class MethodNotAllowed(FairwayError):
    """`allowed` are the methods that the path knows."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed here; use {' or '.join(allowed)}.")
        self.allowed = allowed


_STATUS: tuple[tuple[type[FairwayError], HTTPStatus], ...] = (
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedContent, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (NotAcceptable, HTTPStatus.NOT_ACCEPTABLE),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (MethodNotAllowed, HTTPStatus.METHOD_NOT_ALLOWED),
    (Conflict, HTTPStatus.CONFLICT),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (AccessDenied, HTTPStatus.FORBIDDEN),
    (NotSupported, HTTPStatus.NOT_IMPLEMENTED),
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
    HTTPStatus.NOT_ACCEPTABLE: "The answer cannot be written in the form asked for.",
    HTTPStatus.NOT_IMPLEMENTED: "This server does not do that.",
    HTTPStatus.UNAUTHORIZED: "An API key is needed.",
    HTTPStatus.FORBIDDEN: "The API key does not allow this.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests.",
    HTTPStatus.NOT_IMPLEMENTED: "This is not supported here.",
    HTTPStatus.GATEWAY_TIMEOUT: "The deadline has passed.",
    HTTPStatus.INSUFFICIENT_STORAGE: "Not enough memory for the model.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is not available now.",
}
_UNEXPECTED = "Something went wrong on the server; its log has the request id."
_TOLD = 5
"""Most problems that stand in a text."""


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    error: str
    code: str
    request_id: str
    problems: tuple[Problem, ...] = ()


def status_of(error: Exception) -> HTTPStatus:
    return next(
        (status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR
    )


def error_answer(
    error: Exception, request_id: str, *, safe: bool, text: str | None = None
) -> tuple[HTTPStatus, bytes]:
    """Status and JSON body, whose `error` is `text` where one is given. In safe mode the body names neither fields,
    values, models nor limits; what a server does not expect to go wrong is never described to a caller in either
    mode."""
    status = status_of(error)
    code = error.code if isinstance(error, FairwayError) else "internal_error"
    if safe or not isinstance(error, FairwayError):
        text = _SAFE_TEXT.get(status, _UNEXPECTED)
        return status, msgspec.json.encode(ErrorBody(text, code, request_id))
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return status, msgspec.json.encode(ErrorBody(text or str(error), code, request_id, problems))


def error_text(error: Exception, *, safe: bool) -> str:
    """What went wrong in one text, the first broken rules included: for protocols whose errors are a text."""
    if safe or not isinstance(error, FairwayError):
        return _SAFE_TEXT.get(status_of(error), _UNEXPECTED)
    problems = error.problems if isinstance(error, ContractViolation) else ()
    told = [_place(problem) for problem in problems[:_TOLD]]
    if len(problems) > _TOLD:
        told.append("...")
    return " ".join([str(error), "; ".join(told)]) if told else str(error)


def _place(problem: Problem) -> str:
    row = None if problem.row is None else f"row {problem.row}"
    where = ", ".join(part for part in (problem.field, row) if part is not None)
    return f"{where}: {problem.reason}" if where else problem.reason
