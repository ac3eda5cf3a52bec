"""The whole flow: the contract of the raw data, the engine that was proved, a bundle that verifies itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairway.core.columns import Outputs
from fairway.core.conform import frame_arrays, to_columns
from fairway.core.contract import Action, Contract, DType, Task
from fairway.core.errors import (
    AlreadyExists,
    GoldenMismatch,
    InvalidInput,
    MalformedInput,
    ModelFailed,
    NotFound,
)
from fairway.packaging import verify
from fairway.packaging.archive import archive, unarchive
from fairway.packaging.bundle import read_bundle
from fairway.packaging.contract_text import contract_to_text
from fairway.packaging.conversion.engine import ConversionOptions
from fairway.packaging.package import package
from fairway.runtimes.base import load

ROWS = 300


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "amount": rng.lognormal(size=ROWS),
            "age": pd.array(rng.integers(18, 90, ROWS), dtype="Int64"),
            "kind": rng.choice(["a", "b", "c"], ROWS),
        }
    )
    frame["fraud"] = np.where(frame["amount"] > 1, "yes", "no")
    frame.loc[::7, "amount"] = np.nan
    frame.loc[::9, "age"] = None
    return frame


FEATURES = ["amount", "age", "kind"]


def fitted(frame: pd.DataFrame, *, unknown: str = "ignore") -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (numbers, ["amount", "age"]), (OneHotEncoder(handle_unknown=unknown), ["kind"])
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame[FEATURES], frame["fraud"])


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> Any:
    return fitted(frame)


def predict(directory: Path, data: pd.DataFrame) -> Outputs:
    bundle = read_bundle(directory)
    engine = load(directory, bundle.spec, bundle.contract)
    return engine.predict(to_columns(bundle.contract, frame_arrays(data)))


def test_a_pipeline(model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    packaged = package(
        model,
        frame.assign(unused=1)[["unused", "kind", "fraud", "age", "amount"]],
        target="fraud",
        out=tmp_path / "bundle",
        progress=lambda step, share: steps.append((step, share)),
    )
    contract = packaged.contract
    assert [field.name for field in contract] == FEATURES  # the model's order, without what it does not use
    assert [field.dtype for field in contract] == [DType.float64, DType.int64, DType.string]
    assert [field.nullable for field in contract] == [True, True, False]
    assert (contract.task, contract.target) == (Task.classification, "fraud")
    assert [output.name for output in contract.outputs] == ["label", "probabilities"]
    assert contract.outputs[1].labels == ("no", "yes")
    assert packaged.notes == ("The model does not use unused: left out of the contract.",)
    assert (packaged.engine, packaged.proof.label_flips) == ("onnx", 0)
    answers = predict(packaged.directory, frame)
    np.testing.assert_array_equal(answers["label"], model.predict(frame[FEATURES]))
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(frame[FEATURES]), atol=1e-5)
    shares = [share for _, share in steps]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    bundle = read_bundle(packaged.directory)
    assert bundle.digest == packaged.digest
    assert len(bundle.golden.outputs["label"]) == 16


def test_same_inputs_same_digest_and_an_archive(model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "train.csv", index=False)
    one = package(model, tmp_path / "train.csv", target="fraud", out=tmp_path / "one")
    two = package(model, str(tmp_path / "train.csv"), target="fraud", out=tmp_path / "two")
    assert one.digest == two.digest
    archive(two.directory, tmp_path / "m.fairway")
    assert unarchive(tmp_path / "m.fairway", tmp_path / "three").digest == one.digest
    with pytest.raises(AlreadyExists):
        package(model, frame, target="fraud", out=tmp_path / "one")


def test_rules_follow_what_the_original_refuses(frame: pd.DataFrame, tmp_path: Path) -> None:
    packaged = package(fitted(frame, unknown="error"), frame, target="fraud", out=tmp_path / "bundle")
    kind = packaged.contract.inputs[2]
    assert kind.rules.on_category is Action.reject
    assert {category.value for category in kind.categories} == {"a", "b", "c"}
    assert packaged.contract.inputs[0].rules.on_null is Action.warn


def test_nulls_that_the_model_refuses_are_refused_and_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    full = pd.DataFrame(rng.normal(size=(100, 2)), columns=["a", "b"])
    model = LinearRegression().fit(full, full["a"] * 2)
    gaps = full.assign(y=full["a"] * 2)
    gaps.loc[::10, "a"] = np.nan
    packaged = package(model, gaps, target="y", out=tmp_path / "bundle")
    assert packaged.notes == ("The model refuses nulls in a: 10 of 100 sample rows hold some.",)
    field = packaged.contract.inputs[0]
    assert (field.missing_rate, field.rules.on_null) == (0.1, Action.reject)
    assert None not in read_bundle(packaged.directory).golden.inputs["a"]
    assert "| R2 | 1 |" in (packaged.directory / "card.md").read_text()
    never = contract_to_text(packaged.contract).replace("nullable = true", "nullable = false")
    assert package(model, gaps, target="y", contract=never, out=tmp_path / "never").proof.label_flips == 0
    full["a"] = np.nan
    with pytest.raises(ModelFailed, match="cannot predict"):
        package(model, full, out=tmp_path / "none")


def test_a_model_that_fails_on_its_own_sample(tmp_path: Path) -> None:
    model = LinearRegression().fit(pd.DataFrame({"a": [1.0, 2.0]}), [1, 2])
    with pytest.raises(ModelFailed, match="cannot predict the sample data"):
        package(model, pd.DataFrame({"a": ["x", "y"]}), out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_missing_columns_are_named(model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(
        MalformedInput, match="lacks columns the model was trained on: age; it has: amount, kind"
    ):
        package(model, frame[["amount", "kind", "fraud"]], target="fraud", out=tmp_path / "bundle")


def test_a_bare_array_and_an_anomaly_detector(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    model = IsolationForest(n_estimators=10, random_state=0).fit(X)
    packaged = package(model, X, out=tmp_path / "bundle")
    assert [field.name for field in packaged.contract] == ["x0", "x1", "x2"]
    assert packaged.contract.task is Task.anomaly
    assert {output.name for output in packaged.contract.outputs} == {"label", "score"}
    with pytest.raises(MalformedInput, match=r"takes 3 features .* has 4: x0, x1"):
        package(model, np.zeros((5, 4)), out=tmp_path / "other")
    (whole,) = package(model, {"features": X}, out=tmp_path / "whole").contract.inputs
    assert (whole.name, whole.shape) == ("features", (3,))


class TestGivenContract:
    def test_replaces_the_inferred_one(self, model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
        inferred = package(model, frame, target="fraud", out=tmp_path / "first").contract
        text = contract_to_text(inferred).replace('on_null = "warn"', 'on_null = "impute"')
        packaged = package(model, frame, target="fraud", contract=text, out=tmp_path / "second")
        amount = packaged.contract.inputs[0]
        assert (amount.rules.on_null, amount.imputed_by) == (Action.impute, "median")
        assert amount.impute_with == pytest.approx(np.nanmedian(frame["amount"]))
        assert packaged.contract.outputs == inferred.outputs
        mixed = Contract(inputs=tuple(reversed(inferred.inputs)), outputs=())
        again = package(model, frame, contract=mixed, target="fraud", out=tmp_path / "third")
        assert again.contract == inferred

    def test_must_fit(self, model: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
        text = '[inputs.amount]\ndtype = "float64"\n[inputs.colour]\ndtype = "string"\n'
        with pytest.raises(InvalidInput, match=r"age is not in the contract.*colour is not in the sample"):
            package(model, frame, target="fraud", contract=text, out=tmp_path / "bundle")


PREPARE = """
import scale
import pandas as pd

