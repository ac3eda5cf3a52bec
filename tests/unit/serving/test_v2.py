"""V2 bodies: what is accepted is what numpy would have read, both parsers agree, and nothing else than ours is raised."""

import json
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import MalformedInput
from fairway.serving import v2
from fairway.serving.v2 import decode_body
from fairway.serving.v2_raw import DATATYPES

NUMPY = {datatype: dtype.value for dtype, datatype in DATATYPES.items() if dtype.is_numeric}
PADDING = b" " * v2._LARGE_BODY
"""Makes any body one that the fast parser looks at."""


def body(*tensors: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **more}).encode()


def tensor(
    data: Any, shape: list[int] | None = None, datatype: str = "FP64", name: str = "x"
) -> dict[str, Any]:
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
    }


def shown(content: bytes) -> Any:
    """What a body decodes to, in a form to compare; refusals are all alike."""
    try:
        decoded = decode_body(content)
    except MalformedInput:
        return "refused"
    if decoded.inputs is None:
        return "rows"
    read = {
        name: (values.dtype.str, values.shape, values.tolist()) if isinstance(values, np.ndarray) else values
        for name, values in decoded.inputs.items()
    }
    return str(read), decoded.id


@st.composite
def tensors(draw: st.DrawFn, name: str) -> tuple[dict[str, Any], np.ndarray]:
    """A tensor of any datatype with what numpy makes of it, flat or nested."""
    datatype = draw(st.sampled_from(sorted(NUMPY)))
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    count = int(np.prod(shape))
    if datatype == "BOOL":
        value: st.SearchStrategy[Any] = st.booleans()
    elif datatype.startswith("FP"):
        value = st.floats(allow_nan=False, allow_infinity=False, width=int(datatype[2:])) | st.integers(
            -1000, 1000
        )
    else:
        limits = np.iinfo(NUMPY[datatype])
        value = st.integers(int(limits.min), int(limits.max))
    data = draw(st.lists(value, min_size=count, max_size=count))
    expected = np.array(data, dtype=NUMPY[datatype]).reshape(shape)
    nested = draw(st.booleans()) and count > 0
    sent = expected.tolist() if nested and datatype not in ("FP16", "FP32") else data
    return tensor(sent, shape, datatype, name), expected


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from("abc"), unique=True, min_size=1).flatmap(
        lambda names: st.tuples(*map(tensors, names))
    ),
    st.booleans(),
)
def test_every_datatype_flat_or_nested_is_what_numpy_reads(drawn: tuple[Any, ...], large: bool) -> None:
    content = body(*(sent for sent, _ in drawn)) + (PADDING if large else b"")
    decoded = decode_body(content)
    assert decoded.inputs is not None
    for sent, expected in drawn:
        read = decoded.inputs[sent["name"]]
        if sent["datatype"] == "BOOL":
            assert np.array(read, dtype=bool).ravel().tolist() == expected.ravel().tolist()
            continue
        values = np.array(read).reshape(expected.shape)
        np.testing.assert_array_equal(values, expected)
        if isinstance(read, np.ndarray) and read.dtype.kind != "O":
            assert read.dtype == expected.dtype
            assert read.shape == expected.shape


MUTANTS = [b"[", b"]", b"{", b"}", b",", b'"', b"1", b"-", b".", b"e9", b"null", b"true", b"NaN", b"\x00", b"\xff", b"[1,2]", b"[]", b'"inputs":[],', b'"id":"a",', b"99999999999999999999"]  # fmt: skip
GOOD = [
    body(tensor([1, 2.5, 3], [3])),
    body(tensor([1, 2, 3, 4], [2, 2], "INT32", "a"), tensor([0.5, 1], [2], "FP32", "b"), id="abc"),
    body(tensor([[1, 2], [3, 4]], [2, 2], "INT64")),
    body(tensor([[1.5], [3]], [2, 1], "FP16")),
    body(tensor([[[1], [2]], [[3], [4]]], [2, 2, 1])),
]


@settings(max_examples=600)
@given(st.data())
@example(None)
def test_both_parsers_accept_the_same_and_read_it_alike(data: st.DataObject | None) -> None:
    if data is None:
        for content in HIDDEN_LISTS:
            assert shown(content) == shown(content + PADDING)
        return
    content = data.draw(st.sampled_from(GOOD))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 6))
        content = (
            content[:place] + data.draw(st.sampled_from(MUTANTS) | st.just(b"")) + content[place + cut :]
        )
    if len(content) < v2._LARGE_BODY:
        assert shown(content) == shown(content + PADDING)


