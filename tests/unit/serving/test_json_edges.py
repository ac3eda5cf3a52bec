"""JSON at its edges over HTTP, in every protocol: a right answer or a clear error in JSON, and the server goes on."""

import json
from collections.abc import Iterator

import pytest

from tests.planes import plane
from tests.unit.serving.conftest import Port, Serve

PATHS = ["/v2/models/m/infer", "/v1/models/m:predict", "/invocations", "/predictions/m"]
ROWS = b'{"instances": [[%b, 2]]}'


@pytest.fixture
def port(serve: Serve) -> Iterator[Port]:
    made = serve(plane())
    yield made
    assert made.infer(ROWS % b"1")[0] == 200


def standard(text: bytes) -> str:
    """JSON as RFC 8259 has it, again as text."""

    def refuse(token: str) -> float:
        raise AssertionError(f"{token} is no JSON")

    return json.dumps(json.loads(text, parse_constant=refuse))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("number", "total"),
    [
        (b"-0", 2.0),
        (b"-0.0", 2.0),
        (b"1e-999", 2.0),
        (b"0." + b"5" * 5000, 2.5555555555555554),
        (b"1" + b"0" * 5000 + b"e-5000", 3.0),
    ],
)
def test_numbers_are_read_as_the_nearest_there_is(port: Port, path: str, number: bytes, total: float) -> None:
    status, _, told = port.ask("POST", path, ROWS % number)
    assert status == 200
    assert str(total) in standard(told)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "value",
    [
        b"1e999",
        b"-1e999",
        b"1" * 400,
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"nan",
        b"01",
        b".5",
        b"1.",
        b"+1",
        b"0x1",
        b"1_0",
        b"true",
        b"null",
        b'"\\ud800"',
        b'"\\x"',
        b'"a\x01"',
        b'"\xff"',
        b"{}",
        b"[[1], [2]]",
    ],
)
def test_what_is_no_number_is_refused(port: Port, path: str, value: bytes) -> None:
    status, _, told = port.ask("POST", path, ROWS % value)
    assert status == 400
    standard(told)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", ""),
        (b" \n", ""),
        (b"null", ""),
        (b"5", ""),
        (b'"x"', ""),
        (b"{}", ""),
        (b'{"instances": []}', ""),
        (ROWS % b"1" + b" x", "trailing characters"),
        (ROWS % b"1" + ROWS % b"1", "trailing characters"),
        (ROWS % b"1" + b"\0", "trailing characters"),
        (b"{'instances': [[1, 2]]}", "must be strings"),
        (b'{"instances": [[1, 2],]}', "trailing comma"),
        (b'{"instances": [[1, 2]]/**/}', "malformed"),
        (b"\xef\xbb\xbf" + ROWS % b"1", "byte order mark"),
        ((ROWS % b"1").decode().encode("utf-16"), "UTF-16"),
        ((ROWS % b"1").decode().encode("utf-16-be"), "UTF-16"),
        ((ROWS % b"1").decode().encode("utf-32"), "UTF-32"),
        (b'{"instances": [[1, 2]], "id": "\xe9"}', ""),
        (b'{"instances": [[1, 2]], "id": "\\ud800"}', ""),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"instances": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"dataframe_split": {"columns": ["a", "a", "b"], "data": [[1, 1, 2]]}}', ""),
        (
            b'{"inputs": [{"name": "x", "shape": [4294967296, 4294967296], "datatype": "FP64", "data": []}]}',
            "",
        ),
        (b'{"dataframe_records": [{' + b",".join(b'"k%d": 1' % i for i in range(20_000)) + b"}]}", ""),
    ],
)
def test_what_is_no_request_is_refused_and_why(port: Port, path: str, body: bytes, says: str) -> None:
    status, _, told = port.ask("POST", path, body)
    assert status == 400
    assert says in standard(told)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "garbage",
        "application/octet-stream",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
        "application/x-npy",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
    ],
)
def test_a_type_that_is_not_the_body_s_is_refused(port: Port, path: str, kind: str) -> None:
    status, _, told = port.ask("POST", path, ROWS % b"1", content_type=kind)
    if path.startswith("/v1/") and status == 200:
        return  # TensorFlow Serving looks at no type, and its clients send any
    assert status in (400, 415)
    assert told


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rows", [1, 200, 40_000])
def test_of_a_name_that_stands_twice_the_last_counts(port: Port, path: str, rows: int) -> None:
    first, last = (b",".join([row] * rows) for row in (b"[1, 2]", b"[5, 6]"))
    status, _, told = port.ask("POST", path, b'{"instances": [%b], "instances": [%b]}' % (first, last))
    assert status == 200
    assert "11.0" in standard(told)[:300]
