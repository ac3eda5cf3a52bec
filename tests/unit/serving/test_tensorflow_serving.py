"""TensorFlow Serving's REST API as its own documents and tests show it, and KServe V1's on the same paths."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from fairway.core.contract import Action, DType, Field, Rules
from tests.planes import plane, split
from tests.unit.serving.codecs import Asked
from tests.unit.serving.conftest import Serve
from tests.unit.serving.models import classifier, echo, regressor

OPEN = Rules(on_null=Action.warn, on_infinite=Action.warn)
FLOATS = (Field(name="x", dtype=DType.float32, nullable=True, rules=Rules(on_null=Action.warn)),)
IMAGE = (Field(name="image", dtype=DType.string), Field(name="caption_bytes", dtype=DType.string))


def asked(*models: Any) -> Asked:
    return Asked(plane(*(models or (regressor(), classifier()))))


def test_the_documented_predict_call() -> None:
    body = {"instances": [1.0, 2.0, 5.0]}
    assert asked().json("/v1/models/regressor:predict", body) == (200, {"predictions": [3.5, 4.0, 5.5]})


def test_the_documented_regress_call() -> None:
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert asked().json("/v1/models/regressor:regress", body) == (200, {"results": [3.5, 4.0]})


def test_the_documented_servable_that_is_not_there() -> None:
    status, told = asked().json("/v1/models/half:predict", {"instances": [1.0, 5.0]})
    assert status == 404
    assert told["error"].startswith("Servable not found for request: ")


def test_classify_gives_pairs_under_the_key_that_is_really_sent() -> None:
    body = {"context": {"n": 1}, "examples": [{"x": 0.25}, {"x": [1.0]}]}
    expected = {"results": [[["no", 0.75], ["yes", 0.25]], [["no", 0.0], ["yes", 1.0]]]}
    for signature in ({}, {"signature_name": "tensorflow/serving/classify"}, {"signature_name": ""}):
        assert asked().json("/v1/models/classifier:classify", body | signature) == (200, expected)


@pytest.mark.parametrize(
    "path", ["classifier", "classifier/versions/1", "classifier/labels/champion", "%63lassifier"]
)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"instances": [{"x": 0.25, "n": 1}, {"x": 0.5, "n": 2}]}, {"predictions": ["no", "yes"]}),
        ({"instances": [[0.25, 1], [0.5, 2]]}, {"predictions": ["no", "yes"]}),
        ({"inputs": {"x": [0.25, 0.5], "n": [1, 2]}}, {"outputs": ["no", "yes"]}),
        ({"inputs": [[0.25, 1]], "unknown": {"keys": ["are", "ignored"]}}, {"outputs": ["no"]}),
        (
            {"instances": [[0.25, 1]], "signature_name": "probabilities"},
            {"predictions": [[0.75, 0.25]]},
        ),
        ({"instances": [[0.25, 1]], "signature_name": "serving_default"}, {"predictions": ["no"]}),
    ],
)
def test_rows_columns_and_signatures(path: str, body: Any, expected: Any) -> None:
    assert asked().json(f"/v1/models/{path}:predict", body) == (200, expected)


def test_several_outputs_have_names() -> None:
    ask = asked()
    every = {"x_fairway_outputs": "*"}
    status, told = ask.json("/v1/models/classifier:predict", {"instances": [[0.25, 1]]}, **every)
    assert (status, told) == (200, {"predictions": [{"label": "no", "probabilities": [0.75, 0.25]}]})
    status, told = ask.json("/v1/models/classifier:predict", {"inputs": [[0.25, 1]]}, **every)
    assert told == {"outputs": {"label": ["no"], "probabilities": [[0.75, 0.25]]}}
    assert Asked().json("/v1/models/m:predict", {"instances": [[1, 2]]}) == (
        200,
        {"predictions": [{"sum": 3.0, "both": [1.0, 2.0]}]},
    )


def test_tokens_go_in_and_come_out() -> None:
    ask = asked(echo(FLOATS))
    status, written = ask("/v1/models/echo:predict", b'{"instances": [NaN, 1, 2.5, null]}')
    assert (status, written.body) == (200, b'{"predictions":[NaN,1.0,2.5,NaN]}')

    def infinite(columns: Any) -> Any:
        return {"x": np.array([math.inf, -math.inf, 0.0], dtype=np.float32)[: columns.rows]}

    ask.plane.table["echo"].primary._engine.predict = infinite  # type: ignore[method-assign]
    status, written = ask("/v1/models/echo:predict", {"inputs": [1, 2, 3]})
    assert written.body == b'{"outputs":[Infinity,-Infinity,0.0]}'
    assert ask.json("/v1/models/echo:predict", b'{"instances": [Infinity]}')[0] == 400  # the contract's rule


def test_base64_is_decoded_and_bytes_outputs_are_encoded() -> None:
    encoded = base64.b64encode(b"seaside").decode()
    for b64 in (encoded, encoded.rstrip("=")):
        body = {"instances": [{"image": {"b64": b64}, "caption_bytes": "text"}]}
        status, told = asked(echo(IMAGE)).json("/v1/models/echo:predict", body)
        assert status == 200
        assert told["predictions"] == [{"image": "seaside", "caption_bytes": {"b64": "dGV4dA=="}}]
    only = (Field(name="text", dtype=DType.string),)
    ask = asked(echo(only))
    assert ask.json("/v1/models/echo:predict", {"instances": [{"b64": encoded}, "plain"]}) == (
        200,
        {"predictions": ["seaside", "plain"]},
    )
    assert ask.json("/v1/models/echo:predict", {"inputs": {"text": [{"b64": encoded}]}})[1] == {
        "outputs": ["seaside"]
    }
    status, told = ask.json("/v1/models/echo:predict", {"instances": [{"b64": "*"}]})
    assert (status, told["error"]) == (400, "Unable to base64 decode")
    status, told = ask.json("/v1/models/echo:predict", {"inputs": {"text": [{"c64": encoded}]}})
    assert told["error"] == f'JSON Value: {{"c64": "{encoded}"}} not formatted correctly for base64 data'


def test_whole_numbers_that_a_float_does_not_hold_are_refused() -> None:
    ask = asked()
    exact, beyond = 2**24 - 1, 2**24
    assert ask.json("/v1/models/regressor:predict", {"instances": [exact]})[0] == 200
    assert (
        ask.json("/v1/models/regressor:predict", b'{"instances": [16777217.0]}')[0] == 200
    )  # is no whole number
    for body in (
        {"instances": [beyond]},
        {"instances": [-beyond]},
        {"instances": [{"x": beyond}]},
        {"inputs": {"x": [beyond]}},
        {"instances": [beyond] + [1.5] * 1000},
    ):
        status, told = ask.json("/v1/models/regressor:predict", body)
        assert status == 400
        assert "to float without loss of precision." in told["error"]
        assert f"Cannot convert JSON value: {'-' if '-' in str(body) else ''}16777216" in told["error"]


BAD: list[tuple[Any, str]] = [
    (b"", "JSON Parse error"),
    (b"{", "JSON Parse error"),
    (b'{"instances": [1, 2', "JSON Parse error"),
    (b"\xff", "JSON Parse error"),
    (b"[" * 100_000, "JSON Parse error"),
    (b'{"instances": ' + b"[" * 100_000 + b"NaN", "JSON Parse error"),
    (b"[1, 2]", "JSON Value: [1, 2] Is not object"),
    (b'"text"', 'JSON Value: "text" Is not object'),
    (b"null", "JSON Value: null Is not object"),
    ({}, "Missing 'inputs' or 'instances' key"),
    ({"instances": [1], "inputs": [1]}, "expecting only one of 'inputs' or 'instances'"),
    ({"instances": []}, "No values in 'instances' array"),
    ({"instances": {"x": 1}}, "Excepting 'instances' to be an list/array"),
    ({"instances": None}, "Excepting 'instances' to be an list/array"),
    ({"instances": [1, 2]}, "instances is a plain list, but expecting list of objects"),
    ({"inputs": [1, 2]}, "inputs is a plain value/list, but expecting list of objects"),
    ({"instances": [[1, 2, 3]]}, "A row has 3 values; this model has 2 inputs."),
    ({"instances": [[[1, 2]]]}, "1 rows do not have 2 values"),
    (
        {"instances": [[1, 2], {"x": 1, "n": 2}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    ({"instances": [{"x": 1, "n": 2}, [1, 2]]}, "Expecting object but got list at item 1 of input list"),
    ({"instances": [{"x": 1}]}, 'JSON object: {"x": 1} keys must be equal to: n,x'),
    ({"inputs": {"x": [1]}}, "Missing named input: n in 'inputs' object."),
    ({"inputs": {"x": 1, "n": [1]}}, "The input x is a single value"),
    ({"inputs": 3}, "JSON Value: 3 is a single value"),
    ({"inputs": {"x": [1], "n": [1, 2]}}, "has 2 rows where others have 1"),
    (
        {"instances": [{"x": "1", "n": 2}]},
        "Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"1\" Type: "
        "String is not of expected type: float",
    ),
    ({"instances": [{"x": True, "n": 2}]}, "JSON Value: true Type: True is not of expected type: float"),
    ({"instances": [{"x": [1, 2], "n": 2}]}, "JSON Value: [1, 2] Type: Array is not of expected type: float"),
    (
        {"instances": [{"x": 1e39, "n": 2}]},
        "Cannot convert JSON value: 1e+39 to float without loss of precision.",
    ),
    ({"instances": [{"x": {}, "n": 2}]}, "JSON Value: {} Type: Object is not of expected type: float"),
    ({"instances": [{"x": 1, "n": "b"}]}, 'JSON Value: "b" Type: String is not of expected type: int64'),
    ({"instances": [{"x": 1, "n": 1.5}]}, "n, row 0: expected a whole number, got 1.5"),
    ({"instances": [{"x": None, "n": 1}]}, "x, row 0: is null"),
    ({"instances": [[1, 2**63]]}, "does not fit int64"),
    (b'{"instances": [[1, 1' + b"0" * 5000 + b"]]}", ""),
    (b'{"instances": [[1e400, 1]]}', ""),
    ({"instances": [[1, 2]], "signature_name": 3}, "'signature_name' key must be a string value."),
    ({"instances": [[1, 2]], "signature_name": "mine"}, 'Serving signature key "mine" not found.'),
    ({"instances": [[1, 2]], "signature_name": "classification"}, "Was: tensorflow/serving/classify"),
]


@pytest.mark.parametrize(("body", "why"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_is_400_in_its_words(body: Any, why: str) -> None:
    status, told = asked().json("/v1/models/classifier:predict", body)
    assert status == 400
    assert why in told["error"]
    assert told["request_id"] == "r1"


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("classifier:classify", {}, 400, "key 'examples' is expected and was not found"),
        ("classifier:classify", {"examples": 3}, 400, "Expecting 'examples' value to be an list/array"),
        ("classifier:classify", {"examples": []}, 400, "'examples' value is an empty array"),
        ("classifier:classify", {"examples": [1]}, 400, "Example must be JSON object but got JSON Number"),
        ("classifier:classify", {"context": [], "examples": [[]]}, 400, "got JSON Array"),
        ("classifier:classify", {"examples": [{"x": "a", "n": 1}]}, 400, "(feature x, example 0)"),
        ("classifier:classify", {"examples": [{"x": 1, "n": [1, 2]}]}, 400, "Type: Array"),
        ("classifier:regress", {"examples": [{"x": 1, "n": 1}]}, 400, "Expected regression signature"),
        ("regressor:classify", {"examples": [{"x": 1}]}, 400, "Expected classification signature"),
        ("regressor:explain", {"instances": [1]}, 501, "has no explainer"),
        ("regressor:train", {"instances": [1]}, 400, "Malformed request"),
        ("regressor/versions/7:predict", {"instances": [1]}, 404, "Servable not found for request"),
        ("regressor/labels/blue:predict", {"instances": [1]}, 404, "Servable not found for request"),
    ],
)
def test_what_a_verb_needs(path: str, body: Any, status: int, why: str) -> None:
    got, told = asked().json(f"/v1/models/{path}", body)
    assert (got, why in told["error"]) == (status, True), told


def test_in_safe_mode_nothing_is_named() -> None:
    for body, _ in BAD:
        status, written = asked()("/v1/models/classifier:predict", body, safe=True)
        assert status == 400
        assert json.loads(written.body)["error"] == "The request is not valid."
    _, written = asked()("/v1/models/secret:predict", {}, safe=True)
    assert b"secret" not in written.body


def test_status_is_what_both_protocols_answer(serve: Serve) -> None:
    port = serve(plane(regressor(), split("two", 0.5, 0.5)))
    told = json.loads(port.ask("GET", "/v1/models/regressor")[2])
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert told == {"name": "regressor", "ready": True, "model_version_status": [available]}
    for which in ("versions/1", "labels/champion"):
        assert json.loads(port.ask("GET", f"/v1/models/regressor/{which}")[2]) == told
    versions = json.loads(port.ask("GET", "/v1/models/two")[2])["model_version_status"]
    assert [version["version"] for version in versions] == ["1", "2"]
    assert json.loads(port.ask("GET", "/v1/models")[2]) == {"models": ["regressor", "two"]}
    assert json.loads(port.ask("GET", "/")[2]) == {"status": "alive"}
    for path, why in (
        ("none", "Servable not found"),
        ("two/versions/9", "Could not find version 9 of model two"),
    ):
        status, _, body = port.ask("GET", f"/v1/models/{path}")
        assert (status, why in json.loads(body)["error"]) == (404, True)
    port.app.ready = False
    assert port.ask("GET", "/v1/models/regressor")[0] == 503


def test_metadata_is_a_signature_definition(serve: Serve) -> None:
    port = serve(plane(classifier()))
    told = json.loads(port.ask("GET", "/v1/models/classifier/metadata")[2])
    assert told["model_spec"] == {"name": "classifier", "signature_name": "", "version": "1"}
    found = told["metadata"]["signature_def"]["signature_def"]
    assert found["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert found["serving_default"]["inputs"]["n"] == {
        "name": "n",
        "dtype": "DT_INT64",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }
    assert list(found["serving_default"]["outputs"]) == ["label"]
    dims = found["probabilities"]["outputs"]["probabilities"]["tensor_shape"]["dim"]
    assert [dim["size"] for dim in dims] == ["-1", "2"]
    assert found["classification"]["method_name"] == "tensorflow/serving/classify"
    assert json.loads(port.ask("GET", "/v1/models/classifier/versions/1/metadata")[2]) == told
    assert port.ask("GET", "/v1/models/classifier/versions/9/metadata")[0] == 404


TENSORS = (
    Field(name="int_tensor", dtype=DType.int32, shape=(3, 2)),
    Field(name="str_tensor", dtype=DType.string, shape=(2,)),
    Field(name="float_tensor", dtype=DType.float32, shape=(2,), nullable=True, rules=OPEN),
    Field(name="dbl_tensor", dtype=DType.float64, shape=(1,), nullable=True, rules=OPEN),
)
FIRST = b'{"int_tensor": [[1,2],[3,4],[5,6]], "str_tensor": ["foo", "bar"], "float_tensor": [1.0, NaN], "dbl_tensor": [NaN]}'
SECOND = (
    b'{"int_tensor": [[7,8],[9,0],[1,2]], "str_tensor": ["baz", {"b64": "YmF0"}], "float_tensor": [2.0, Infinity], '
    b'"dbl_tensor": [2.0]}'
)


def test_its_own_tests_of_several_named_tensors() -> None:
    ask = asked(echo(TENSORS))
    status, written = ask("/v1/models/echo:predict", b'{"instances": [' + FIRST + b"," + SECOND + b"]}")
    first, second = json.loads(written.body)["predictions"]
    assert status == 200
    assert second == {
        "int_tensor": [[7, 8], [9, 0], [1, 2]],
        "str_tensor": ["baz", "bat"],
        "float_tensor": [2.0, math.inf],
        "dbl_tensor": [2.0],
    }
    assert (
        first["float_tensor"][0],
        math.isnan(first["float_tensor"][1]),
        math.isnan(first["dbl_tensor"][0]),
    ) == (
        1.0,
        True,
        True,
    )
    columns = (
        b'{"inputs": {"int_tensor": [[[1,2],[3,4],[5,6]]], "str_tensor": [["foo", {"b64": "aGVsbG8="}]], '
        b'"float_tensor": [[1, -Infinity]], "dbl_tensor": [[3]]}}'
    )
    status, written = ask("/v1/models/echo:predict", columns)
    assert json.loads(written.body)["outputs"] == {
        "int_tensor": [[[1, 2], [3, 4], [5, 6]]],
        "str_tensor": [["foo", "hello"]],
        "float_tensor": [[1.0, -math.inf]],
        "dbl_tensor": [[3.0]],
    }


@pytest.mark.parametrize(
    ("dtype", "shape", "rows", "why"),
    [
        (DType.int32, (2,), "[[1,2],[3,4],[5,6,7]]", "Expecting tensor size: 2 but got: 3"),
        (DType.int32, (2,), "[[1,2],[3,4],[[5,6]]]", "Expecting shape [2] but got: [1,2]"),
        (DType.int32, (2,), "[[1,2,3]]", "Expecting tensor size: 2 but got: 3"),
        (DType.int32, (2,), '[[1,2],["a","b"]]', "is not of expected type: int32"),
        (
            DType.int32,
            (2, 2),
            "[[[1,2],[3]]]",
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (DType.int32, (2,), "[[1,[2]]]", "Encountered list at unexpected level: 1 expected < 1"),
        (DType.int32, (2, 1), "[[[1],2]]", "JSON Value: 2 found at incorrect level: 2 in the JSON DOM"),
        (
            DType.float32,
            (1,),
            "[[16777217]]",
            "Cannot convert JSON value: 16777217 to float without loss of precision.",
        ),
        (DType.float32, (1,), "[[1.797e308]]", "to float without loss of precision."),
        (DType.float64, (1,), "[[9007199254740993]]", "to double without loss of precision."),
        (DType.bool, (1,), '[["yes"]]', 'JSON Value: "yes" Type: String is not of expected type: bool'),
        (DType.string, (1,), '[[{"b65": "aGVsbG8="}]]', "not formatted correctly for base64 data"),
        (DType.float32, (1,), "[[]]", "Expecting tensor size: 1 but got: 0"),
    ],
)
def test_its_own_tests_of_what_a_tensor_may_not_be(
    dtype: DType, shape: tuple[int, ...], rows: str, why: str
) -> None:
    ask = asked(echo((Field(name="t", dtype=dtype, shape=shape),)))
    for body in (f'{{"instances": {rows}}}', f'{{"inputs": {rows}}}', f'{{"inputs": {{"t": {rows}}}}}'):
        status, told = ask.json("/v1/models/echo:predict", body.encode())
        assert (status, why in told["error"]) == (400, True), told


def test_columns_of_one_value_lists_are_columns() -> None:
    """A model of TensorFlow wants [n, 1] for what a contract calls [n]."""
    ask = asked()
    expected = (200, {"predictions": ["no", "yes"]})
    assert (
        ask.json(
            "/v1/models/classifier:predict", {"instances": [{"x": [0.25], "n": [1]}, {"x": [1], "n": [2]}]}
        )
        == expected
    )
    _, told = ask.json("/v1/models/classifier:predict", {"inputs": {"x": [[0.25], [1]], "n": [[1], [2]]}})
    assert told == {"outputs": ["no", "yes"]}
