"""An environment is refused when, and only when, the difference can change an answer; with the way to mend it."""

from __future__ import annotations

import platform
from importlib import metadata

import msgspec
import pytest

from fairway.core.bundle import EngineSpec, Environment
from fairway.core.errors import EnvironmentMismatch
from fairway.packaging import environment as module
from fairway.packaging.environment import capture_environment, check_environment

ONNX = EngineSpec(kind="onnx", file="engine/model.onnx")
SKLEARN = EngineSpec(kind="native:sklearn", file="engine/model.skops")
PYTHON = EngineSpec(kind="native:python", file="engine/model.py")


def proved(*, python: str = platform.python_version(), **packages: str) -> Environment:
    names = {name.replace("_", "-"): version for name, version in packages.items()}
    return Environment(python=python, platform="linux", packages=names, required=tuple(names))


def test_this_environment_is_what_it_is_and_fits() -> None:
    for spec in (ONNX, SKLEARN, PYTHON):
        captured = capture_environment(spec, needs=("xgboost",))
        assert captured.python == platform.python_version()
        assert captured.packages["numpy"] == metadata.version("numpy")
        assert "xgboost" in captured.required
        check_environment(captured)
    assert capture_environment(ONNX).required == ("onnxruntime",)
    assert capture_environment(SKLEARN).required == ("scikit-learn",)
    assert capture_environment(PYTHON).required == ("python", "numpy", "pandas")


@pytest.mark.parametrize(
    ("name", "wanted", "found", "fits"),
    [
        ("scikit-learn", "1.8.0", "1.8.4", True),
        ("scikit-learn", "1.8.0", "1.9.0", False),
        ("scikit-learn", "1.8.0rc1", "1.8.0", True),
        ("numpy", "2.1.0", "2.4.1", True),
        ("numpy", "2.1.0", "3.0.0", False),
        ("onnxruntime", "1.23.0", "1.31.0", True),
        ("onnxruntime", "1.23.2", "1.23.0", True),
        ("onnxruntime", "1.23.0", "1.9.0", False),
        ("onnxruntime", "1.23.0", "2.0.0", False),
    ],
)
def test_what_is_close_enough(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: str, found: str, fits: bool
) -> None:
    monkeypatch.setattr(module, "installed", lambda _: found)
    environment = proved(**{name.replace("-", "_"): wanted})
    if fits:
        check_environment(environment)
    else:
        with pytest.raises(EnvironmentMismatch, match=f"{name} is {found}"):
            check_environment(environment)


def test_the_mending_command_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"scikit-learn": "1.7.0", "onnxruntime": "1.20.0"}
    monkeypatch.setattr(module, "installed", versions.get)
    environment = proved(scikit_learn="1.8.1", onnxruntime="1.23.0", xgboost="3.1.0")
    with pytest.raises(EnvironmentMismatch) as caught:
        check_environment(environment)
    told = str(caught.value)
    assert "-m pip install scikit-learn==1.8.1 'onnxruntime>=1.23.0' xgboost==3.1.0" in told
    assert "xgboost 3.1.0 is not installed" in told


def test_python_matters_to_own_code_only() -> None:
    prepared = EngineSpec(kind="onnx", file="engine/model.onnx", prepare="prepare/a.py:f")
    for spec, matters in ((ONNX, False), (SKLEARN, False), (PYTHON, True), (prepared, True)):
        other = msgspec.structs.replace(capture_environment(spec), python="3.6.1")
        if not matters:
            check_environment(other)
            continue
        with pytest.raises(EnvironmentMismatch, match=r"proved with Python 3\.6\.1.*--python 3\.6"):
            check_environment(other)
