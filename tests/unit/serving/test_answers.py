"""What path and headers say: request ids, deadlines, the model of a path that names none."""

import time

import pytest

from fairway.core.errors import MalformedInput, ModelNotFound
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel, Table
from fairway.serving.answers import heading_from, request_id_from
from fairway.serving.entrance import Heading, Target
from fairway.serving.open_inference import V2Codec
from tests.planes import live_version


def heading(headers: dict[bytes, bytes]) -> Heading:
    target = Target(V2Codec(), "m")
    return heading_from(target, headers, request_id_from(headers.get(b"x-request-id")), Table(()))


@pytest.mark.parametrize("given_id", ["a", "a" * 128, "0b1c-2.3:4@5/6+7=8_9"])
def test_the_callers_request_id_is_kept(given_id: str) -> None:
    assert request_id_from(given_id.encode()) == given_id
    assert heading({b"x-request-id": given_id.encode()}).request_id == given_id


@pytest.mark.parametrize(
    "given_id", [None, b"", b"a" * 129, b"a b", b"a\nb", b"\xff", b'"', b"<script>", b"a\n"]
)
def test_one_that_could_do_harm_is_replaced(given_id: bytes | None) -> None:
    made = request_id_from(given_id)
    assert made
    assert given_id is None or made.encode() != given_id


def test_a_deadline_in_milliseconds() -> None:
    before = time.perf_counter()
    deadline = heading({b"x-request-timeout-ms": b"250.5"}).deadline
    assert deadline is not None
    assert before + 0.25 < deadline < time.perf_counter() + 0.26
    assert heading({}).deadline is None


@pytest.mark.parametrize("text", [b"", b"0", b"0.0", b"-1", b"nan", b"1e3", b"9999999999", b"5 ", b"5\n"])
def test_what_is_no_deadline_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedInput, match="milliseconds"):
        heading({b"x-request-timeout-ms": text})


def test_a_path_without_a_model() -> None:
    def named(headers: dict[bytes, bytes], table: Table) -> str:
        return heading_from(Target(V2Codec(), None), headers, "r", table).model

    one = LiveModel(everything_to("one", 1), {1: live_version(1)}, {})
    two = LiveModel(everything_to("two", 1), {1: live_version(1)}, {})
    assert named({}, Table([one])) == "one"
    assert named({}, Table([one, two], "two")) == "two"
    assert named({b"x-fairway-model": b"two"}, Table([one, two])) == "two"
    with pytest.raises(ModelNotFound, match="X-Fairway-Model"):
        named({}, Table([one, two]))
