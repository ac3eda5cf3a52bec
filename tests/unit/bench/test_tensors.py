"""Bodies as others read them: V2 JSON by the server's own reader, binary and gRPC by Triton's client library."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as triton
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from fairway.bench.tensors import (
    DTYPES,
    Spec,
    Tensor,
    binary_bodies,
    grpc_body,
    json_body,
    made_up,
    of_columns,
    raw,
    tiled,
)
from fairway.bench.v2_grpc import described_inputs, named_model
from fairway.core.errors import MalformedInput
from fairway.serving.v2 import decode_body

SPECS = [Spec(name.lower(), name, [-1, 2]) for name in [*DTYPES, "BYTES"]]


def test_made_up_values_are_read_as_what_they_are() -> None:
    tensors = made_up(SPECS, 3)
    read = decode_body(json_body(tensors)).inputs
    assert read is not None
    for tensor in tensors:
        assert np.shape(read[tensor.spec.name]) == (3, 2)
        wanted = triton_to_np_dtype(tensor.spec.datatype)
        assert np.array(tensor.values).reshape(3, 2).astype(wanted).tolist() == (
            np.asarray(read[tensor.spec.name]).astype(wanted).tolist()
        )


def test_made_up_values_repeat_for_a_seed_and_differ_for_another() -> None:
    assert made_up(SPECS, 2, 1) == made_up(SPECS, 2, 1) != made_up(SPECS, 2, 2)


def test_open_sizes_are_one_and_a_fixed_first_size_stays() -> None:
    shapes = [t.spec.shape for t in made_up([Spec("a", "FP32", [-1, -1, 3]), Spec("b", "INT8", [4]), Spec("c", "BOOL", [])], 5)]  # fmt: skip
    assert shapes == [[5, 1, 3], [4], [5]]


def test_values_cannot_be_made_up_for_an_unknown_type() -> None:
    with pytest.raises(MalformedInput, match="BF16"):
        made_up([Spec("x", "BF16", [-1])], 1)


def test_binary_tensors_lie_where_the_json_says() -> None:
    short, long = made_up(SPECS, 3), made_up(SPECS, 12)
    bodies, head_size = binary_bodies([short, long])
    for body, tensors in zip(bodies, [short, long], strict=True):
        head = json.loads(body[:head_size])
        assert head["parameters"] == {"binary_data_output": True}
        at = head_size
        for told, tensor in zip(head["inputs"], tensors, strict=True):
            size = told["parameters"]["binary_data_size"]
            assert _as_triton(told["datatype"], told["shape"], body[at : at + size]) == _values(tensor)
            at += size
        assert at == len(body)


def test_the_grpc_message_is_what_tritons_client_would_read() -> None:
    tensors = made_up(SPECS, 3)
    message = triton.ModelInferRequest.FromString(grpc_body("m", "2", tensors))
    assert (message.model_name, message.model_version) == ("m", "2")
    for told, content, tensor in zip(message.inputs, message.raw_input_contents, tensors, strict=True):
        assert told.name == tensor.spec.name
        assert _as_triton(told.datatype, list(told.shape), content) == _values(tensor)


def test_metadata_asked_and_read_as_triton_writes_it() -> None:
    asked = triton.ModelMetadataRequest.FromString(named_model("m", "3"))
    assert (asked.name, asked.version) == ("m", "3")
    assert triton.ModelMetadataRequest.FromString(named_model("m", "")).version == ""
    answer = triton.ModelMetadataResponse(name="m", versions=["1"], platform="x")
    answer.inputs.add(name="a", datatype="FP32", shape=[-1, 3])
    answer.inputs.add(name="größe", datatype="BYTES", shape=[-1])
    answer.outputs.add(name="y", datatype="INT64", shape=[-1])
    assert described_inputs(answer.SerializeToString()) == [
        ("a", "FP32", [-1, 3]),
        ("größe", "BYTES", [-1]),
    ]


@given(st.binary(max_size=60))
def test_whatever_else_a_server_sends_is_refused_or_empty(message: bytes) -> None:
    try:
        found = described_inputs(message)
    except (ValueError, UnicodeDecodeError):
        return
    assert all(isinstance(name, str) for name, _, _ in found)


def test_columns_go_to_the_inputs_of_their_names() -> None:
    at = datetime(2026, 1, 2, 3, tzinfo=UTC)
    columns = {"n": [1.0, 2.0], "t": ["x", None], "when": [at, at], "v": [[1, 2], [3, 4]], "extra": [0, 0]}
    specs = [
        Spec("n", "INT64", [-1]),
        Spec("t", "BYTES", [-1]),
        Spec("when", "BYTES", [-1]),
        Spec("v", "FP32", [-1, -1]),
    ]
    found = {tensor.spec.name: (tensor.spec.shape, tensor.values) for tensor in of_columns(specs, columns)}
    assert found == {
        "n": ([2], [1, 2]),
        "t": ([2], ["x", None]),
        "when": ([2], ["2026-01-02T03:00:00+00:00"] * 2),
        "v": ([2, 2], [1, 2, 3, 4]),
    }


def test_a_model_with_one_matrix_takes_all_columns_packed() -> None:
    for width in (2, -1):
        [tensor] = of_columns([Spec("x", "FP32", [-1, width])], {"a": [1, 2, 3], "b": [4, 5, 6]})
        assert (tensor.spec.shape, tensor.values) == ([3, 2], [1, 4, 2, 5, 3, 6])


def test_a_missing_column_is_named() -> None:
    with pytest.raises(MalformedInput, match=r"no column for b; it has a"):
        of_columns([Spec("a", "FP32", [-1]), Spec("b", "FP32", [-1])], {"a": [1]})


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 12))
def test_rows_repeat_in_order(have: int, width: int, wanted: int) -> None:
    values = list(range(have * width))
    [tensor] = tiled([Tensor(Spec("x", "INT64", [have, width]), values)], wanted)
    assert tensor.spec.shape == [wanted, width]
    rows = [tuple(values[i * width : (i + 1) * width]) for i in range(have)]
    assert [tuple(tensor.values[i * width : (i + 1) * width]) for i in range(wanted)] == [
        rows[i % have] for i in range(wanted)
    ]


def test_missing_values_in_raw_contents() -> None:
    assert np.isnan(np.frombuffer(raw(Tensor(Spec("x", "FP64", [2]), [None, 1.0])), "<f8")[0])
    for datatype in ("INT32", "BYTES", "BOOL"):
        with pytest.raises(MalformedInput, match="x has missing values"):
            raw(Tensor(Spec("x", datatype, [1]), [None]))
    with pytest.raises(MalformedInput, match="not INT8"):
        raw(Tensor(Spec("x", "INT8", [1]), ["text"]))
    with pytest.raises(MalformedInput, match="BF16"):
        raw(Tensor(Spec("x", "BF16", [1]), [1.0]))


def _as_triton(datatype: str, shape: list[int], content: bytes) -> list[object]:
    if datatype == "BYTES":
        return [text.decode() for text in deserialize_bytes_tensor(content)]
    values = np.frombuffer(content, triton_to_np_dtype(datatype)).reshape(shape)
    return list(values.reshape(-1).tolist())


def _values(tensor: Tensor) -> list[object]:
    if tensor.spec.datatype == "BYTES":
        return list(tensor.values)
    return list(np.array(tensor.values, triton_to_np_dtype(tensor.spec.datatype)).tolist())
