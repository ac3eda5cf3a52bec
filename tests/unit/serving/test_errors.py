"""Domain errors as HTTP: one status each, and nothing of the inside in safe mode."""

import inspect

import msgspec
import pytest

from fairway.core import errors
from fairway.core.errors import (
    ContractViolation,
    FairwayError,
    ModelFailed,
    ModelNotFound,
    PayloadTooLarge,
    Problem,
)
from fairway.serving.errors import MethodNotAllowed, error_answer, status_of

EXPECTED = {
    "InvalidInput": 400, "MalformedInput": 400, "ContractViolation": 400, "PayloadTooLarge": 413, "UnsupportedContent": 415,
    "NotAcceptable": 406,
    "NotFound": 404, "ModelNotFound": 404, "VersionNotFound": 404, "AliasNotFound": 404,
    "KeyNotFound": 404, "NotSupported": 501,
    "Conflict": 409, "AlreadyExists": 409, "RouteConflict": 409, "IncompatibleContract": 409,
    "Unavailable": 503, "RegistryUnavailable": 503, "StorageFull": 503, "Overloaded": 503,
    "OutOfMemory": 507, "DeadlineExceeded": 504,
    "AnswerNotFound": 404, "AnswersUnavailable": 503, "RunNotFound": 404,
    "ScheduleNotFound": 404, "LeaseLost": 409,
    "IncidentNotFound": 404, "ChannelNotFound": 404,
    "AccessDenied": 403, "Unauthenticated": 401, "Forbidden": 403, "RateLimited": 429,
}  # fmt: skip
EVERY = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, FairwayError)]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_has_its_status(kind: type[FairwayError]) -> None:
    assert status_of(kind("x")) == EXPECTED.get(kind.__name__, 500)


def test_the_body_says_what_and_where() -> None:
    error = ContractViolation("It does not fit.", (Problem("is null", "amount", 3), Problem("0 rows")))
    status, body = error_answer(error, "r1", safe=False)
    assert status == 400
    assert msgspec.json.decode(body) == {
        "error": "It does not fit.",
        "code": "contract_violation",
        "problems": [{"reason": "is null", "field": "amount", "row": 3}, {"reason": "0 rows"}],
        "request_id": "r1",
    }


@pytest.mark.parametrize("kind", EVERY)
def test_safe_mode_names_nothing(kind: type[FairwayError]) -> None:
    status, body = error_answer(kind("secret-model secret-field 12345"), "r1", safe=True)
    assert status == EXPECTED.get(kind.__name__, 500)
    assert b"secret" not in body
    assert b"12345" not in body
    assert set(msgspec.json.decode(body)) == {"error", "code", "request_id"}


def test_safe_mode_drops_problems_and_limits() -> None:
    for error in (
        ContractViolation("no", (Problem("secret", "secret", 1),)),
        PayloadTooLarge("the limit is 12345"),
        ModelNotFound("secret"),
    ):
        _, body = error_answer(error, "r1", safe=True)
        assert b"secret" not in body
        assert b"12345" not in body


@pytest.mark.parametrize("safe", [True, False])
def test_what_nobody_expected_is_never_described(safe: bool) -> None:
    status, body = error_answer(ZeroDivisionError("/etc/passwd"), "r1", safe=safe)
    assert status == 500
    assert b"passwd" not in body
    assert msgspec.json.decode(body)["code"] == "internal_error"


def test_methods() -> None:
    error = MethodNotAllowed("PUT", ("GET", "HEAD"))
    assert status_of(error) == 405
    assert "use GET or HEAD" in str(error)
    assert msgspec.json.decode(error_answer(error, "r", safe=True)[1])["error"] == "Method not allowed."
    assert status_of(ModelFailed("x")) == 500
