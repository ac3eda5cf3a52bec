"""ModelInfer: every datatype, raw and typed, gives what V2's JSON gives; what is wrong is named, and the server lives."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import FairwayError, InvalidInput, MalformedInput, NotSupported
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from fairway.serving.entrance import Heading
from fairway.serving.grpc import wire
from fairway.serving.grpc.infer import INFER
from fairway.serving.grpc.messages import message
from fairway.serving.grpc.method import Arrival
from fairway.serving.grpc.tensors import FIELDS
from fairway.serving.v2_raw import DATATYPES, NUMPY
from fairway.serving.v2_request import read_request
from tests.planes import TWO_NUMBERS, Adding, live_version, plane
from tests.unit.serving.grpc.conftest import INFER as PATH
from tests.unit.serving.grpc.conftest import Port, Serve, asking, raw

Request = message("inference.ModelInferRequest")
Answer = message("inference.ModelInferResponse")
TABLE = plane().table


def read(request: Any) -> Any:
    """What the codec makes of a request, without a model."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return INFER.read(data, Arrival("r"), lambda model: "", TABLE).request


def from_json(datatype: str, shape: list[int], data: list[Any]) -> Any:
    body = {"inputs": [{"name": "a", "datatype": datatype, "shape": shape, "data": data}]}
    request, _ = read_request(Heading("m", None, "r"), TWO_NUMBERS, json.dumps(body).encode(), {})
    return request.inputs["a"]


def same(left: Any, right: Any) -> None:
    left, right = np.asarray(left), np.asarray(right)
    assert left.shape == right.shape
    assert left.dtype.kind == right.dtype.kind or {left.dtype.kind, right.dtype.kind} <= set("OU")
    if left.dtype.kind in "OU":
        assert left.tolist() == right.tolist()
    else:
        assert left.astype(left.dtype.newbyteorder("=")).tobytes() == right.astype(left.dtype).tobytes()


shapes = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


@pytest.mark.parametrize("datatype", sorted(NUMPY))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_raw_typed_and_json_give_the_same_array(datatype: str, data: st.DataObject) -> None:
    dtype = NUMPY[datatype]
    elements = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False) if dtype.kind == "f" else None
    values = data.draw(npst.arrays(dtype, shapes, elements=elements))
    described = {"name": "a", "datatype": datatype, "shape": values.shape}
    raw_read = read(
        Request(model_name="m", inputs=[described], raw_input_contents=[values.tobytes()])
    ).inputs["a"]
    same(raw_read, values)
    if values.size and datatype in FIELDS:
        typed = {**described, "contents": {FIELDS[datatype]: values.reshape(-1).tolist()}}
        same(read(Request(model_name="m", inputs=[typed])).inputs["a"], values)
    if values.size and datatype == "BOOL":  # which JSON leaves as a list
        assert (
            np.ravel(from_json(datatype, list(values.shape), values.ravel().tolist())).tolist()
            == values.ravel().tolist()
        )
    elif values.size:
        same(from_json(datatype, list(values.shape), values.reshape(-1).tolist()), values)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6))
