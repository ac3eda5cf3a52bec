"""`/invocations` as MLflow, SageMaker and Vertex AI post to it."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fairway.core.contract import Action, DType, Field, Rules
from fairway.serving.entrance import Entry
from fairway.serving.invocations import InvocationsCodec
from tests.planes import plane
from tests.unit.serving.codecs import Asked
from tests.unit.serving.conftest import Serve
from tests.unit.serving.models import classifier, echo, regressor

PATH = "/invocations"
ROWS = [[0.25, 1], [0.5, 2]]
RECORDS = [{"x": 0.25, "n": 1}, {"x": 0.5, "n": 2}]
ANSWER = {"predictions": ["no", "yes"]}
GAPS = Rules(on_null=Action.warn)
MIXED = (
    Field(name="amount", dtype=DType.float64, nullable=True, rules=GAPS),
    Field(name="country", dtype=DType.string),
    Field(name="at", dtype=DType.timestamp),
)


def asked(*models: Any) -> Asked:
    return Asked(plane(*(models or (classifier(),))))


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["x", "n"], "index": [0, 1], "data": ROWS}},
        {"dataframe_split": {"columns": ["n", "other", "x"], "data": [[1, 9, 0.25], [2, 9, 0.5]]}},
        {"dataframe_split": {"columns": ["n", "other", "x"], "data": [[1, "a", 0.25], [2, None, 0.5]]}},
        {"dataframe_split": {"columns": [0, 1], "data": ROWS}},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_records": RECORDS},
        {"instances": RECORDS},
        {"instances": ROWS},
        {"instances": {"x": [0.25, 0.5], "n": [1, 2]}},
        {"inputs": {"x": [0.25, 0.5], "n": [1, 2]}},
        {"inputs": RECORDS},
        {"inputs": ROWS, "params": None, "signature_name": "ignored", "more": {"keys": [1]}},
        {"instances": ROWS, "parameters": {}},
        {"instances": ROWS, "parameters": {"outputs": ["label"]}},
    ],
)
def test_every_json_form_gives_what_predict_gives(body: Any) -> None:
    assert asked().json(PATH, body) == (200, ANSWER)
    many = json.loads(json.dumps(body))
    for form in ("dataframe_split", "instances", "inputs"):
        rows = many.get(form)
        rows = rows.get("data") if isinstance(rows, dict) and "data" in rows else rows
        if isinstance(rows, list):
            rows *= 200  # large bodies are read another way
    many.get("dataframe_split", {}).pop("index", None)
    status, told = asked().json(PATH, many)
    assert (status, told["predictions"][:2]) == (200, ["no", "yes"])


def test_single_values_by_name_are_one_row() -> None:
    assert asked().json(PATH, {"inputs": {"x": 0.75, "n": 1}}) == (200, {"predictions": ["yes"]})


def test_numbers_with_gaps_and_tokens_as_pandas_writes_them() -> None:
    ask = asked(echo(MIXED))
    rows = b'[[NaN, "DE", "2026-01-01T00:00:00"], [2.5, "FR", "2026-01-02T03:04:05+02:00"]]'
    body = b'{"dataframe_split": {"columns": ["amount", "country", "at"], "data": ' + rows + b"}}"
    status, told = ask.json(PATH, body)
    assert (status, told["predictions"]) == (
        200,
        [
            {"amount": None, "country": "DE", "at": "2026-01-01T00:00:00.000000Z"},
            {"amount": 2.5, "country": "FR", "at": "2026-01-02T01:04:05.000000Z"},
        ],
    )


def test_what_else_may_be_answered() -> None:
    ask = asked()
    body = {"instances": [[0.25, 1]]}
    pair = {"predictions": [{"label": "no", "probabilities": [0.75, 0.25]}]}
    only = {"predictions": [[0.75, 0.25]]}
    assert ask.json(PATH, body, x_fairway_outputs="*")[1] == pair
    assert ask.json(PATH, body, x_fairway_outputs="probabilities, label")[1] == pair
    assert ask.json(PATH, body, x_fairway_outputs="probabilities")[1] == only
    assert ask.json(PATH, body | {"params": {"outputs": ["probabilities"]}})[1] == only
    assert ask.json(PATH, body | {"parameters": {"outputs": ["*"]}})[1] == pair
    attributes = {"x_amzn_sagemaker_custom_attributes": "trace=7;fairway-outputs=probabilities"}
    status, written = ask(PATH, body, **attributes)
    assert json.loads(written.body) == only
    assert written.headers == (
        (b"x-amzn-sagemaker-custom-attributes", b"trace=7;fairway-outputs=probabilities"),
    )
    status, told = ask.json(PATH, body, x_fairway_outputs="nothing")
    assert (status, "This model's outputs are label, probabilities." in told["message"]) == (400, True)


@pytest.mark.parametrize(
    ("csv", "kind"),
    [
        (b"x,n\n0.25,1\n0.5,2\n", "text/csv"),
        (b"n,other,x\r\n1,a,0.25\r\n2,b,0.5\r\n", "application/csv"),
        (b"0.25,1\n0.5,2\n", "text/csv"),
        (b"\xef\xbb\xbf0.25,1\n0.5,2", "text/csv; charset=utf-8"),
        (b"0.25,1\n0.5,2\n", "text/csv; header=absent"),
        (b"x,n\n0.25,1\n0.5,2\n", "text/csv; header=present"),
    ],
)
def test_csv_with_a_header_and_without(csv: bytes, kind: str) -> None:
    assert asked().json(PATH, csv, content_type=kind) == (200, ANSWER)


def test_a_header_that_names_no_field_is_not_taken_for_data() -> None:
    for csv in (b"y,m\n1,2\n", b"a\n1\n", b'"x,n\n', b"\xff,1\n", b"", b"\n\n"):
        assert asked().json(PATH, csv, content_type="text/csv")[0] == 400
    texts = (Field(name="a", dtype=DType.string), Field(name="b", dtype=DType.string))
    assert asked(echo(texts)).json(PATH, b"one,two\n", content_type="text/csv")[0] == 400
    assert asked(echo(texts)).json(PATH, b"one,two\n", content_type="text/csv; header=absent")[0] == 200


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def table() -> pa.Table:
    return pa.table({"x": [0.25, 0.5], "n": [1, 2]})


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    parquet.write_table(table(), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/jsonlines", b'{"x": 0.25, "n": 1}\n{"x": 0.5, "n": 2}\n'),
        ("application/jsonlines", b"[0.25, 1]\n[0.5, 2]"),
        ("application/x-npy", npy(np.array(ROWS))),
        ("application/vnd.apache.parquet", parquet_bytes()),
        ("application/x-parquet", parquet_bytes()),
    ],
)
def test_other_forms_in(kind: str, body: bytes) -> None:
    assert asked().json(PATH, body, content_type=kind) == (200, ANSWER)


def test_other_forms_out() -> None:
    ask = asked()
    body = {"instances": ROWS}
    status, written = ask(PATH, body, accept="text/csv")
    assert (status, written.content_type, written.body) == (200, b"text/csv", b"no\nyes\n")
    assert ask(PATH, body, accept="text/csv; header=present")[1].body == b"label\nno\nyes\n"
    both = ask(PATH, body, accept="text/csv", x_fairway_outputs="*")[1].body
    assert both == b"no,0.75,0.25\nyes,0.5,0.5\n"
    lines = ask(PATH, body, accept="application/jsonlines")[1]
    assert lines.body == b'{"label":"no"}\n{"label":"yes"}\n'
    array = ask(PATH, body, accept="application/x-npy", x_fairway_outputs="probabilities")[1].body
    assert np.load(io.BytesIO(array)).tolist() == [[0.75, 0.25], [0.5, 0.5]]
    stored = ask(PATH, body, accept="application/vnd.apache.parquet")[1].body
    assert parquet.read_table(io.BytesIO(stored)).to_pydict() == {"label": ["no", "yes"]}
    assert ask(PATH, body, accept="image/png")[0] == 406


def test_an_unwrapped_body_gets_an_unwrapped_answer() -> None:
    prompt = (Field(name="prompt", dtype=DType.string),)
    assert asked(echo(prompt)).json(PATH, {"prompt": "hello", "model": "x"}) == (200, ["hello"])
    assert asked().json(PATH, {"prompt": "hello"})[0] == 400  # a model of numbers has no prompt


BAD: list[tuple[Any, str]] = [
    (b"", "JSON Parse error"),
    (b"\xff", "JSON Parse error"),
    (b"{" * 100_000, "JSON Parse error"),
    ([ROWS], "Received a list."),
    ("text", "Received text."),
    (None, "Received null."),
    (3, "Received a number."),
    ({}, "Received dictionary with input fields: []"),
    ({"instances": ROWS, "inputs": ROWS}, "exactly one of the input fields"),
    ({"dataframe_split": ROWS}, "Dataframe split format must be a dictionary."),
    ({"dataframe_split": {"columns": ["x", "n"]}}, "must have 'data' field"),
    ({"dataframe_split": {"columns": ["x", "n"], "data": ROWS, "dtypes": []}}, "must have 'data' field"),
    ({"dataframe_split": {"columns": "x", "data": ROWS}}, "dataframe_split.columns must be a list"),
    ({"dataframe_split": {"columns": ["x", "x"], "data": ROWS}}, "repeat"),
    ({"dataframe_split": {"columns": ["x"], "data": ROWS}}, "values"),
    ({"dataframe_split": {"columns": ["x", "n"], "data": [1, 2]}}, "must be a list of rows"),
    ({"dataframe_split": {"columns": ["x", "n"], "data": ["ab", "cd"]}}, "must be a list of rows"),
    ({"dataframe_split": {"columns": ["x", "n"], "data": None}}, "must be a list of rows"),
    ({"dataframe_split": {"columns": ["x", "n"], "data": []}}, "no rows"),
    ({"dataframe_split": {"columns": ["x"], "data": [[1]]}}, "n: missing"),
    ({"dataframe_records": {"x": [1]}}, "must be a list of records. Got dictionary."),
    ({"dataframe_records": [1]}, "must be a list of records."),
    ({"dataframe_records": []}, "no rows"),
    ({"dataframe_records": [{"x": 1, "n": 2}, {"x": 1}]}, "n, row 1: missing"),
    ({"instances": None}, "not null"),
    ({"instances": 3}, "not a number"),
    ({"instances": []}, "no rows"),
    ({"instances": {}}, "x: missing"),
    ({"instances": [[1, 2], [1]]}, "do not have 2 values"),
    ({"instances": [[1, 2, 3]]}, ""),
    ({"instances": [1, {"x": 1}]}, "all objects"),
    ({"inputs": {"x": [1], "n": 2}}, "columns and single values"),
    ({"inputs": {"x": [1], "n": [1, 2]}}, "rows"),
    ({"instances": [["a", 1]]}, "x, row 0: expected a number, got 'a'"),
    ({"instances": [[None, 1]]}, "x, row 0: is null"),
    ({"instances": ROWS, "params": {"temperature": 1}}, "takes no params"),
    ({"instances": ROWS, "parameters": {"a": 1}}, "takes no parameters"),
    ({"instances": ROWS, "params": [1]}, "params must be an object"),
    ({"instances": ROWS, "params": {"outputs": "label"}}, "must be a list"),
    ({"instances": ROWS, "params": {"outputs": []}}, "This model's outputs are"),
]


@pytest.mark.parametrize(("body", "why"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input_is_400_with_the_keys_of_both(body: Any, why: str) -> None:
    status, told = asked().json(PATH, body)
    assert (status, why in told["message"]) == (400, True), told
    assert told["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
    assert told["error"] == told["message"]
    assert told["request_id"] == "r1"


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json; format=pandas-split",
        "multipart/form-data; boundary=x",
        "application/json-seq",
    ],
)
def test_what_is_not_read_is_415_in_plain_text(kind: str) -> None:
    status, written = asked()(PATH, {"instances": ROWS}, content_type=kind)
    assert (status, written.content_type) == (415, b"text/plain; charset=utf-8")
    assert written.body


@pytest.mark.parametrize(
    "kind",
    ["application/jsonlines", "application/x-npy", "application/vnd.apache.parquet", "text/csv"],
)
@pytest.mark.parametrize(
    "body", [b"", b"\x00\x01", b"PAR1" * 20, b"\x93NUMPY\x01\x00", b'{"x": 1}\n{', b"[" * 9999]
)
def test_bodies_that_are_something_else(kind: str, body: bytes) -> None:
    status, written = asked()(PATH, body, content_type=kind)
    assert status == 400
    assert json.loads(written.body)["error_code"]


def test_in_safe_mode_nothing_is_named() -> None:
    for body, _ in BAD:
        _, written = asked()(PATH, body, safe=True)
        assert json.loads(written.body)["message"] == "The request is not valid."


def test_the_model_of_a_path_that_names_none() -> None:
    ask = asked(classifier(), regressor())
    status, told = ask.json(PATH, {"instances": [1.0]}, x_fairway_model="regressor")
    assert (status, told) == (200, {"predictions": [3.5]})
    status, told = ask.json(PATH, {"instances": [1.0]})
    assert (status, told["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert "X-Fairway-Model" in told["message"]


def test_a_codec_may_say_more_beside_the_predictions() -> None:
    codec = InvocationsCodec({"deployedModelId": "7"})
    ask = Asked(plane(regressor()), (Entry("POST", "/mine", "infer", codec=codec),))
    assert ask.json("/mine", {"instances": [[1.0]]}) == (200, {"predictions": [3.5], "deployedModelId": "7"})


def test_health_and_version(serve: Serve) -> None:
    port = serve(plane(regressor()))
    assert port.ask("GET", "/health")[::2] == (200, b"\n")
    assert port.ask("GET", "/version")[2].startswith(b"3.")
    port.app.ready = False
    assert port.ask("GET", "/health")[0] == 503
