"""What is logged, in which form, and what never is."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fairway.core.errors import (
    ContractViolation,
    MalformedInput,
    ModelFailed,
    ModelNotFound,
    Overloaded,
    Problem,
    RateLimited,
    RegistryUnavailable,
)
from fairway.core.settings import TelemetrySettings
from fairway.serving.logs import FailureLog, set_up_logging

SECRET = "4929-1234-5678"
VIOLATION = ContractViolation(
    f"The input does not fit: {SECRET}", (Problem(f"expected a number, got {SECRET!r}", "card", 3),)
)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Where `set_up_logging` is to write; the loggers are as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def note(log: FailureLog, error: Exception, status: int = 500, **more: Any) -> None:
    log.note(error, **{"status": status, "request_id": "r-1", "model": "m", "protocol": "rest", **more})


def failed(error: type[Exception], text: str, cause: Exception | None = None) -> Exception:
    """An error as it is when it was raised."""
    try:
        try:
            if cause is not None:
                raise cause
        except Exception as inner:
            raise error(text) from inner
        raise error(text)
    except Exception as raised:  # noqa: BLE001 - to be logged by the test
        return raised


def test_json_lines(written: io.StringIO) -> None:
    settings = TelemetrySettings(log_format="json")
    set_up_logging(settings, "worker", written)
    logging.getLogger("fairway.x").warning("two %s\nlines", "times")
    note(FailureLog(settings), RegistryUnavailable("away"), 503, caller="ann", trace_id="ab" * 16)
    first, second = map(json.loads, written.getvalue().splitlines())
    assert first["message"] == "two times\nlines"
    assert (first["level"], first["logger"], first["role"]) == ("warning", "fairway.x", "worker")
    assert first["time"].endswith("Z")
    assert isinstance(first["process"], int)
    told = {
        name: second[name]
        for name in ("request_id", "model", "protocol", "code", "status", "caller", "trace_id")
    }
    assert told == {
        "request_id": "r-1",
        "model": "m",
        "protocol": "rest",
        "code": "registry_unavailable",
        "status": 503,
        "caller": "ann",
        "trace_id": "ab" * 16,
    }
    assert second["message"] == "request failed: away"


def test_text_lines(written: io.StringIO) -> None:
    set_up_logging(TelemetrySettings(), "worker", written)
    note(FailureLog(TelemetrySettings()), failed(ModelFailed, "broke", ValueError("inner")), model="a\nb")
    first, *trace = written.getvalue().splitlines()
    assert (
        "ERROR fairway.requests: request failed: ModelFailed request_id=r-1 model=a\\nb protocol=rest"
        in first
    )
    assert "code=model_failed status=500" in first
    assert trace[-1] == "builtins.ValueError"


def test_an_exception_is_one_json_line(written: io.StringIO) -> None:
    set_up_logging(TelemetrySettings(log_format="json"), "supervisor", written)
    try:
        raise ValueError("told")
    except ValueError:
        logging.getLogger("fairway").exception("failed")
    [line] = written.getvalue().splitlines()
    assert "ValueError: told" in json.loads(line)["exception"]


def test_setting_up_again_replaces(written: io.StringIO) -> None:
    for _ in range(2):
        set_up_logging(TelemetrySettings(log_format="json"), "worker", written)
    logging.getLogger("x").error("once")
    logging.getLogger("x").info("not at this level")
    assert len(written.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (VIOLATION, 400),
        (MalformedInput(f"{SECRET} does not fit INT8"), 400),
        (failed(ModelFailed, f"cannot convert {SECRET}", ValueError(SECRET)), 500),
        (failed(RuntimeError, SECRET, KeyError(SECRET)), 500),
    ],
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_values_are_logged_only_when_asked_for(
    error: Exception, status: int, form: str, written: io.StringIO
) -> None:
    base = msgspec.convert({"log_format": form, "log_level": "info"}, TelemetrySettings)
    set_up_logging(base, "worker", written)
    note(FailureLog(base), error, status)
    quiet = written.getvalue()
    assert SECRET not in quiet
    assert type(error).__name__ in quiet
    assert "r-1" in quiet
    note(FailureLog(msgspec.structs.replace(base, log_values=True)), error, status)
    assert SECRET in written.getvalue()[len(quiet) :]


def test_where_a_validation_failed_is_told_without_what_was_there(written: io.StringIO) -> None:
    settings = TelemetrySettings(log_format="json", log_level="info")
    set_up_logging(settings, "worker", written)
    note(FailureLog(settings), VIOLATION, 400)
    line = json.loads(written.getvalue())
    assert line["problems"] == [{"field": "card", "row": 3}]
    assert line["level"] == "info"
    assert "exception" not in line


def test_levels(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(TelemetrySettings())
    caplog.set_level(logging.DEBUG)
    for error, status in [
        (Overloaded("full"), 503),
        (RateLimited("slow down"), 429),
        (ModelNotFound("who"), 404),
        (RegistryUnavailable("x"), 503),
    ]:
        note(log, error, status)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "ERROR"]
    caplog.clear()
    caplog.set_level(logging.WARNING)
    note(log, VIOLATION, 400)
    assert caplog.records == []


def test_a_storm_of_failures_is_counted_not_written(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = FailureLog(TelemetrySettings(), clock=lambda: now)
    caplog.set_level(logging.INFO)
    for _ in range(500):
        note(log, Overloaded("full"), 503)
    assert len(caplog.records) == 20
    note(log, ModelNotFound("other"), 404)
    assert len(caplog.records) == 21
    now = 1.5
    note(log, Overloaded("full"), 503)
    assert caplog.records[-1].fairway_fields["left_out"] == 480  # type: ignore[attr-defined]
    note(log, Overloaded("full"), 503)
    assert "left_out" not in caplog.records[-1].fairway_fields  # type: ignore[attr-defined]