def test_texts_come_the_same_in_every_way(texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    described = {"name": "a", "datatype": "BYTES", "shape": [len(texts)]}
    packed = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    assert read(Request(model_name="m", inputs=[described], raw_input_contents=[packed])).inputs["a"] == texts
    typed = {**described, "contents": {"bytes_contents": encoded}}
    assert read(Request(model_name="m", inputs=[typed])).inputs["a"] == texts
    assert from_json("BYTES", [len(texts)], texts) == texts


def test_bfloat16_is_read_exactly() -> None:
    values = np.array([1.0, -2.5, 3.0], dtype=np.float32)
    high = (values.view(np.uint32) >> 16).astype("<u2")
    described = {"name": "a", "datatype": "BF16", "shape": [3]}
    same(
        read(Request(model_name="m", inputs=[described], raw_input_contents=[high.tobytes()])).inputs["a"],
        values,
    )


def wrong(**tensor: Any) -> Any:
    request = Request(model_name="m")
    content = tensor.pop("raw", None)
    request.inputs.add(**{"name": "a", "datatype": "FP64", "shape": [2], **tensor})
    if content is not None:
        request.raw_input_contents.append(content)
    return request


TWICE = asking()
TWICE.inputs[1].name = "a"
BOTH = asking()
BOTH.inputs[0].contents.fp64_contents.extend([1.0, 2.0])
FEWER = asking()
del FEWER.raw_input_contents[1]
SHARED = asking()
SHARED.inputs[0].parameters["shared_memory_region"].string_param = "r"
UNKNOWN = asking()
UNKNOWN.outputs.add(name="nope")
CLASSES = asking()
CLASSES.outputs.add(name="both").parameters["classification"].int64_param = -1


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (wrong(raw=b"1234567"), MalformedInput, "needs 16 bytes, 7 came"),
        (wrong(raw=b"x" * 17), MalformedInput, "needs 16 bytes, 17 came"),
        (wrong(raw=b"", shape=[2**62, 2**62]), MalformedInput, "needs far more bytes"),
        (wrong(raw=b"", shape=[-1]), MalformedInput, "not a list of sizes"),
        (wrong(raw=b"", shape=[0, 2**63 - 1, 2**63 - 1, 2]), MalformedInput, "not one an array can have"),
        (wrong(raw=b"", shape=[]), MalformedInput, "not a list of sizes"),
        (wrong(raw=b"\2\1", datatype="BOOL"), MalformedInput, "must be 0 or 1"),
        (wrong(raw=b"x" * 16, datatype="FP65"), MalformedInput, "'FP65' is not one of"),
        (wrong(raw=b"\x05\0\0\0abc", datatype="BYTES", shape=[1]), MalformedInput, "claims 5 bytes"),
        (wrong(raw=b"\x02\0\0\0\xff\xfe", datatype="BYTES", shape=[1]), MalformedInput, "UTF-8"),
        (wrong(contents={"fp64_contents": [1.0]}), MalformedInput, "needs 2 values, fp64_contents has 1"),
        (wrong(contents={"fp32_contents": [1.0, 2.0]}), MalformedInput, "belong into fp64_contents"),
        (wrong(datatype="FP16", contents={"fp32_contents": [1.0, 2.0]}), MalformedInput, "no typed contents"),
        (
            wrong(datatype="INT8", contents={"int_contents": [1, 300]}),
            MalformedInput,
            "300 does not fit INT8",
        ),
        (wrong(datatype="BYTES", contents={"bytes_contents": [b"\xff", b""]}), MalformedInput, "UTF-8"),
        (wrong(datatype="?", contents={"fp32_contents": [1.0]}), MalformedInput, "is not one of"),
        (Request(model_name="m"), MalformedInput, "inputs is empty"),
        (TWICE, MalformedInput, "more than once"),
        (BOTH, MalformedInput, "both in raw_input_contents and in the contents of a"),
        (FEWER, MalformedInput, "2 inputs and 1 raw_input_contents"),
        (UNKNOWN, MalformedInput, "outputs are sum, both"),
        (SHARED, NotSupported, "shared memory"),
        (CLASSES, MalformedInput, "-1 classes"),
        (b"\x0a\x02\xff\xff", MalformedInput, "not a inference.ModelInferRequest"),
    ],
)
def test_what_is_wrong_is_named(request_: Any, error: type[FairwayError], says: str) -> None:
    with pytest.raises(error) as caught:
        read(request_)
    problems = getattr(caught.value, "problems", ())
    assert says in " ".join([str(caught.value), *(problem.reason for problem in problems)])