HIDDEN_LISTS = [
    body(tensor([1, [2], 3], [3])),
    body(tensor([[[1, 2], []], [3, 4]], [2, 2])),
    body(tensor([[1], 2], [2])),
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}],"inputs":[]}',
    b'{"inputs":[{"name":"x","name":"y","shape":[1],"datatype":"FP64","data":[1]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1],"data":[2]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1]}],"id":"a","id":"b"}',
    body(tensor([2**63, 2**64 - 1], datatype="FP64")),
    body(tensor([2**63], datatype="INT64")),
    body(tensor([2**63], datatype="UINT64")),
    body(tensor([300], datatype="UINT8")),
    body(tensor([1.0], datatype="INT8")),
    body(tensor([], [0])),
    body(tensor([], [2, 0])),
    body(tensor([1]), id=None),
    body(tensor([1]), id=5),
    b'{"inputs":[{"name":"\xff","shape":[1],"datatype":"FP64","data":[1]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["\xff"]}]}',
    b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":[["\xff"]]}]}',
]


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_as_malformed(content: bytes) -> None:
    for sent in (content, content + PADDING, PADDING + content):
        try:
            decode_body(sent)
        except MalformedInput:
            pass


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=15,
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {
            "name": JSON | st.just("x"),
            "shape": JSON | st.lists(st.integers(-2, 70), max_size=70),
            "datatype": JSON | st.sampled_from([*sorted(NUMPY), "BYTES"]),
            "data": JSON,
        }
    )
)
def test_any_json_as_a_tensor_is_read_or_refused(sent: dict[str, Any]) -> None:
    content = json.dumps({"inputs": [sent]}).encode()
    assert shown(content) == shown(content + PADDING) or "inf" in content.decode().lower()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "The body is empty"),
        (b" \n", "The body is empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"{", "truncated"),
        (b"null", "Expected `object`"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"x":' + b"[" * 100_000, "truncated|nested too deeply"),
        (b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [NaN]}]}',
            "no NaN or Infinity: send null",
        ),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [-Infinity]}]}',
            "no NaN or Infinity",
        ),
        (b'{"inputs": [{"shape": [1], "datatype": "FP64", "data": [1]}]}', "missing required field `name`"),
        (b'{"inputs": [], "id": 5}', r"Expected `str \| null`"),
        (b'{"inputs": []}', "inputs is empty"),
    ],
    ids=range(13),
)
def test_what_is_not_a_request_is_told_where(content: bytes, why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        decode_body(content)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (tensor([1, 2], [3]), r"shape \[3\] needs 3 values, data has 2"),
        (tensor([1, 2], [-1]), "not a list of sizes"),
        (tensor([1], []), "not a list of sizes"),
        (tensor([1], [1] * 70), "not one an array can have"),
        (tensor([], [0, 10**30]), "not one an array can have"),
        (tensor([1], [10**4000, 10**4000]), "needs far more values"),
        (tensor([[1, 2], [3]], [2, 2]), "ragged near element 1"),
        (tensor([[1, 2], 3], [2, 2]), "ragged"),
        (tensor([[1, 2]], [2, 2]), "needs 2 rows, data has 1"),
        (tensor([1], datatype="FP8"), "'FP8' is not one of BOOL, BYTES"),
        (tensor([1], datatype=""), "is not one of"),
        (tensor([128], datatype="INT8"), r"128 does not fit INT8 \(-128 to 127\)"),
        (tensor([-1], datatype="UINT64"), "does not fit UINT64"),
        ({"name": "x", "shape": [1], "datatype": "FP64"}, "has no data"),
        ({"name": "x", "shape": [1], "datatype": "FP64", "data": {}}, "data must be a list"),
        ({"name": "x", "shape": [1], "datatype": "FP64", "data": "abc"}, "data must be a list"),
    ],
    ids=range(16),
)
@pytest.mark.parametrize("padding", [b"", PADDING])
def test_what_is_not_a_tensor_is_named(sent: dict[str, Any], why: str, padding: bytes) -> None:
    with pytest.raises(MalformedInput, match="Some inputs cannot be read") as refused:
        decode_body(body(sent) + padding)
    [problem] = refused.value.problems
    assert problem.field == "x"
    assert re.search(why, problem.reason)
    assert len(problem.reason) < 300


def test_every_bad_tensor_is_named_and_a_name_stands_once() -> None:
    with pytest.raises(MalformedInput) as refused:
        decode_body(body(tensor([1], [2], name="a"), tensor([1], [3], name="b"), tensor([1]), tensor([1])))
    assert [p.field for p in refused.value.problems] == ["a", "b", "x"]


def test_texts_and_nulls_stay_lists_for_validation() -> None:
    decoded = decode_body(
        body(
            tensor(["a", "b"], datatype="BYTES", name="s"),
            tensor([1.5, None], name="n"),
            tensor(["a", None], [2, 1], "BYTES", "column"),
        )
    )
    assert decoded.inputs == {"s": ["a", "b"], "n": [1.5, None], "column": ["a", None]}


def test_the_other_parts_of_a_body() -> None:
    decoded = decode_body(body(tensor([1]), id="mine", outputs=[{"name": "y"}], parameters={"key": 7}))
    assert (decoded.id, decoded.parameters) == ("mine", {"key": 7})
    assert decoded.outputs is not None
    assert [output.name for output in decoded.outputs] == ["y"]


# Metadata

CONTRACT = Contract(
    inputs=(Field(name="a", dtype=DType.float64), Field(name="image", dtype=DType.uint8, shape=(2, 2))),
    outputs=(
        Output(name="label", dtype=DType.string),
        Output(name="probabilities", dtype=DType.float32, shape=(2,)),
        Output(name="at", dtype=DType.timestamp),
    ),
)


def test_metadata_names_every_input_and_output() -> None:
    told = msgspec.json.decode(v2.metadata("m", ["1", "2"], "fairway_onnx", CONTRACT))
    assert told["inputs"] == [
        {"name": "a", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "image", "datatype": "UINT8", "shape": [-1, 2, 2]},
    ]
    assert told["outputs"][1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
    assert (told["versions"], told["platform"]) == (["1", "2"], "fairway_onnx")
