"""Bundles from elsewhere do not decide themselves what code they may run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from fairway.core.errors import UntrustedArtifact
from fairway.packaging.bundle import read_bundle
from fairway.packaging.conversion.engine import ConversionOptions
from fairway.packaging.foreign import code_of, require_trusted_code
from fairway.packaging.package import package

ROWS = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0]]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "bundle"
    model = KNeighborsClassifier(1).fit(np.array(ROWS), [0, 1, 0, 1])
    package(model, np.array(ROWS), out=out, options=ConversionOptions(force_native=True))
    return out


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("function")
    (folder / "score.py").write_text("def score(frame):\n    return frame.iloc[:, 0] * 2\n")
    package(f"{folder / 'score.py'}:score", np.array(ROWS), out=folder / "bundle")
    return folder / "bundle"


def test_a_model_of_a_known_library_runs_no_code_of_its_own(native: Path) -> None:
    bundle = read_bundle(native)
    assert bundle.spec.kind == "native:sklearn"
    require_trusted_code(bundle, ())


def test_a_python_file_needs_its_name_said(function: Path) -> None:
    bundle = read_bundle(function)
    (file,) = code_of(bundle)
    with pytest.raises(UntrustedArtifact, match=f"--trust {file}") as refused:
        require_trusted_code(bundle, ())
    assert refused.value.names == (file,)
    require_trusted_code(bundle, (file,))


def test_a_type_the_bundle_calls_trusted_is_not_believed(native: Path) -> None:
    bundle = read_bundle(native)
    spec = msgspec.structs.replace(bundle.spec, trusted=(*bundle.spec.trusted, "os.system"))
    manifest = msgspec.structs.replace(bundle.manifest, engine=spec)
    forged = replace(bundle, manifest=manifest)
    with pytest.raises(UntrustedArtifact, match=r"os\.system"):
        require_trusted_code(forged, ())
