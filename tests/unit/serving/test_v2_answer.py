"""V2 answers: JSON any client reads, raw bytes that say the same, and classes as Triton writes them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferResult

from fairway.core.columns import Outputs
from fairway.core.contract import Contract, DType, Output
from fairway.serving import v2_answer
from fairway.serving.v2_answer import PLAIN, Form, Plan, plan

CONTRACT = Contract(
    inputs=(),
    outputs=(
        Output(name="label", dtype=DType.string),
        Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("cat", "dog")),
        Output(name="at", dtype=DType.timestamp),
    ),
)
OUTPUTS: Outputs = {
    "label": np.array(["no", None], dtype=object),
    "probabilities": np.array([[0.25, np.nan], [np.inf, 1.0]], dtype=np.float32),
    "at": np.array(["2026-01-31T12:00:00.000001", "2026-01-31"], dtype="datetime64[us]"),
}


def answer(
    form: Form = PLAIN,
    wanted: tuple[str, ...] | None = None,
    outputs: Outputs = OUTPUTS,
    contract: Contract = CONTRACT,
) -> tuple[dict[str, Any], bytes]:
    """The JSON, and the raw bytes after it."""
    written = Plan(contract, "m", "3", wanted, form)
    body, size = written.write(outputs, form.id)
    assert (size is not None) == written.any_raw
    return json.loads(body[:size]), b"" if size is None else body[size:]


def test_an_answer_is_json_any_client_reads() -> None:
    told, _ = answer(Form(id='ec"ho'))
    assert (told["model_name"], told["model_version"], told["id"]) == ("m", "3", 'ec"ho')
    label, probabilities, at = told["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["no", None]}
    assert probabilities == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [2, 2],
        "data": [0.25, None, None, 1.0],
    }
    assert at["data"] == ["2026-01-31T12:00:00.000001Z", "2026-01-31T00:00:00.000000Z"]
    assert "id" not in answer()[0]


def test_only_the_outputs_wanted() -> None:
    assert [output["name"] for output in answer(wanted=("at",))[0]["outputs"]] == ["at"]
    assert answer(wanted=())[0]["outputs"] == []


def test_names_that_need_quoting() -> None:
    odd = Contract(inputs=(), outputs=(Output(name='a"\\\n', dtype=DType.int8),))
    told, _ = answer(outputs={'a"\\\n': np.array([1], np.int8)}, contract=odd)
    assert told["outputs"][0]["name"] == 'a"\\\n'


def test_an_output_of_another_shape_than_declared_says_its_own() -> None:
    told, raw = answer(
        Form(all_raw=True), ("probabilities",), {"probabilities": np.zeros((2, 3), np.float32)}
    )
    assert told["outputs"][0]["shape"] == [2, 3]
    assert len(raw) == 24


def test_raw_and_json_side_by_side() -> None:
    told, raw = answer(Form(all_raw=True, raw=(("label", False),)))
    label, probabilities, at = told["outputs"]
    assert label["data"] == ["no", None]
    assert probabilities["parameters"] == {"binary_data_size": 16}
    assert "data" not in probabilities
    assert raw[:16] == OUTPUTS["probabilities"].tobytes()
    assert at["parameters"] == {"binary_data_size": len(raw) - 16}
    assert raw[16:20] == (27).to_bytes(4, "little")
    assert raw[20:47] == b"2026-01-31T12:00:00.000001Z"
    told, raw = answer(Form(raw=(("at", True),)))
    assert [sorted(output) for output in told["outputs"]] == [
        ["data", "datatype", "name", "shape"],
        ["data", "datatype", "name", "shape"],
        ["datatype", "name", "parameters", "shape"],
    ]


DTYPES = [dtype for dtype in DType if dtype is not DType.timestamp]


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Contract, Outputs]:
    """Outputs of any datatype and shape, with NaN and infinities."""
    rows = draw(st.integers(0, 4))
    declared, arrays = [], {}
    for i in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        count = rows * int(np.prod(shape))
        if dtype is DType.string:
            values = np.empty(count, dtype=object)
            values[:] = draw(st.lists(st.text('abc"\\é😀', max_size=4), min_size=count, max_size=count))
        else:
            numpy = np.dtype(dtype.value)
            values = np.frombuffer(
                draw(st.binary(min_size=count * numpy.itemsize, max_size=count * numpy.itemsize)),
                dtype=np.uint8,
            )
            values = (values & 1).view(bool) if dtype is DType.bool else values.view(numpy)
        declared.append(Output(name=f"o{i}", dtype=dtype, shape=shape))
        arrays[f"o{i}"] = values.reshape(rows, *shape)
    return Contract(inputs=(), outputs=tuple(declared)), arrays


@settings(max_examples=200)
@given(outputs())
def test_raw_bytes_and_json_say_the_same_bit_for_bit(drawn: tuple[Contract, Outputs]) -> None:
    contract, arrays = drawn
    as_json, _ = Plan(contract, "m", "1", None, PLAIN).write(arrays, None)
    as_raw, size = Plan(contract, "m", "1", None, Form(all_raw=True)).write(arrays, None)
    read_json = InferResult.from_response_body(as_json.replace(b"null", b"NaN"))
    read_raw = InferResult.from_response_body(as_raw, header_length=size)
    for name, values in arrays.items():
        raw = read_raw.as_numpy(name)
        plain = read_json.as_numpy(name)
        if values.dtype.kind == "O":
            assert [text.decode() for text in raw.ravel()] == values.ravel().tolist()
            assert [
                str(text, "utf-8") if isinstance(text, bytes) else text for text in plain.ravel()
            ] == values.ravel().tolist()
            continue
        assert raw.dtype == values.dtype
        assert raw.tobytes() == values.tobytes()  # infinities and the payload of NaN included
        finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
        np.testing.assert_array_equal(plain[finite], values[finite])
        if values.dtype.kind == "f":
            assert np.isnan(plain[~finite]).all()  # JSON has no infinity either


def test_classes_best_first_as_triton_writes_them() -> None:
    values = {"probabilities": np.array([[0.25, 0.75], [0.5, np.nan]], np.float32)}
    form = Form(classes=(("probabilities", 2),))
    (told,) = answer(form, ("probabilities",), values)[0]["outputs"]
    assert (told["datatype"], told["shape"]) == ("BYTES", [2, 2])
    assert told["data"] == ["0.750000:1:dog", "0.250000:0:cat", "0.500000:0:cat", "nan:1:dog"]
    told, raw = answer(Form(all_raw=True, classes=(("probabilities", 1),)), ("probabilities",), values)
    assert told["outputs"][0]["shape"] == [2, 1]
    assert raw == b"\x0e\0\0\x000.750000:1:dog\x0e\0\0\x000.500000:0:cat"
    scores = Contract(inputs=(), outputs=(Output(name="score", dtype=DType.int32),))
    form = Form(classes=(("score", 5),))
    (told,) = answer(form, None, {"score": np.array([3, -1], np.int32)}, scores)[0]["outputs"]
    assert told["data"] == ["3.000000:0", "-1.000000:0"]


def test_a_plan_is_kept_and_belongs_to_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(CONTRACT, "sha256:1", "m", 1, None, PLAIN)
    assert plan(CONTRACT, "sha256:1", "m", 1, None, Form(id="other")) is first
    other = Contract(inputs=(), outputs=CONTRACT.outputs[:1])
    assert plan(other, "sha256:1", "m", 1, None, PLAIN) is not first
    monkeypatch.setattr(v2_answer, "_PLANS", 2)
    for number in range(5):
        plan(CONTRACT, "sha256:1", "m", number, None, PLAIN)
    assert len(v2_answer._plans) <= 2
