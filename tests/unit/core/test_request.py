import subprocess
import sys

import pytest

from fairway.core.request import Request, new_request_id


def test_request_ids_are_plain_short_and_never_the_same() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(i) <= 64 and i.isascii() and i.replace("-", "").isalnum() for i in ids)


def test_another_process_has_other_ids() -> None:
    code = "from fairway.core.request import new_request_id; print(new_request_id())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.split("-")[0] != new_request_id().split("-")[0]


def test_a_request_is_a_value() -> None:
    request = Request(model="m", inputs={}, request_id="r")
    assert (request.version, request.key, request.wanted) == (None, None, None)
    with pytest.raises(AttributeError):
        request.model = "n"  # type: ignore[misc]
