"""An edited contract goes into a bundle of its own; the model, its proof and its preparation stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from fairway.core.conform import to_columns
from fairway.core.contract import Action, Contract, DType, Field, Rules, Task
from fairway.core.errors import InvalidInput
from fairway.packaging.amend import amend_contract, read_profile
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.packaging.package import package
from fairway.packaging.rules import set_rule
from fairway.runtimes.base import load


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("amend")
    (folder / "double.py").write_text("def double(frame): return frame[['a', 'b']] * 2\n")
    data = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    model = LinearRegression().fit(data * 2, data["a"])
    package(model, data, prepare=f"{folder}/double.py:double", out=folder / "bundle")
    return read_bundle(folder / "bundle")


def changed(contract: Contract, **updates: Any) -> Contract:
    first = msgspec.structs.replace(contract.inputs[0], **updates)
    return msgspec.structs.replace(contract, inputs=(first, *contract.inputs[1:]))


def test_only_the_contract_and_its_table_in_the_card_differ(before: Bundle, tmp_path: Path) -> None:
    contract = set_rule(before.contract, "a.on_range=clip", read_profile(before))
    after = amend_contract(before, contract, tmp_path / "after")
    assert after.contract == contract
    different = {
        path
        for path, file in before.manifest.files.items()
        if after.manifest.files[path].sha256 != file.sha256
    }
    assert different == {"contract.json", "card.md"}
    assert after.manifest.files.keys() == before.manifest.files.keys()
    assert (after.spec, after.proof, after.timings) == (before.spec, before.proof, before.timings)
    assert after.digest != before.digest
    assert "| clip |" in (after.directory / "card.md").read_text()
    rows = to_columns(contract, {"a": [1.0, 2.0], "b": [0.0, 1.0]})
    answers = [load(b.directory, b.spec, b.contract).predict(rows)["prediction"] for b in (before, after)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("updates", "told"),
    [
        ({"dtype": DType.float32}, "a: dtype is float64 and cannot become float32"),
        ({"nullable": True}, "a: nullable is false and cannot become true"),
        ({"shape": (2,), "rules": Rules(on_null=Action.reject)}, r"a: shape is \[\] and cannot become \[2\]"),
        ({"name": "z"}, "the fields must be a, b"),
        ({"minimum": 5.0, "maximum": 1.0}, "minimum 5.0 is above maximum 1.0"),
        ({}, "same as before"),
    ],
)
def test_what_the_model_was_proved_with_stays(
    before: Bundle, tmp_path: Path, updates: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        amend_contract(before, changed(before.contract, **updates), tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_outputs_are_the_models_own(before: Bundle, tmp_path: Path) -> None:
    for change in (
        {"outputs": ()},
        {"task": Task.other},
        {"inputs": (Field(name="a", dtype=DType.float64),)},
    ):
        with pytest.raises(InvalidInput, match="packaged with another contract"):
            amend_contract(before, msgspec.structs.replace(before.contract, **change), tmp_path / "after")
