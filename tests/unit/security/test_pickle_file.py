from __future__ import annotations

import io
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fairway.core.errors import ArtifactError, EnvironmentMismatch, MissingExtra, UntrustedArtifact
from fairway.security import pickle_file
from fairway.security.pickle_file import load_pickle
from tests.unit.security.payloads import name, program

MODULE = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

class Doubler(BaseEstimator, TransformerMixin):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return np.asarray(X) * 2

def halve(X):
    return np.asarray(X) / 2
"""

SAVE = """
import joblib, own_steps
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
model = make_pipeline(own_steps.Doubler(), FunctionTransformer(own_steps.halve), LogisticRegression())
joblib.dump(model.fit([[0.0], [1.0]], [0, 1]), "model.joblib")
"""

TRUST = ("own_steps.Doubler", "own_steps.halve")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model with the user's own class and function in it, saved by another process."""
    (tmp_path / "own_steps.py").write_text(MODULE)
    subprocess.run([sys.executable, "-c", SAVE], cwd=tmp_path, check=True)
    return tmp_path / "model.joblib"


def test_own_code_needs_its_exact_names(own: Path) -> None:
    with pytest.raises(UntrustedArtifact) as refused:
        load_pickle(own.read_bytes())
    assert refused.value.names == TRUST
    assert "--trust own_steps.Doubler --trust own_steps.halve" in str(refused.value)
    assert "own_steps" not in sys.modules
    with pytest.raises(UntrustedArtifact) as refused:
        load_pickle(own.read_bytes(), trust=TRUST[:1])
    assert refused.value.names == TRUST[1:]


def test_own_code_is_found_beside_the_model(own: Path) -> None:
    with pytest.raises(ArtifactError, match="must be importable"):
        load_pickle(own.read_bytes(), trust=TRUST)
    path = list(sys.path)
    try:
        model = load_pickle(own.read_bytes(), trust=TRUST, folders=(own.parent,))
        assert model.predict([[1.0]]) == [1]
    finally:
        sys.modules.pop("own_steps", None)
    assert sys.path == path


def test_a_class_of_main() -> None:
    data = program(name("__main__", "Model"))
    with pytest.raises(ArtifactError, match="move it to a module"):
        load_pickle(data, trust=("__main__.Model",))


def _saved_by(other: str) -> bytes:
    model = make_pipeline(FunctionTransformer(), LogisticRegression()).fit([[0.0], [1.0]], [0, 1])
    installed = version("scikit-learn").encode()
    assert len(installed) == len(other)
    data = pickle.dumps(model)
    assert installed in data
    return data.replace(installed, other.encode())


def test_another_scikit_learn() -> None:
    other = "1.0.2"
    with pytest.raises(EnvironmentMismatch, match=r"pip install scikit-learn==1\.0\.2"):
        load_pickle(_saved_by(other))


def test_a_name_that_has_moved_since_is_a_matter_of_version() -> None:
    moved = _saved_by("0.9.1").replace(b"sklearn.linear_model._logistic", b"sklearn.linear_model._logistid")
    with pytest.raises(EnvironmentMismatch, match=r"scikit-learn==0\.9\.1"):
        load_pickle(moved)


def test_names_as_numpy_1_wrote_them() -> None:
    value = {"a": np.arange(3.0), "b": np.float64(2.5), "c": np.array(["x", None], object)}
    data = pickle.dumps(value, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in data
    back = load_pickle(data)
    assert repr(back) == repr(value)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fairway\[xgboost\]'"):
        load_pickle(program(name("xgboost.core", "Booster")))


def test_the_loader_gives_no_more_than_the_audit_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the two ever disagreed, the loader would stop."""
    honest = pickle_file.audit_pickle(pickle.dumps([1]))
    monkeypatch.setattr(pickle_file, "audit_pickle", lambda *_, **__: honest)
    with pytest.raises(UntrustedArtifact, match="the audit did not see"):
        load_pickle(pickle.dumps(np.arange(3)))
    out = io.BytesIO()
    joblib.dump(np.array(["a", None], dtype=object), out)
    with pytest.raises(UntrustedArtifact, match="the audit did not see"):
        load_pickle(out.getvalue())


def test_state_that_its_own_class_refuses() -> None:
    broken = pickle.dumps(np.random.default_rng(1)).replace(b"has_uint32", b"has_uint33")
    with pytest.raises(ArtifactError, match="cannot be opened here"):
        load_pickle(broken)
