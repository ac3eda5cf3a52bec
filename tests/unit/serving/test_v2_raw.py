"""Raw tensors: what was written is read, bit for bit, and sizes that lie are told."""

import json
import re
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferInput

from fairway.core.contract import DType, Output
from fairway.core.errors import FairwayError, MalformedInput
from fairway.serving.v2 import decode_body
from fairway.serving.v2_raw import DATATYPES, NUMPY, read_raw, write_raw

TEXTS = st.text("aé😀\0", max_size=4)


def raw_body(*tensors: tuple[dict[str, Any], bytes], **more: Any) -> tuple[bytes, int]:
    header = json.dumps({"inputs": [head for head, _ in tensors], **more}).encode()
    return header + b"".join(data for _, data in tensors), len(header)


def tensor(
    data: bytes, shape: list[int], datatype: str, name: str = "x", size: Any = None
) -> tuple[dict[str, Any], bytes]:
    parameters = {"binary_data_size": len(data) if size is None else size}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters}, data


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from([*NUMPY, "BYTES"]))
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    count = int(np.prod(shape))
    if datatype == "BYTES":
        values = np.empty(count, dtype=object)
        values[:] = draw(st.lists(TEXTS, min_size=count, max_size=count))
        return datatype, values.reshape(shape)
    dtype = NUMPY[datatype]
    size = count * dtype.itemsize
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    return datatype, (data & 1 if datatype == "BOOL" else data).view(dtype).reshape(shape)


@settings(max_examples=300)
@given(st.lists(arrays(), min_size=1, max_size=4), st.integers(0, 9))
def test_what_nvidias_client_writes_is_read_bit_for_bit(
    drawn: list[tuple[str, np.ndarray]], shift: int
) -> None:
    """NaN with its payload included, wherever in the body a tensor begins."""
    sent = []
    for i, (datatype, values) in enumerate(drawn):
        given_input = InferInput(f"x{i}", list(values.shape), datatype)
        given_input.set_data_from_numpy(values)
        data = given_input._get_binary_data()
        sent.append(tensor(data, list(values.shape), datatype, f"x{i}"))
    body, header = raw_body(*sent, id="-" * shift)
    inputs = decode_body(body, header).inputs
    assert inputs is not None
    for i, (datatype, values) in enumerate(drawn):
        read = np.array(inputs[f"x{i}"], dtype=object if datatype == "BYTES" else None)
        if datatype == "BYTES":
            assert read.ravel().tolist() == values.ravel().tolist()
        else:
            assert read.dtype == values.dtype
            assert read.shape == values.shape
            assert read.tobytes() == values.tobytes()
            assert read.flags.aligned


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype is not DType.timestamp])
def test_what_is_written_is_read(dtype: DType) -> None:
    values = (
        np.array(["a", "", "é"], dtype=object)
        if dtype is DType.string
        else np.array([0, 1, 1]).astype(dtype.value)
    )
    written = write_raw(Output(name="y", dtype=dtype), values)
    assert list(read_raw(DATATYPES[dtype], [3], written, 0, len(written))) == values.tolist()


def test_outputs_are_written_as_declared() -> None:
    assert write_raw(Output(name="y", dtype=DType.int64), np.array([1], np.int32)) == struct.pack("<q", 1)
    column = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert write_raw(Output(name="y", dtype=DType.float32, shape=(3,)), column) == struct.pack(
        "<6f", *range(6)
    )
    moments = np.array(["2026-01-31T12:00", "NaT"], dtype="datetime64[us]")
    text = b"2026-01-31T12:00:00.000000Z"
    assert write_raw(Output(name="y", dtype=DType.timestamp), moments) == b"\x1b\0\0\0" + text + bytes(4)


