"""V2's predict bodies in any form: what they ask for, and how their answers are to be written."""

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import FairwayError, MalformedInput, NotAcceptable, UnsupportedContent
from fairway.core.request import Request
from fairway.inference.live import Table
from fairway.serving.answers import heading_from, request_id_from
from fairway.serving.entrance import Heading, Target
from fairway.serving.open_inference import V2Codec
from fairway.serving.v2_answer import PLAIN, Form
from fairway.serving.v2_request import read_request
from tests.planes import TWO_NUMBERS

V2 = {
    "inputs": [
        {"name": "a", "shape": [1], "datatype": "FP64", "data": [1]},
        {"name": "b", "shape": [1], "datatype": "FP64", "data": [2]},
    ]
}
FORMS = {
    "inputs": V2["inputs"],
    "dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]},
    "dataframe_records": [{"a": 1, "b": 2}],
    "instances": [[1, 2]],
}


def read(content: bytes | dict[str, Any], **headers: str) -> Request:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return read_request(heading(sent), TWO_NUMBERS, raw, sent)[0]


def form(content: bytes | dict[str, Any], **headers: str) -> Form:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return read_request(heading(sent), TWO_NUMBERS, raw, sent)[1]


def heading(headers: dict[bytes, bytes]) -> Heading:
    target = Target(V2Codec(), "m")
    return heading_from(target, headers, request_id_from(headers.get(b"x-request-id")), Table(()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/cloudevents+json",
        "",
        "APPLICATION/JSON",
    ],
)
def test_every_json_form_under_every_json_type(form: str, kind: str) -> None:
    inputs = read({form: FORMS[form]}, content_type=kind).inputs
    assert {name: list(values) for name, values in inputs.items()} == {"a": [1], "b": [2]}


@pytest.mark.parametrize("kind", ["text/csv", "application/csv; header=present"])
def test_csv(kind: str) -> None:
    assert read(b"a,b\n1,2\n", content_type=kind).inputs == {"a": [1.0], "b": [2.0]}


@pytest.mark.parametrize(
    "kind",
    ["text/html", "application/xml", "application/octet-stream", "multipart/form-data", "json", "\xff"],
)
def test_a_type_nobody_reads(kind: str) -> None:
    with pytest.raises(UnsupportedContent, match=r"Known are application/json, text/csv, .*parquet"):
        read(b"x", content_type=kind)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "it has none of them"),
        ({"other": 1}, "none of them"),
        ({"instances": None}, "none of them"),
        ({"instances": [[1, 2]], "dataframe_records": [{}]}, "dataframe_records and instances at once"),
        ({**V2, "instances": [[1, 2]]}, "inputs and instances at once"),
        ({"dataframe_split": {"columns": ["a"]}}, "dataframe_split cannot be read"),
        ({"dataframe_split": []}, "dataframe_split cannot be read"),
        ({"dataframe_records": {}}, "dataframe_records cannot be read"),
        ({"dataframe_records": [1]}, "dataframe_records cannot be read"),
        ({"instances": {"a": 1}}, "instances cannot be read"),
        ({"instances": []}, "no rows"),
        ({"dataframe_records": []}, "no rows"),
        ({**V2, "outputs": [{"name": "score"}]}, "outputs are sum, both"),
    ],
)
def test_a_body_in_no_form_or_in_several(content: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        read(content)


@pytest.mark.parametrize("form", ["dataframe_records", "instances", "dataframe_split"])
def test_bytes_that_are_no_text(form: str) -> None:
    content = {
        "instances": b'[["\xff", 1]]',
        "dataframe_records": b'[{"\xff": 1}]',
        "dataframe_split": b'{"columns":["\xff"],"data":[]}',
    }
    with pytest.raises(MalformedInput, match="UTF-8"):
        read(b'{"%b": %b}' % (form.encode(), content[form]))


@given(
    st.sampled_from(sorted(FORMS)),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b", "columns", "data", "name", "shape"]), i, max_size=4)
        ),
        max_leaves=10,
    ),
)
def test_any_json_in_any_form_is_read_or_refused(form: str, value: Any) -> None:
    try:
        read({form: value})
    except FairwayError:
        pass


