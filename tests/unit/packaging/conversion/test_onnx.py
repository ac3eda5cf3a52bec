from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import CorruptBundle, UnknownFormat
from fairway.packaging.contract import infer_contract
from fairway.packaging.conversion.engine import ConversionOptions, choose_engine
from fairway.packaging.conversion.onnx import external_files, onnx_signature, onnx_spec
from fairway.packaging.source import Sample, SourceModel


def model(inputs: dict[str, tuple[int, list[Any]]], **weights: Any) -> onnx.ModelProto:
    """A graph that passes its first input on."""
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    first = next(iter(inputs))
    nodes = [helper.make_node("Identity", [first], ["out"])]
    out = helper.make_tensor_value_info("out", *inputs[first])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", infos, [out], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def data(inputs: dict[str, tuple[int, list[Any]]]) -> bytes:
    return bytes(model(inputs).SerializeToString())


def test_the_signature_is_read_from_the_graph() -> None:
    signature = data(
        {
            "image": (TensorProto.FLOAT, ["n", 3, 4]),
            "age": (TensorProto.INT64, ["n"]),
            "name": (TensorProto.STRING, [None, 1]),
        }
    )
    inputs, outputs = onnx_signature(signature)
    assert [(f.name, f.dtype, f.shape) for f in inputs] == [
        ("image", DType.float32, (3, 4)),
        ("age", DType.int64, ()),
        ("name", DType.string, ()),
    ]
    assert [(o.name, o.dtype, o.shape) for o in outputs] == [("out", DType.float32, (3, 4))]


@pytest.mark.parametrize(
    ("shape", "words"),
    [(["n", None], "size beside the rows open"), ([8, 3], "exactly 8 rows"), ([], "no row axis")],
)
def test_graphs_that_cannot_take_rows_are_refused(shape: list[Any], words: str) -> None:
    with pytest.raises(UnknownFormat, match=words):
        onnx_signature(data({"x": (TensorProto.FLOAT, shape)}))


def test_something_else_is_not_onnx() -> None:
    with pytest.raises(CorruptBundle, match="not an ONNX model"):
        onnx_signature(b"\x00garbage")


def test_a_matrix_input_takes_the_scalar_columns() -> None:
    contract = Contract(inputs=tuple(Field(name=n, dtype=DType.float64) for n in "abc"), outputs=())
    spec = onnx_spec(data({"x": (TensorProto.FLOAT, ["n", 3])}), contract, file="engine/model.onnx")
    assert spec.feeds[0].fields == ("a", "b", "c")
    assert spec.feeds[0].dtype == "float32"
    with pytest.raises(UnknownFormat, match="matches no field"):
        onnx_spec(data({"x": (TensorProto.FLOAT, ["n", 4])}), contract, file="engine/model.onnx")


def test_inputs_take_the_fields_of_their_names() -> None:
    graph = data({"b": (TensorProto.INT64, ["n"]), "a": (TensorProto.STRING, ["n", 1])})
    contract = Contract(
        inputs=(Field(name="a", dtype=DType.string), Field(name="b", dtype=DType.int64)), outputs=()
    )
    feeds = onnx_spec(graph, contract, file="engine/model.onnx").feeds
    assert [(feed.name, feed.fields, feed.dtype, feed.column) for feed in feeds] == [
        ("b", ("b",), "int64", False),
        ("a", ("a",), "object", True),
    ]


def test_weights_beside_the_graph_stay_beside_it(tmp_path: Path) -> None:
    weights = np.arange(600, dtype=np.float32).reshape(3, 200)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 200])],
        [numpy_helper.from_array(weights, "w")],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "net.onnx"
    onnx.save_model(whole, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    given_bytes = path.read_bytes()
    assert external_files(given_bytes) == ("net.weights",)

    rows = np.eye(3, dtype=np.float32)
    sample = Sample(frame=pd.DataFrame(rows, columns=["a", "b", "c"]), as_frame=False)
    chosen = choose_engine(
        SourceModel(kind="onnx", model=given_bytes, path=path),
        sample,
        infer_contract(sample),
        options=ConversionOptions(),
        progress=lambda stage, fraction: None,
    )
    assert sorted(chosen.files) == ["engine/model.onnx", "engine/net.weights"]
    assert chosen.outputs[0].shape == (200,)


def test_weights_outside_the_folder_are_refused() -> None:
    sly = model({"x": (TensorProto.FLOAT, ["n", 3])}, w=np.zeros(3, np.float32))
    tensor = sly.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(CorruptBundle, match="outside its own folder"):
        external_files(sly.SerializeToString())
