"""Keys in bodies: every place they may stand, what is left of the body, and what has none."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import FairwayError, InvalidInput
from fairway.serving.entrance import Heading, Target
from fairway.serving.invocations import InvocationsCodec
from fairway.serving.keyed import Taken, key_text, take_column, take_keys
from fairway.serving.open_inference import V2Codec
from fairway.serving.tensorflow_serving import TensorflowCodec
from fairway.serving.torchserve import TorchserveCodec

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def contract(*names: str) -> Contract:
    inputs = tuple(Field(name=name, dtype=DType.float64) for name in names)
    return Contract(inputs=inputs, outputs=(Output(name="y", dtype=DType.float64),))


TWO = contract("a", "b")
WITH_KEY = contract("id", "a")
ONLY_KEY = contract("id")
CLASSES = Contract(
    inputs=TWO.inputs,
    outputs=(
        Output(name="label", dtype=DType.int64),
        Output(name="probabilities", dtype=DType.float32, shape=(2,)),
    ),
    task=Task.classification,
)
json_encode = msgspec.json.encode


@pytest.mark.parametrize(
    ("sent", "keys", "left"),
    [
        ({"id": "x"}, [b"x"], {}),
        ({"id": ["x", 2]}, [b"x", b"2"], {}),
        ({"id": "x", "instances": [[1, 2]]}, [b"x"], {"instances": [[1, 2]]}),
        ({"params": {"id": "x"}}, [b"x"], {}),
        ({"parameters": {"id": "x", "outputs": ["y"]}}, [b"x"], {"parameters": {"outputs": ["y"]}}),
        ({"instances": [{"id": "x", "a": 1}]}, [b"x"], {"instances": [{"a": 1}]}),
        ({"instances": [{"id": "x"}, {"id": 7}]}, [b"x", b"7"], {}),
        ({"inputs": {"id": ["x"], "a": [1]}}, [b"x"], {"inputs": {"a": [1]}}),
        ({"inputs": {"id": ["x"]}}, [b"x"], {}),
        (
            {"dataframe_split": {"columns": ["a", "id"], "data": [[1, "x"], [2, "y"]]}},
            [b"x", b"y"],
            {"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}},
        ),
        ({"dataframe_split": {"columns": ["id"], "data": [["x"]]}}, [b"x"], {}),
        # nothing to take
        ({"instances": [[1, 2]]}, None, {"instances": [[1, 2]]}),
        ({"instances": []}, None, {"instances": []}),
        ({"instances": [{"a": 1}, {"id": "x"}]}, None, {"instances": [{"a": 1}, {"id": "x"}]}),
        ({"instances": [{"id": "x"}, 3]}, None, {"instances": [{"id": "x"}, 3]}),
        (
            {"dataframe_split": {"columns": ["id"], "data": [[1, 2]]}},
            None,
            {"dataframe_split": {"columns": ["id"], "data": [[1, 2]]}},
        ),
        ({"params": "id"}, None, {"params": "id"}),
        ({}, None, {}),
    ],
)
def test_keys_are_taken_out_of_a_body(sent: dict[str, Any], keys: list[bytes] | None, left: Any) -> None:
    taken = take_keys(sent, "id", TWO, FORMS)
    assert taken.keys == keys
    assert sent == left


def test_a_form_that_had_nothing_but_keys_is_told() -> None:
    assert take_keys({"inputs": {"id": ["x"]}}, "id", TWO, FORMS) == Taken([b"x"], "inputs")
    assert take_keys({"id": "x"}, "id", TWO, FORMS) == Taken([b"x"], "")


def test_whole_numbers_in_a_matrix_are_keys() -> None:
    frame = {"columns": ["id", "a"], "data": np.array([[1001.0, 0.5], [1002.0, 1.5]])}
    sent: dict[str, Any] = {"dataframe_split": frame}
    assert take_keys(sent, "id", TWO, FORMS).keys == [b"1001", b"1002"]
    assert sent["dataframe_split"]["data"].tolist() == [[0.5], [1.5]]


def test_a_field_of_the_same_name_stays() -> None:
    rows = {"instances": [{"id": 1.0, "a": 2.0}]}
    assert take_keys(rows, "id", WITH_KEY, FORMS).keys == [b"1"]
    assert rows == {"instances": [{"id": 1.0, "a": 2.0}]}
    only = {"instances": [{"id": 1.0}]}
    assert take_keys(only, "id", WITH_KEY, FORMS) == Taken([b"1"], "instances")
    assert only == {}
    all_there_is = {"instances": [{"id": 1.0}]}
    assert take_keys(all_there_is, "id", ONLY_KEY, FORMS).keys == [b"1"]
    assert all_there_is == {"instances": [{"id": 1.0}]}


@pytest.mark.parametrize("bad", [1.5, None, {"a": 1}, "", [["x"]], "x" * 481, True])
def test_what_is_no_key_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInput):
        take_keys({"id": bad}, "id", TWO, FORMS)
    with pytest.raises(InvalidInput, match="row 1"):
        take_keys({"instances": [{"id": "x"}, {"id": bad}]}, "id", TWO, FORMS)


def test_a_column_of_keys_is_taken_out_of_inputs() -> None:
    assert take_column({"a": [1.0]}, "id", TWO) == ({"a": [1.0]}, None)
    assert take_column({"a": [1.0], "id": ["x"]}, "id", TWO) == ({"a": [1.0]}, [b"x"])
    assert take_column({"id": ["x", "y"]}, "id", TWO) == ({}, [b"x", b"y"])
    assert take_column({"id": [1]}, "id", WITH_KEY) == ({}, [b"1"])
    assert take_column({"id": [1], "a": [2.0]}, "id", WITH_KEY) == ({"id": [1], "a": [2.0]}, [b"1"])
    assert take_column({"id": [1]}, "id", ONLY_KEY) == ({"id": [1]}, [b"1"])
    inputs, keys = take_column({"id": np.array([[3], [4]])}, "id", TWO)
    assert (inputs, keys) == ({}, [b"3", b"4"])


def test_headers_are_text_in_either_encoding() -> None:
    assert key_text("käse".encode()) == key_text("käse".encode("latin-1")) == "käse"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "a", "x"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*FORMS, "id", "params", "parameters"]), json_values))
def test_law_any_body_is_read_or_refused(sent: dict[str, Any]) -> None:
    for about in (TWO, WITH_KEY, ONLY_KEY):
        try:
            taken = take_keys(dict(sent), "id", about, FORMS)
        except InvalidInput:
            continue
        assert taken.keys is None or all(isinstance(key, bytes) and key for key in taken.keys)


# -- every codec, with whatever is sent

CODECS = {
    "v2": (V2Codec(), ""),
    "v1": (TensorflowCodec(), "predict"),
    "classify": (TensorflowCodec(), "classify"),
    "invocations": (InvocationsCodec(), ""),
    "torchserve": (TorchserveCodec(), ""),
}
members = st.sampled_from([*FORMS, "id", "params", "parameters", "examples", "outputs", "a", "b"])
tensors = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["id", "a", "b"]),
            "datatype": st.sampled_from(["BYTES", "FP64", "INT64"]),
            "shape": st.sampled_from([[1], [2], [0], [1, 1]]),
            "data": st.lists(st.sampled_from(["x", 1, 2.5, None]), max_size=2),
        }
    ),
    max_size=3,
)
bodies = st.one_of(
    st.binary(max_size=20),
    json_values.map(json_encode),
    st.dictionaries(members, json_values | tensors, max_size=4).map(json_encode),
)


@pytest.mark.parametrize("name", CODECS)
@given(body=bodies, key=st.none() | st.sampled_from(["k", "x" * 500]))
def test_law_whatever_is_sent_is_read_or_refused(name: str, body: bytes, key: str | None) -> None:
    codec, verb = CODECS[name]
    target = Target(codec, "m", None, verb)  # type: ignore[arg-type]
    for key_name in ("id", ""):
        heading = Heading("m", None, "r", key, key_name=key_name)
        try:
            request = codec.read(
                target, heading, body, {b"content-type": b"application/json"}, CLASSES
            ).request
        except FairwayError:
            continue
        assert request.keys is None or key_name


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("v2", {"parameters": {"id": "x"}}),
        ("v2", {"id": "x", "parameters": {"id": "y"}}),
        ("v1", {"instances": [{"id": "x"}]}),
        ("classify", {"examples": [{"id": "x"}]}),
        ("invocations", {"dataframe_records": [{"id": "x"}]}),
        ("torchserve", [{"id": "x"}]),
        ("torchserve", {"id": "x"}),
    ],
)
def test_a_model_without_precomputed_answers_takes_no_keys(name: str, body: Any) -> None:
    codec, verb = CODECS[name]
    target = Target(codec, "m", None, verb)  # type: ignore[arg-type]
    headers = {b"content-type": b"application/json"}
    heading = Heading("m", None, "r")
    try:
        request = codec.read(target, heading, json_encode(body), headers, CLASSES).request
    except FairwayError:
        pass
    else:
        assert (request.keys, bool(request.inputs)) == (None, True)
    keyed = msgspec.structs.replace(heading, key_name="id")
    request = codec.read(target, keyed, json_encode(body), headers, CLASSES).request
    assert request.keys == [b"y" if body == {"id": "x", "parameters": {"id": "y"}} else b"x"]
    assert (request.inputs, request.key) == ({}, request.keys[0].decode())