def test_every_wrong_tensor_is_named_at_once() -> None:
    request = asking()
    request.raw_input_contents[0] = b"x"
    request.inputs[1].datatype = "NOPE"
    with pytest.raises(InvalidInput) as caught:
        read(request)
    assert [problem.field for problem in caught.value.problems] == ["a", "b"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_bring_the_reader_down(data: st.DataObject) -> None:
    damaged = bytearray(asking().SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        read(bytes(damaged))
    except FairwayError:
        pass


def test_answers_repeat_the_id_and_hold_what_was_asked_for(port: Port) -> None:
    request = asking(id="abc")
    request.outputs.add(name="both")
    answer = port.infer(request)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "abc")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [("both", "FP64", [2, 2])]
    assert raw(answer).tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_typed_requests_get_typed_answers(port: Port) -> None:
    request = Request(model_name="m")
    for name, values in (("a", [1.0, 2.0]), ("b", [3.0, 4.0])):
        request.inputs.add(name=name, datatype="FP64", shape=[2], contents={"fp64_contents": values})
    answer = port.infer(request)
    assert not answer.raw_output_contents
    assert list(answer.outputs[0].contents.fp64_contents) == [4.0, 6.0]
    assert list(answer.outputs[1].contents.fp64_contents) == [1.0, 3.0, 2.0, 4.0]


def test_outputs_as_classes(port: Port) -> None:
    request = asking()
    request.outputs.add(name="both").parameters["classification"].int64_param = 1
    answer = port.infer(request)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [2, 1])
    assert b"3.000000:1" in answer.raw_output_contents[0]


@pytest.mark.parametrize("dtype", list(DType))
def test_outputs_of_every_type_go_out_raw_and_typed(dtype: DType) -> None:
    values = {
        DType.string: np.array(["x", None], dtype=object),
        DType.timestamp: np.array(["2026-01-02T03:04:05", "NaT"], dtype="datetime64[us]"),
    }.get(dtype)
    if values is None:
        values = np.array([0, 1], dtype=dtype.value)
    live = live_version(
        1, contract=Contract(inputs=TWO_NUMBERS.inputs, outputs=(Output(name="o", dtype=dtype),))
    )
    reading = INFER.read(asking().SerializeToString(), Arrival("r"), lambda model: "", TABLE)
    by_hand = Answer.FromString(INFER.write(reading, {"o": values}, live))
    assert by_hand.outputs[0].datatype == DATATYPES[dtype]
    typed_form = type(reading.notes)(id="", raw=False)
    typed = Answer.FromString(INFER.write(type(reading)(reading.request, typed_form), {"o": values}, live))
    if dtype is DType.float16:
        assert typed.raw_output_contents[0] == by_hand.raw_output_contents[0]
    elif dtype.is_numeric:
        contents = getattr(typed.outputs[0].contents, FIELDS[DATATYPES[dtype]])
        assert np.array(list(contents), dtype=dtype.value).tobytes() == by_hand.raw_output_contents[0]
    else:
        packed = b"".join(struct.pack("<I", len(v)) + v for v in typed.outputs[0].contents.bytes_contents)
        assert packed == by_hand.raw_output_contents[0]


def test_versions_and_aliases_are_found_and_missing_ones_named(port: Port) -> None:
    for version in ("1", "champion"):
        assert port.infer(asking(model_version=version)).model_version == "1"
    for changes, says in (
        ({"model_version": "7"}, "no version 7"),
        ({"model_version": "nope"}, "no alias 'nope'"),
        ({"model_name": "other"}, "no model 'other'"),
    ):
        error = port.refused(PATH + "ModelInfer", asking(**changes))
        assert error.code().name == "NOT_FOUND"
        assert says in error.details()


def test_the_request_parameter_timeout_is_a_deadline() -> None:
    request = asking()
    request.parameters["timeout"].int64_param = 5_000_000
    request.parameters["key"].string_param = "someone"
    found = read(request)
    assert found.deadline is not None
    assert found.key == "someone"
    assert wire.read_infer(request.SerializeToString()) is None


def test_large_messages_are_read_in_a_thread_and_answered_the_same(serve: Serve) -> None:
    adding = Adding()
    model = LiveModel(everything_to("m", 1), {1: live_version(1, adding)}, {})
    port = serve(plane(model))
    rows = 50_000
    request = Request(model_name="m")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="FP64", shape=[rows])
        request.raw_input_contents.append(np.full(rows, 2.0).tobytes())
    assert raw(port.infer(request)).tolist() == [4.0] * rows