def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    filled = frame["amount"].fillna(0.0)
    return pd.DataFrame({"log_amount": scale.half(filled), "is_a": (frame["kind"] == "a").astype("int64")})

def wrong_rows(frame): return frame.head(1)
def no_frame(frame): return 3
def fails(frame): raise KeyError("nope")
"""


class TestPrepare:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "code").mkdir()
        (tmp_path / "code/scale.py").write_text("def half(x): return x / 2\n")
        (tmp_path / "code/clean.py").write_text(PREPARE)
        return tmp_path / "code/clean.py"

    @pytest.fixture
    def trained(self, frame: pd.DataFrame) -> Any:
        inner = pd.DataFrame(
            {"log_amount": frame["amount"].fillna(0.0) / 2, "is_a": (frame["kind"] == "a").astype("int64")}
        )
        return LogisticRegression().fit(inner, frame["fraud"]), inner

    @pytest.mark.parametrize("native", [False, True])
    def test_runs_before_the_model_everywhere(
        self, file: Path, trained: Any, frame: pd.DataFrame, tmp_path: Path, native: bool
    ) -> None:
        model, inner = trained
        packaged = package(
            model,
            frame[["amount", "kind", "fraud"]],
            target="fraud",
            prepare=f"{file}:prepare",
            options=ConversionOptions(force_native=native),
            out=tmp_path / "bundle",
        )
        file.unlink()  # the bundle carries its own copy
        (file.parent / "scale.py").unlink()
        bundle = read_bundle(packaged.directory)
        assert [field.name for field in packaged.contract] == ["amount", "kind"]
        assert bundle.spec.prepare == "prepare/clean.py:prepare"
        assert bundle.spec.prepared_fields == ("log_amount", "is_a")
        assert packaged.engine == ("native:sklearn" if native else "onnx")
        assert "python" in bundle.environment.required
        assert packaged.contract.inputs[0].rules.on_null is Action.warn  # preparation fills it
        answers = predict(packaged.directory, frame)
        np.testing.assert_allclose(answers["probabilities"], model.predict_proba(inner), atol=1e-5)

    @pytest.mark.parametrize(
        ("function", "told"),
        [
            ("wrong_rows", "gave 1 rows for 300"),
            ("no_frame", "gave a int; it must give a DataFrame"),
            ("fails", "raised KeyError"),
        ],
    )
    def test_bad_preparation_is_named(
        self, file: Path, trained: Any, frame: pd.DataFrame, tmp_path: Path, function: str, told: str
    ) -> None:
        with pytest.raises(ModelFailed, match=told):
            package(trained[0], frame, prepare=f"{file}:{function}", out=tmp_path / "bundle")

    def test_no_such_preparation(self, file: Path, trained: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match=r"not file\.py:function"):
            package(trained[0], frame, prepare="clean", out=tmp_path / "bundle")
        with pytest.raises(NotFound, match=r"no file .*none\.py"):
            package(trained[0], frame, prepare="none.py:f", out=tmp_path / "bundle")
        with pytest.raises(NotFound, match="no function 'nope'"):
            package(trained[0], frame, prepare=f"{file}:nope", out=tmp_path / "bundle")


def test_a_function_with_its_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/factor.txt").write_text("3")
    (tmp_path / "code/model.py").write_text(
        "from pathlib import Path\n"
        "FACTOR = float((Path(__file__).parent / 'factor.txt').read_text())\n"
        "def predict(frame): return frame['amount'].fillna(0) * FACTOR\n"
    )
    packaged = package(
        f"{tmp_path}/code/model.py:predict", frame[["amount"]], files=("factor.txt",), out=tmp_path / "bundle"
    )
    assert packaged.engine == "native:python"
    answers = predict(packaged.directory, frame)
    np.testing.assert_allclose(answers["prediction"], frame["amount"].fillna(0) * 3)


def graph(*inputs: Any, output: str) -> bytes:
    """`output` = the sum of a row of the first input."""
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    node = onnx.helper.make_node("ReduceSum", [inputs[0].name, "axes"], [output], keepdims=0)
    result = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["n"])
    made = onnx.helper.make_graph([node], "g", list(inputs), [result], initializer=[axes])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


class TestOnnx:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        X = onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", 3])
        (tmp_path / "m.onnx").write_bytes(graph(X, output="total"))
        return tmp_path / "m.onnx"

    def test_columns_for_one_matrix_keep_their_names(self, file: Path, tmp_path: Path) -> None:
        data = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [0.0, 1.0]})
        packaged = package(file, data, out=tmp_path / "bundle")
        assert [(field.name, field.dtype) for field in packaged.contract] == [
            ("a", DType.float32),
            ("b", DType.float32),
            ("c", DType.float32),
        ]
        np.testing.assert_allclose(predict(packaged.directory, data)["total"], [1.5, 4.5])

    def test_an_array_takes_the_name_of_the_graph(self, file: Path, tmp_path: Path) -> None:
        packaged = package(file, np.ones((4, 3)), out=tmp_path / "bundle")
        (field,) = packaged.contract.inputs
        assert (field.name, field.dtype, field.shape) == ("features", DType.float32, (3,))
        assert [output.name for output in packaged.contract.outputs] == ["total"]
        named = package(file, {"features": np.ones((4, 3)), "other": [1, 2, 3, 4]}, out=tmp_path / "named")
        assert named.contract == packaged.contract
        assert "other" in named.notes[0]

    def test_data_that_does_not_fit_the_graph(self, file: Path, tmp_path: Path) -> None:
        with pytest.raises(
            MalformedInput, match="takes 3 values a row and the sample data has 2 columns: a, b"
        ):
            package(file, {"a": [1.0], "b": [2.0]}, out=tmp_path / "bundle")
        with pytest.raises(MalformedInput, match="'c' is float32; row 0"):
            package(file, {"a": [1.0], "b": [2.0], "c": ["x"]}, out=tmp_path / "bundle")


def test_a_bundle_that_fails_its_own_check_is_not_left_behind(
    model: Any, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*_: Any) -> None:
        raise GoldenMismatch("golden row 0 differs")

    monkeypatch.setattr(verify, "check_golden", differs)
    with pytest.raises(GoldenMismatch):
        package(model, frame, target="fraud", out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
