"""What users may import, and what importing it does not cost."""

import subprocess
import sys

import pytest

import fairway

HEAVY = (
    "pandas",
    "pyarrow",
    "sklearn",
    "sqlalchemy",
    "alembic",
    "fsspec",
    "skl2onnx",
    "onnx",
    "rich",
    "prometheus_client",
)


def test_the_public_names_are_these() -> None:
    assert fairway.__all__ == [
        "ContractViolation",
        "Deployment",
        "FairwayError",
        "InvalidInput",
        "LoadedModel",
        "__version__",
        "deploy",
        "drift",
        "estimate",
        "load",
        "package",
        "run_batch",
    ]
    for name in fairway.__all__:
        assert getattr(fairway, name) is not None


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'serve'"):
        _ = fairway.serve


def imported_by(code: str) -> set[str]:
    """Top-level packages in memory after `code`, in a process of its own."""
    shown = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + shown], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "fairway",
        "fairway.serving.worker",
        "fairway.cli.serve",
        "fairway.cli.main",
        "fairway.inference.loaded",
    ],
)
def test_importing_it_brings_in_nothing_heavy(module: str) -> None:
    allowed = {"fairway.cli.serve": {"rich"}, "fairway.cli.main": {"rich"}}.get(module, set())
    allowed = allowed | ({"prometheus_client"} if module == "fairway.serving.worker" else set())
    assert imported_by(f"import {module}") & (set(HEAVY) - allowed) == set()


def test_the_supervisor_needs_neither_numpy_nor_an_engine() -> None:
    assert (
        imported_by("import fairway.serving.supervisor") & {*HEAVY, "numpy", "onnxruntime", "uvicorn"}
        == set()
    )
