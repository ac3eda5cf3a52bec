"""A small whole bundle that every test of this folder may take apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.core.bundle import EngineSpec, Environment, GoldenRows, Proof, Timings
from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.packaging.bundle import write_bundle
from fairway.packaging.profile import Profile, profile_field

PARTS: dict[str, Any] = {
    "spec": EngineSpec(kind="onnx", file="engine/model.onnx", options={"b": "1", "a": "2"}),
    "contract": Contract(
        inputs=(Field(name="a", dtype=DType.float64),),
        outputs=(Output(name="prediction", dtype=DType.float64),),
        task=Task.regression,
    ),
    "files": {"engine/model.onnx": b"not really a graph", "engine/weights.bin": bytes(1000)},
    "golden": GoldenRows(inputs={"a": [1.0]}, outputs={"prediction": [2.0]}),
    "profile": Profile(rows=1, inputs=(profile_field("a", DType.float64, np.array([1.0])),)),
    "environment": Environment(python="3.11.1", platform="linux", packages={"numpy": "2.1.0"}),
    "proof": Proof(
        engine="onnx",
        rows=3,
        label_flips=0,
        max_abs_diff=0.0,
        mean_abs_diff=0.0,
        tolerance=1e-5,
        reason="fits",
    ),
    "card": "# card\n",
    "timings": Timings(
        original_row_seconds=1.0,
        served_row_seconds=0.1,
        batch_rows=100,
        original_batch_seconds=2.0,
        served_batch_seconds=0.2,
    ),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle with some parts replaced; gives its directory."""

    def write(name: str = "bundle", **parts: Any) -> Path:
        write_bundle(tmp_path / name, **(PARTS | parts))
        return tmp_path / name

    return write
