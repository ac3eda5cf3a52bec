from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fairway.core.errors import CorruptBundle, UntrustedArtifact
from fairway.packaging.opening import open_model


def _model(weights: TensorProto | None = None) -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones((3, 2), np.float32), "w") if weights is None else weights
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _external(location: str, *, offset: int = 0, length: int = 24) -> onnx.ModelProto:
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return _model(tensor)


def _save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_and_a_live_model(tmp_path: Path) -> None:
    path = _save(_model(), tmp_path)
    opened = open_model(path)
    assert (opened.kind, opened.model, opened.files) == ("onnx", path.read_bytes(), {})
    assert open_model(_model()).model == path.read_bytes()


def test_external_weights_are_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(bytes(24))
    opened = open_model(_save(_external("deep/w.bin"), tmp_path))
    assert opened.files == {"deep/w.bin": tmp_path / "deep" / "w.bin"}


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "C:/w.bin", "a\\w.bin", "", "..", "./../w.bin"]
)
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(24))
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UntrustedArtifact, match="outside its own folder"):
        open_model(_save(_external(location), folder))


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UntrustedArtifact, match="behind a link"):
        open_model(_save(_external("w.bin"), folder))


def test_weights_missing_or_short(tmp_path: Path) -> None:
    path = _save(_external("w.bin"), tmp_path)
    with pytest.raises(CorruptBundle, match="not beside it"):
        open_model(path)
    (tmp_path / "w.bin").write_bytes(bytes(8))
    with pytest.raises(CorruptBundle, match="beyond the end"):
        open_model(path)
    with pytest.raises(CorruptBundle, match="as a path"):
        open_model(_external("w.bin"))


def test_external_weights_inside_a_subgraph(tmp_path: Path) -> None:
    """Tensors hide in the branches of an If as well."""
    inner = _external("../w.bin").graph
    branch = helper.make_graph(inner.node, "b", [], inner.output, inner.initializer)
    model = _model()
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))
    with pytest.raises(UntrustedArtifact):
        open_model(_save(model, tmp_path))


def test_an_invalid_graph(tmp_path: Path) -> None:
    model = _model()
    model.graph.node[0].input[1] = "nowhere"
    with pytest.raises(CorruptBundle, match="not a valid ONNX model"):
        open_model(_save(model, tmp_path))


def test_cut_short(tmp_path: Path) -> None:
    path = _save(_model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptBundle, match="cannot be read"):
        open_model(path)
