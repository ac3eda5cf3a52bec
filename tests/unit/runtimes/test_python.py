from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import CorruptBundle, ModelFailed
from fairway.runtimes.base import load
from fairway.runtimes.python import named_outputs, read_function, takes_dict

COLUMNS = Columns(("a", "t"), 2, arrays=[np.array([1.0, 2.0]), np.array(["x", None], dtype=object)])
CONTRACT = Contract(
    inputs=(Field(name="a", dtype=DType.float64), Field(name="t", dtype=DType.string, nullable=True)),
    outputs=(),
)


def engine(folder: Path, code: str, function: str = "predict") -> Any:
    (folder / "model.py").write_text(code)
    spec = EngineSpec(kind="native:python", file="model.py", options={"function": function})
    return load(folder, spec, CONTRACT)


def test_a_function_of_a_frame(tmp_path: Path) -> None:
    code = "def predict(frame):\n    return frame['a'] + frame['t'].isna()\n"
    assert engine(tmp_path, code).predict(COLUMNS)["prediction"].tolist() == [1.0, 3.0]


def test_a_function_of_a_dict(tmp_path: Path) -> None:
    code = "def predict(columns: dict):\n    return {'b': columns['a'] * 2, 'kind': ['p', 'q']}\n"
    outputs = engine(tmp_path, code).predict(COLUMNS)
    assert outputs["b"].tolist() == [2.0, 4.0]
    assert outputs["kind"].dtype == object


def test_two_bundles_keep_their_own_helpers(tmp_path: Path) -> None:
    engines = []
    for name, factor in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "helpers.py").write_text(f"FACTOR = {factor}")
        engines.append(
            engine(
                folder, "from helpers import FACTOR\ndef predict(frame):\n    return frame['a'] * FACTOR\n"
            )
        )
    assert [e.predict(COLUMNS)["prediction"].tolist() for e in engines] == [[1.0, 2.0], [2.0, 4.0]]
    assert "helpers" not in sys.modules
    assert str(tmp_path / "one") not in sys.path


@pytest.mark.parametrize(
    ("code", "function", "words"),
    [
        ("1/0", "predict", "ZeroDivisionError"),
        ("def other(frame): ...", "predict", "no function 'predict'"),
        ("import a_module_nobody_has", "predict", "a_module_nobody_has"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, code: str, function: str, words: str) -> None:
    with pytest.raises(CorruptBundle, match=words):
        engine(tmp_path, code, function)


def test_a_function_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="predict raised KeyError: 'missing'"):
        engine(tmp_path, "def predict(frame):\n    return frame['missing']\n").predict(COLUMNS)


def test_one_answer_a_row(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match=r"shape \[1\] for 2 rows"):
        engine(tmp_path, "def predict(frame):\n    return [1.0]\n").predict(COLUMNS)


def _plain(rows: Any) -> Any: ...
def _dict(rows: dict[str, Any]) -> Any: ...
def _mapping(rows: Mapping[str, Any]) -> Any: ...
def _two(rows: dict[str, Any], more: int) -> Any: ...


def test_what_a_function_wants_is_read_from_its_annotation() -> None:
    assert [takes_dict(f) for f in (_plain, _dict, _mapping, _two)] == [False, True, True, False]


def test_answers_may_be_frames() -> None:
    assert named_outputs(pd.DataFrame({"a": [1], "b": ["x"]})).keys() == {"a", "b"}


def test_functions_are_read_from_any_file_name(tmp_path: Path) -> None:
    (tmp_path / "my-model.py").write_text("def f(frame):\n    return 1\n")
    assert read_function(tmp_path / "my-model.py", "f")(None) == 1


def test_a_null_among_texts_stays_a_null() -> None:
    given = named_outputs({"a": ["x", None], "b": pd.Series([np.nan, "y"], dtype=object), "c": ["x", "y"]})
    assert {name: values.tolist() for name, values in given.items()} == {
        "a": ["x", None],
        "b": [None, "y"],
        "c": ["x", "y"],
    }
    assert all(values.dtype == object for values in given.values())


def test_nothing_is_left_in_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytecode beside the file would be a file that the bundle was not sealed with."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "helpers.py").write_text("SCALE = 2.0\n")
    code = "import helpers\ndef predict(rows: dict):\n    return rows['a'] * helpers.SCALE\n"
    assert engine(tmp_path, code).predict(COLUMNS)["prediction"].tolist() == [2.0, 4.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helpers.py", "model.py"]
    assert sys.dont_write_bytecode is False
