"""Forged skops archives: nothing is made before every type in them is known."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from fairway.core.errors import ArtifactError, CorruptBundle, UnknownFormat, UntrustedArtifact
from fairway.security import skops_file
from fairway.security.skops_file import is_allowed, load_skops, named_types

MODEL = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
DATA = skops.io.dumps(MODEL)


def _forged(schema: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema | {"protocol": 2, "_skops_version": "0.13"}))
    return out.getvalue()


def _node(module: str, name: str, loader: str, **more: Any) -> dict[str, Any]:
    return {"__module__": module, "__class__": name, "__loader__": loader} | more


def _text(value: Any) -> dict[str, Any]:
    return _node("builtins", "str", "JsonNode", content=json.dumps(value), is_json=True)


def _arguments(*values: Any) -> dict[str, Any]:
    return _node("builtins", "tuple", "TupleNode", content=[_text(value) for value in values])


def _touch(sentinel: Path) -> str:
    return f"touch {sentinel}"


def _forgeries(sentinel: Path) -> dict[str, dict[str, Any]]:
    run = _arguments(_touch(sentinel))
    system = _node("os", "system", "FunctionNode")
    empty = _node(
        "builtins",
        "dict",
        "DictNode",
        content={},
        key_types=_node("builtins", "list", "ListNode", content=[]),
    )
    types = _node("builtins", "list", "ListNode", content=[_node("os", "system", "TypeNode")])
    return {
        "a call through reduce": _node("os", "system", "ConstructorFromReduceNode", content=run),
        "a partial": _node(
            "functools",
            "partial",
            "PartialNode",
            content={"func": system, "args": run, "kwds": empty, "namespace": _text(None)},
        ),
        "a key type that runs": _node(
            "builtins", "dict", "DictNode", content={_touch(sentinel): _text(1)}, key_types=types
        ),
        "a list of another type": _node("os", "system", "ListNode", content=[_text("x")]),
        "a type": _node("os", "system", "TypeNode"),
        "a method caller": _node(
            "operator", "methodcaller", "OperatorFuncNode", attrs=_arguments("system", "id")
        ),
        "an object": _node("subprocess", "Popen", "ObjectNode", content=empty),
        "a method": _node(
            "builtins",
            "dict",
            "MethodNode",
            content={"func": "__class__", "obj": _node("builtins", "dict", "ObjectNode", content=empty)},
        ),
    }


@pytest.mark.parametrize("forgery", list(_forgeries(Path("x"))))
def test_forged_types_are_refused(forgery: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    data = _forged(_forgeries(sentinel)[forgery])
    with pytest.raises((UntrustedArtifact, CorruptBundle)):
        load_skops(data)
    assert not sentinel.exists()


def test_an_honest_file() -> None:
    assert named_types(DATA) == ()
    np.testing.assert_array_equal(load_skops(DATA).predict([[1.0]]), [1])


def test_a_damaged_booster_inside() -> None:
    """LightGBM's own reader would take the process down with it."""
    import lightgbm

    rows = np.random.default_rng(0).normal(size=(100, 2))
    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(rows, rows[:, 0])
    data = skops.io.dumps(model)
    load_skops(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["schema.json"] = files["schema.json"].replace(b"left_child=", b"left_child=99999")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(CorruptBundle, match="damaged LightGBM model"):
        load_skops(out.getvalue())


def test_allowed_names() -> None:
    assert is_allowed("sklearn.tree._tree.Tree")
    assert is_allowed("xgboost.core.Booster")
    for name in (
        "os.system",
        "sklearn.base.os",
        "functools.partial",
        "operator.attrgetter",
        "system",
        "",
        ".",
    ):
        assert not is_allowed(name)


def test_broken_archives() -> None:
    with pytest.raises(CorruptBundle, match="whole zip"):
        load_skops(DATA[: len(DATA) // 2])
    with pytest.raises(CorruptBundle):
        load_skops(DATA.replace(b'"__loader__"', b'"__laoder__"'))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(UnknownFormat, match="not a skops file"):
        load_skops(out.getvalue())
    with pytest.raises(CorruptBundle, match="cannot be read"):
        load_skops(_forged({}))
    newer = _forged(_text(1)).replace(b'"protocol": 2', b'"protocol": 9')
    with pytest.raises(ArtifactError):
        load_skops(newer)


def test_two_files_of_one_name() -> None:
    """What is looked at and what is read could differ."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("schema.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("schema.json", "{}")
    with pytest.raises(CorruptBundle, match="two files of one name"):
        load_skops(out.getvalue())


def test_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skops_file, "SMALL_BYTES", 2**20)
    monkeypatch.setattr(skops_file, "MAX_RATIO", 50)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(16 * 2**20))
    with pytest.raises(UntrustedArtifact, match="unpack to"):
        load_skops(out.getvalue())
