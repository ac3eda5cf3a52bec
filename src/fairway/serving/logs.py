"""What the server's processes write to standard error: lines for people, or one JSON object a line for programs.

Failed requests are told by request id, model and error code, never by what was sent: values are other people's data. So
a validation error is told by its fields and rows, and an exception by its place in the code; `telemetry.log_values`
adds the words, which quote values.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import IO, Any

import msgspec

from fairway.core.clock import utc_text
from fairway.core.errors import (
    AnswerNotFound,
    ContractViolation,
    DeadlineExceeded,
    FairwayError,
    InvalidInput,
    MalformedInput,
    ModelFailed,
    Overloaded,
    Problem,
    RateLimited,
)
from fairway.core.settings import TelemetrySettings

logger = logging.getLogger("fairway.requests")

_WINDOW_SECONDS = 1.0
_LINES = 20
"""Most lines a second for one kind of failure: a server that is overloaded must not be kept from its work by saying so."""
_PLACES = 20
_QUOTING = (ContractViolation, MalformedInput, ModelFailed, AnswerNotFound)
_BUSY = (Overloaded, DeadlineExceeded, RateLimited)
_FIELDS = "fairway_fields"
"""The attribute of a log record that carries what JSON lines show as fields of their own."""


def set_up_logging(telemetry: TelemetrySettings, role: str, stream: IO[str] | None = None) -> None:
    """The process's one log handler, on standard error unless told otherwise. `role` is `supervisor` or `worker`."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines(role) if telemetry.log_format == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(telemetry.log_level.upper())


class TextLines(logging.Formatter):
    """time, level, logger and message; then `name=value` of what a record carries beside it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, _FIELDS, {}))
        trace = fields.pop("exception", None)
        shown = "".join(f" {name}={_one_line(value)}" for name, value in fields.items())
        return super().format(record) + shown + ("" if trace is None else f"\n{trace}")


class JsonLines(logging.Formatter):
    """time, level, logger, message, role, process; then what a record carries beside its message, and `exception`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": utc_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "role": self._role,
            "process": record.process or os.getpid(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode("utf-8", "replace")


class FailureLog:
    """Logs failed requests: the server's failures as errors, refusals under load as warnings, the caller's mistakes at
    level info. At most 20 lines a second for each error code; the rest are counted in the next line of that code."""

    def __init__(self, telemetry: TelemetrySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._values = telemetry.log_values
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def note(
        self,
        error: Exception,
        *,
        status: int,
        request_id: str,
        model: str,
        protocol: str,
        caller: str = "",
        trace_id: str = "",
    ) -> None:
        """`status` is the HTTP status, also for other protocols; `trace_id` is empty where there is no trace."""
        level = _level(error, status)
        if not logger.isEnabledFor(level):
            return
        code = error.code if isinstance(error, FairwayError) else "internal_error"
        left_out = self._admit(code)
        if left_out is None:
            return
        fields: dict[str, Any] = {
            "request_id": request_id,
            "model": model,
            "protocol": protocol,
            "code": code,
            "status": int(status),
            "caller": caller,
            "trace_id": trace_id,
            "left_out": left_out,
        }
        fields = {name: value for name, value in fields.items() if value not in ("", 0)}
        if isinstance(error, InvalidInput) and error.problems:
            fields["problems"] = [self._place(problem) for problem in error.problems[:_PLACES]]
        text = self._words(error)
        cause = error if not isinstance(error, FairwayError) else error.__cause__
        if level >= logging.ERROR and cause is not None:
            fields["exception"] = self._trace(cause)
        logger.log(level, "request failed: %s", text, extra={_FIELDS: fields})

    def _admit(self, code: str) -> int | None:
        """How many lines of this code were left out before this one; None to leave it out too."""
        now = self._clock()
        window = self._windows.setdefault(code, _Window(now))
        left_out = 0
        if now - window.begun >= _WINDOW_SECONDS:
            left_out = max(0, window.lines - _LINES)
            window.begun, window.lines = now, 0
        window.lines += 1
        return left_out if window.lines <= _LINES else None

    def _words(self, error: Exception) -> str:
        """The error's message, or only its kind where that might quote what was sent."""
        quotes = not isinstance(error, FairwayError) or isinstance(error, _QUOTING)
        return type(error).__name__ if quotes and not self._values else _one_line(error)

    def _place(self, problem: Problem) -> dict[str, Any]:
        place = {
            "field": problem.field,
            "row": problem.row,
            "reason": problem.reason if self._values else None,
        }
        return {name: value for name, value in place.items() if value is not None}

    def _trace(self, error: BaseException) -> str:
        """Where it was raised; what it said only where values may be logged."""
        lines = traceback.format_tb(error.__traceback__)
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        return "".join([*lines, f"{name}: {error}" if self._values else name])


class _Window:
    """One stretch of time of one kind of failure."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.lines = 0


def _level(error: Exception, status: int) -> int:
    if isinstance(error, _BUSY):
        return logging.WARNING
    return logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO


def _one_line(value: object) -> str:
    """Without line breaks and control characters, so that nobody's text can look like a line of the log."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