def test_key_and_wanted_outputs() -> None:
    assert read({**V2, "parameters": {"key": 5}}).key == "5"
    assert read({**V2, "parameters": {"key": 5}}, x_fairway_key="header wins").key == "header wins"
    assert read({"instances": [[1, 2]]}, x_fairway_key="k\xe9").key == "k\xe9"
    assert read(V2).key is None
    assert read({**V2, "outputs": [{"name": "sum"}]}).wanted == ("sum",)


def test_v2_ids_are_echoed() -> None:
    assert form({**V2, "id": "e"}) == Form("e")
    assert form(V2) is PLAIN


def test_what_an_answer_is_to_look_like() -> None:
    asked = {
        **V2,
        "outputs": [
            {"name": "sum", "parameters": {"binary_data": False}},
            {"name": "both", "parameters": {"classification": 2}},
        ],
        "parameters": {"binary_data_output": True, "anything": {"else": [1]}},
    }
    assert form(asked) == Form(None, "json", True, (("sum", False),), (("both", 2),))
    assert form(V2, accept="text/csv").kind == "csv"
    assert form(b"a,b\n1,2\n", content_type="text/csv", accept="application/json") is PLAIN
    assert form(b"a,b\n1,2\n", content_type="text/csv", accept="application/jsonl").kind == "jsonlines"
    with pytest.raises(NotAcceptable, match="known are application/json"):
        form(V2, accept="image/png")


def test_an_empty_list_of_outputs_means_all() -> None:
    assert read({**V2, "outputs": []}).wanted is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"parameters": {"sequence_id": 7}}, "no model here keeps state"),
        ({"parameters": {"sequence_start": True}}, "no model here keeps state"),
        ({"parameters": {"timeout": "soon"}}, "microseconds"),
        ({"parameters": {"timeout": -1}}, "microseconds"),
        ({"parameters": [1]}, "Expected `object"),
        ({"parameters": {"binary_data_output": 1}}, "true or false"),
        ({"parameters": {"key": ["a"]}}, "The parameter key"),
        ({"outputs": [{"name": "sum", "parameters": {"classification": 1.5}}]}, "a whole one"),
        ({"outputs": [{"name": "sum", "parameters": {"classification": -1}}]}, "must hold numbers"),
        ({"outputs": [{"name": "sum", "parameters": {"binary_data": "yes"}}]}, "Expected `bool"),
        ({"outputs": [{"name": "sum", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    ],
)
def test_parameters_that_mean_something_else_here(more: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        read({**V2, **more})


def test_parameters_that_ask_for_nothing() -> None:
    nothing = {"sequence_id": 0, "sequence_start": False, "priority": 3, "timeout": 0}
    assert read({**V2, "parameters": nothing}).deadline is None


def test_tritons_timeout_is_a_deadline() -> None:
    before = time.perf_counter()
    deadline = read({**V2, "parameters": {"timeout": 250_000}}).deadline
    assert deadline is not None
    assert before + 0.25 < deadline < time.perf_counter() + 0.26
    sooner = read({**V2, "parameters": {"timeout": 250_000}}, x_request_timeout_ms="1").deadline
    assert sooner is not None
    assert sooner < deadline


IMAGE = Contract(
    inputs=(Field(name="image", dtype=DType.uint16, shape=(2,)),),
    outputs=(Output(name="y", dtype=DType.float32),),
)


def bare(body: bytes, contract: Contract = IMAGE) -> Request:
    return read_request(heading({}), contract, body, {b"inference-header-content-length": b"0"})[0]


def test_raw_bytes_alone() -> None:
    values = np.arange(6, dtype=np.uint16).reshape(3, 2)
    np.testing.assert_array_equal(bare(values.tobytes()).inputs["image"], values)
    texts = Contract(inputs=(Field(name="t", dtype=DType.string),), outputs=())
    assert bare(b"\x02\x00\x00\x00hi", texts).inputs == {"t": ["hi"]}
    with pytest.raises(MalformedInput, match="cannot be read"):
        bare(b"12345")
    with pytest.raises(MalformedInput, match="this one has 2"):
        bare(b"12345", TWO_NUMBERS)


@pytest.mark.parametrize("length", ["-1", "", "1e3", "9" * 30, "100000", "0x5", " 5", "\xff"])
def test_a_header_length_that_lies(length: str) -> None:
    with pytest.raises(MalformedInput, match="Inference-Header-Content-Length"):
        read(V2, inference_header_content_length=length)
