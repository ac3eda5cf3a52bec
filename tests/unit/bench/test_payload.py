"""Which requests are made, from what, and where they go."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairway.bench.address import read_address
from fairway.bench.payload import BODIES, Wish, prepare
from fairway.bench.plan import Payload, Plan, Target
from fairway.bench.server import HttpServer, connect, try_once
from fairway.core.errors import InvalidInput, MalformedInput, NotFound, Unavailable
from tests.unit.bench.conftest import Stub

NUMBERS = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in ("a", "b")]
EXAMPLE = {
    "inputs": [
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]},
        {"name": "b", "shape": [2, 1], "datatype": "FP64", "data": [[3], [4]]},
    ]
}


def asked(stub: Stub, url: str = "", model: str = "", **wish: Any) -> tuple[Target, Payload]:
    address = read_address(stub.url + url, model)
    return prepare(address, Wish(**wish), HttpServer(address, [("x-who", "me")], 5.0))


def openapi(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    media = {"requestBody": {"content": {"application/json": body}}}
    return 200, json.dumps({"openapi": "3.1.0", "paths": {path: {"post": media}}}).encode()


@pytest.mark.parametrize("media", [{"example": EXAMPLE}, {"examples": {"golden": {"value": EXAMPLE}}}])
@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/{model_name}/infer"])
def test_the_models_own_example_comes_first(stub: Stub, media: dict[str, Any], path: str) -> None:
    stub.describe("m", NUMBERS)
    stub.pages["/v2/models/m/openapi.json"] = openapi(path, media)
    target, payload = asked(stub, model="m")
    assert target.path == "/v2/models/m/infer"
    assert payload.source == "the model's example, V2 JSON"
    assert payload.rows == 2
    [tensor, other] = json.loads(payload.bodies[0])["inputs"]
    assert (tensor["data"], other["data"], other["shape"]) == ([1.5, 2.5], [3, 4], [2, 1])


def test_an_example_is_repeated_to_the_rows_wanted(stub: Stub) -> None:
    stub.pages["/openapi.json"] = openapi("/v2/models/m/infer", {"example": EXAMPLE})
    _, payload = asked(stub, model="m", rows=5)
    assert payload.rows == 5
    assert json.loads(payload.bodies[0])["inputs"][0]["data"] == [1.5, 2.5, 1.5, 2.5, 1.5]


@pytest.mark.parametrize(
    "page",
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"paths": []}'),
        openapi("/v2/models/other/infer", {"example": EXAMPLE}),
        openapi("/v2/models/m/infer", {"example": {"dataframe_records": [{"a": 1}]}}),
        (500, b""),
    ],
)
def test_without_a_usable_example_values_are_made_up(stub: Stub, page: tuple[int, bytes]) -> None:
    stub.describe("m", NUMBERS)
    stub.pages["/openapi.json"] = page
    _, payload = asked(stub, model="m", rows=3)
    assert payload.source == "made-up values, V2 JSON"
    assert len(set(payload.bodies)) == 8
    assert json.loads(payload.bodies[0])["inputs"][1]["shape"] == [3]


def test_rows_of_a_file(stub: Stub, tmp_path: Path) -> None:
    stub.describe("m", NUMBERS)
    data = tmp_path / "rows.csv"
    data.write_text("b,a,c\n" + "".join(f"{i},{i / 2},x\n" for i in range(5)))
    _, payload = asked(stub, url="/v2/models/m", data=str(data), rows=2)
    assert payload.rows == 2
    assert payload.source == f"{data}, V2 JSON"
    columns = [{t["name"]: t["data"] for t in json.loads(body)["inputs"]} for body in payload.bodies]
    assert columns == [{"a": [0, 0.5], "b": [0, 1]}, {"a": [1, 1.5], "b": [2, 3]}]


def test_few_rows_are_repeated_and_many_are_not_all_made(stub: Stub, tmp_path: Path) -> None:
    stub.describe("m", NUMBERS)
    data = tmp_path / "rows.csv"
    data.write_text("a,b\n1,2\n3,4\n")
    _, payload = asked(stub, model="m", data=str(data), rows=3)
    assert json.loads(payload.bodies[0])["inputs"][0]["data"] == [1, 3, 1]
    data.write_text("a,b\n" + "1,2\n" * (BODIES + 20))
    assert len(asked(stub, model="m", data=str(data))[1].bodies) == BODIES


def test_binary_tensors(stub: Stub) -> None:
    stub.describe("m", NUMBERS)
    _, payload = asked(stub, model="m", binary=True, rows=4)
    assert payload.content_type == "application/octet-stream"
    [(name, size)] = payload.headers
    assert name == "inference-header-content-length"
    assert all(json.loads(body[: int(size)])["inputs"] for body in payload.bodies)
    assert {len(body) - int(size) for body in payload.bodies} == {4 * 8 * 2}


def test_a_body_goes_to_any_path_as_it_is(stub: Stub, tmp_path: Path) -> None:
    body = tmp_path / "rows.csv"
    body.write_bytes(b"a,b\n1,2\n")
    target, payload = asked(stub, url="/invocations?x=1", body=str(body))
    assert (target.path, payload.bodies, payload.content_type) == (
        "/invocations?x=1",
        [b"a,b\n1,2\n"],
        "text/csv",
    )
    assert payload.rows is None
    assert asked(stub, url="/x", body=str(body), content_type="text/plain")[1].content_type == "text/plain"
    target, _ = asked(stub, url="/v2/models/m/versions/3", body=str(body))
    assert target.path == "/v2/models/m/versions/3/infer"
    assert stub.asked == []


def test_the_only_model_is_found(stub: Stub) -> None:
    stub.describe("m", NUMBERS)
    stub.pages["/v2/repository/index"] = (
        200,
        b'[{"name": "m", "version": "1"}, {"name": "m", "version": "2"}]',
    )
    assert asked(stub)[0].path == "/v2/models/m/infer"
    stub.pages["/v2/repository/index"] = (200, b'[{"name": "m"}, {"name": "k"}]')
    with pytest.raises(InvalidInput, match=r"several models: k, m\. Choose one with --model"):
        asked(stub)
    for page in [(200, b"no"), (200, b"[{}]"), (200, b"[5]x"), (200, b"7"), (403, b"")]:
        stub.pages["/v2/repository/index"] = page
        with pytest.raises(InvalidInput, match="Name one with --model"):
            asked(stub)
    stub.pages["/v1/models"] = (200, b'{"models": ["m"]}')  # what needs no administrator's key
    assert asked(stub)[0].path == "/v2/models/m/infer"


def test_what_cannot_be_prepared(stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--body FILE"):
        asked(stub, url="/v1/models/m:predict")
    with pytest.raises(InvalidInput, match="one of them"):
        asked(stub, model="m", body="a", data="b")
    with pytest.raises(NotFound, match="cannot be read"):
        asked(stub, model="m", body=str(tmp_path / "none"))
    with pytest.raises(NotFound, match=r"answered 404: no such page"):
        asked(stub, model="nobody")
    stub.pages["/v2/models/m"] = (200, b'{"name": "m"}')
    with pytest.raises(NotFound, match="not V2 metadata"):
        asked(stub, model="m")
    empty = tmp_path / "empty.csv"
    empty.write_text("a,b\n")
    with pytest.raises(MalformedInput, match="no rows"):
        asked(stub, model="m", data=str(empty))


def test_headers_go_along_with_every_question(stub: Stub) -> None:
    stub.describe("m", NUMBERS)
    asked(stub, model="m")
    assert all(headers["x-who"] == "me" for _, _, headers, _ in stub.asked)


def test_a_first_request_that_is_refused_stops_the_run(stub: Stub) -> None:
    address = read_address(stub.url, "m")
    server = connect(address, [], 5.0)
    stub.describe("m", NUMBERS)
    target, payload = prepare(address, Wish(), server)
    plan = Plan(target=target, payload=payload)
    try_once(server, plan)
    stub.infer = lambda number: (400, b'{"error": "amount: 5 is over the limit"}' + b" " * 999)
    with pytest.raises(InvalidInput, match=r"made-up values, V2 JSON, was answered 400: .*over the limit"):
        try_once(server, plan)


def test_nobody_there() -> None:
    address = read_address("http://127.0.0.1:1", "m")
    with pytest.raises(Unavailable, match="Is the server running"):
        connect(address, [], 1.0).inputs("m", "")