def test_bf16_is_exact_in_float32() -> None:
    values = np.array([1.0, -2.5, 3.140625, np.inf, np.nan, 1e-38], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    read = read_raw("BF16", [6], halves.tobytes(), 0, 12)
    assert isinstance(read, np.ndarray)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.view(np.uint32) >> 16, halves)
    with pytest.raises(MalformedInput) as refused:
        decode_body(b'{"inputs":[{"name":"x","shape":[1],"datatype":"BF16","data":[1]}]}')
    assert "send it as binary data" in refused.value.problems[0].reason


LYING = [
    (tensor(b"\0" * 7, [1], "FP64"), "needs 8 bytes, 7 came"),
    (tensor(b"\0" * 8, [2], "FP64"), "needs 16 bytes, 8 came"),
    (tensor(b"\0" * 8, [1], "FP64", size=9), "binary_data_size is 9, but 8 bytes are left"),
    (tensor(b"\0" * 8, [1], "FP64", size=-1), "binary_data_size is -1"),
    (tensor(b"", [2**40, 2**40], "FP64"), "far more bytes"),
    (tensor(b"", [2**62, 4], "INT8"), "far more bytes"),
    (tensor(b"", [0, 2**70], "FP64"), "not one an array can have|cannot be read|out of range"),
    (tensor(b"", [-1], "FP64"), "not a list of sizes"),
    (tensor(b"", [], "FP64"), "not a list of sizes"),
    (tensor(b"", [2**61], "BYTES"), "far more elements"),
    (tensor(b"\x05\0\0\0ab", [1], "BYTES"), "element 0 claims 5 bytes, of which 2 came"),
    (tensor(b"\xff\xff\xff\xff", [1], "BYTES"), "claims 4294967295 bytes"),
    (tensor(b"\x04\0\0\0abcd\0\0\0", [2], "BYTES"), "element 1 has no length"),
    (tensor(b"\x01\0\0\0ab", [1], "BYTES"), "1 bytes are left over after 1 elements"),
    (tensor(b"\x01\0\0\0\xff", [1], "BYTES"), "not text in UTF-8"),
    (tensor(b"\x02", [1], "BOOL"), "must be 0 or 1"),
    (tensor(b"\0", [1], "FP8"), "datatype 'FP8' is not one of BF16"),
]


@pytest.mark.parametrize(("sent", "why"), LYING, ids=[why[:24] for _, why in LYING])
def test_sizes_that_lie(sent: tuple[dict[str, Any], bytes], why: str) -> None:
    body, header = raw_body(sent)
    with pytest.raises(MalformedInput) as refused:
        decode_body(body, header)
    reasons = " ".join([str(refused.value), *(problem.reason for problem in refused.value.problems)])
    assert re.search(why, reasons), reasons


def test_json_and_raw_do_not_mix_in_one_tensor() -> None:
    head, data = tensor(b"\0" * 8, [1], "FP64")
    for sent, header, why in (
        (({**head, "data": [1]}, data), True, "both data and a binary_data_size"),
        ((head, b""), None, "no header Inference-Header-Content-Length"),
        (({**head, "parameters": {"shared_memory_region": "r"}}, b""), True, "shared memory"),
    ):
        body, size = raw_body(sent)
        with pytest.raises(MalformedInput) as refused:
            decode_body(body, size if header else None)
        assert why in refused.value.problems[0].reason


def test_bytes_that_nobody_claims() -> None:
    body, header = raw_body(tensor(b"\0" * 8, [1], "FP64"))
    with pytest.raises(MalformedInput, match="3 bytes are left over"):
        decode_body(body + b"abc", header)
    with pytest.raises(MalformedInput, match="no inputs"):
        decode_body(b'{"instances":[[1]]}abc', 19)


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    body, header = raw_body(
        tensor(b"\x01\0\0\0a\x00\0\0\0", [2], "BYTES", "t"), tensor(b"\0" * 8, [2, 1], "FP32"), id="i"
    )
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decode_body(
            bytes(changed), min(len(changed), data.draw(st.integers(0, header + 10) | st.just(header)))
        )
    except FairwayError as error:
        assert str(error)  # noqa: PT017 - any other error fails the test
