"""OpenAPI documents: valid, and as strict as the contract, no more and no less."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from fairway.core.bundle import GoldenRows
from fairway.core.contract import Action, Category, Contract, DType, Field, Output, Rules, Task
from fairway.core.errors import ContractViolation
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from fairway.inference.rows import from_records
from fairway.inference.validate import Validator
from fairway.serving import openapi_pages
from fairway.serving.openapi import Described, document, example_row, field_schema, row_schema
from tests.planes import live_version, plane
from tests.strategies import contracts, json_value
from tests.unit.serving.conftest import Port, Serve

MIXED = Contract(
    inputs=(
        Field(name="age", dtype=DType.int8, minimum=18.0, maximum=99.0, rules=Rules(on_range=Action.reject)),
        Field(
            name="pay",
            dtype=DType.float64,
            nullable=True,
            impute_with=2.5,
            rules=Rules(on_null=Action.impute),
        ),
        Field(
            name="land",
            dtype=DType.string,
            categories=(Category("DE", 0.5), Category("FR", 0.5)),
            rules=Rules(on_category=Action.reject),
            description="Where from.",
        ),
        Field(name="at", dtype=DType.timestamp),
        Field(name="image", dtype=DType.float32, shape=(2, 3)),
    ),
    outputs=(Output(name="label", dtype=DType.string), Output(name="p", dtype=DType.float32, shape=(2,))),
    task=Task.classification,
)
GOLDEN = GoldenRows(
    inputs={
        "age": [20],
        "pay": [None],
        "land": ["DE"],
        "at": ["2026-01-01T00:00:00Z"],
        "image": [[[1, 2, 3], [4, 5, 6]]],
    },
    outputs={"label": ["yes"], "p": [[0.5, "NaN"]]},
)


def described(contract: Contract = MIXED, golden: GoldenRows = GOLDEN, name: str = "m") -> Described:
    return Described(name, ("1", "2"), contract, golden)


def test_the_document_is_valid_and_its_examples_fit_it() -> None:
    told: Any = json.loads(json.dumps(document([described()], title="m", server=True)))
    validate(told)
    content = told["paths"]["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]
    schemas = {"components": told["components"]}
    for example, schema in (("rows", "m.rows"), ("v2", "m.v2")):
        value = content["examples"][example]["value"]
        Draft202012Validator({"$ref": f"#/components/schemas/{schema}", **schemas}).validate(value)
        assert Draft202012Validator({**content["schema"], **schemas}).is_valid(value)
    assert not Draft202012Validator({**content["schema"], **schemas}).is_valid({"dataframe_records": []})
    answer = told["paths"]["/v2/models/m/infer"]["post"]["responses"]["200"]["content"]["application/json"]
    Draft202012Validator({**answer["schema"], **schemas}).validate(answer["example"])
    assert answer["example"]["outputs"][1]["data"] == [0.5, None]
    validate(json.loads(json.dumps(document([], title="Fairway", server=True))))


def test_what_a_field_says() -> None:
    age, pay, land, at, image = (field_schema(field) for field in MIXED)
    assert age == {"type": "integer", "minimum": 18.0, "maximum": 99.0}
    assert (pay["type"], pay["description"]) == (["number", "null"], "Null becomes 2.5.")
    assert (land["enum"], land["description"]) == (["DE", "FR"], "Where from.")
    assert at == {"type": "string", "format": "date-time"}
    assert (image["maxItems"], image["items"]["minItems"], image["items"]["items"]["type"]) == (
        2,
        3,
        "number",
    )
    loose = Field(name="x", dtype=DType.uint8, minimum=1.0, maximum=9.0, categories=(Category(1, 1.0),))
    schema = field_schema(loose)
    assert (schema["minimum"], schema["maximum"]) == (0, 255)
    assert "1 to 9; others are let through" in schema["description"]


def test_no_golden_rows_no_example() -> None:
    empty = GoldenRows(inputs={}, outputs={})
    assert example_row(MIXED, empty) is None
    validate(json.loads(json.dumps(document([described(golden=empty)], title="m", server=False))))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_row_fits_the_schema_just_when_the_contract_takes_it(data: st.DataObject) -> None:
    contract = data.draw(contracts())
    # Moved into the range and then outside the fence, or not: which of two rules comes first is no matter of a schema.
    moves = (Action.clip, Action.impute)
    assume(not any(field.fence and field.rules.on_range in moves for field in contract))
    row = {field.name: data.draw(json_value(field)) for field in contract}
    validator = Draft202012Validator(json.loads(json.dumps(row_schema(contract))))
    try:
        Validator(contract).check(from_records([row], contract), lambda field, rule, rows: None)
        taken = True
    except ContractViolation:
        taken = False
    fits = validator.is_valid(row)
    if all(field.dtype is not DType.timestamp for field in contract):
        assert fits == taken, (
            row,
            contract,
        )  # of dates more is taken than date-time says: the time may be missing


@pytest.fixture
def port(serve: Serve) -> Port:
    models = [LiveModel(everything_to(name, 1), {1: live_version(1, model=name)}, {}) for name in ("m", "n")]
    return serve(plane(*models))


def test_the_paths(port: Port) -> None:
    for path, names in (("/openapi.json", ["m", "n"]), ("/v2/models/n/openapi.json", ["n"])):
        status, headers, body = port.ask("GET", path)
        assert (status, headers["content-type"]) == (200, "application/json")
        told = json.loads(body)
        validate(told)
        assert [tag["name"] for tag in told["tags"]] == names
    assert port.ask("GET", "/v2/models/none/openapi.json")[0] == 404


def test_the_page_is_one_file_that_runs_nothing_else(port: Port) -> None:
    for path in ("/v2/docs", "/v2/models/m/docs", "/v2/models/none/docs"):
        status, headers, body = port.ask("GET", path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        text = body.decode()
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
        assert openapi_pages._page()[0] == body


def test_numbers_of_a_matrix_are_exact_in_it() -> None:
    fields = tuple(Field(name=name, dtype=DType.int64, minimum=0.0, maximum=5.0) for name in "ab")
    schema = row_schema(Contract(inputs=fields, outputs=()))
    assert schema["properties"]["a"]["maximum"] == 2**53
    assert np.iinfo(np.int64).max > 2**53
