from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fairway.core.contract import DType, Task
from fairway.core.errors import ModelFailed, ProofFailed, UnknownFormat
from fairway.packaging.contract import infer_contract, sample_columns
from fairway.packaging.conversion.engine import (
    ChosenEngine,
    ConversionOptions,
    choose_engine,
    original_engine,
)
from fairway.packaging.source import Sample, SourceModel
from fairway.runtimes.base import load
from fairway.runtimes.python import read_function
from tests.unit.packaging.conversion.fitted_models import MODELS, QUIET, Fitted, payments

OPTIONS = ConversionOptions(max_rows=4000)


def silent(stage: str, fraction: float) -> None:
    pass


def choose(
    model: Any, sample: Sample, *, kind: str = "sklearn", options: ConversionOptions = OPTIONS, **rest: Any
) -> ChosenEngine:
    source = SourceModel(kind=kind, model=model, **rest)
    return choose_engine(source, sample, infer_contract(sample), options=options, progress=silent)


def reload(chosen: ChosenEngine, sample: Sample, folder: Path) -> Any:
    """The engine as a server gets it: from files and values alone."""
    for name, data in chosen.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    contract = msgspec.structs.replace(infer_contract(sample), outputs=chosen.outputs, task=chosen.task)
    return load(folder, chosen.spec, contract)


@pytest.mark.parametrize("name", MODELS)
def test_each_family_ends_converted_without_flips_or_native_with_a_reason(name: str, tmp_path: Path) -> None:
    fitted: Fitted = MODELS[name]()
    sample = Sample(frame=fitted.frame, as_frame=fitted.as_frame)
    chosen = choose(fitted.model, sample)
    proof = chosen.proof
    assert chosen.spec.kind == proof.engine == fitted.engine, proof.reason
    assert proof.label_flips == 0
    assert proof.attempts[-1].accepted
    assert proof.rows == sum(proof.rows_by_kind.values()) >= min(len(sample), OPTIONS.max_rows)
    assert not any(attempt.accepted for attempt in proof.attempts[:-1])
    assert all(attempt.reason for attempt in proof.attempts)
    if fitted.engine != "onnx":
        assert proof.attempts[-1].strategy == "native"
        assert len(proof.attempts) > 1  # what was tried before, and why not

    contract = infer_contract(sample)
    rows = sample_columns(contract, sample)
    expected = original_engine(SourceModel(kind="sklearn", model=fitted.model), sample, contract).predict(
        rows
    )
    served = reload(chosen, sample, tmp_path).predict(rows)
    assert list(served) == [output.name for output in chosen.outputs]
    for output in chosen.outputs:
        values = served[output.name]
        assert values.shape == (len(sample), *output.shape)
        assert values.dtype == (object if output.dtype is DType.string else output.dtype.value)
        if output.name == "label":
            assert np.array_equal(values, expected["label"])
        else:
            assert np.allclose(values, expected[output.name], rtol=1e-5, atol=1e-5)


def test_the_labels_and_probabilities_are_the_estimators_own(tmp_path: Path) -> None:
    fitted = MODELS["random forest, three text labels"]()
    sample = Sample(frame=fitted.frame, as_frame=False)
    chosen = choose(fitted.model, sample)
    served = reload(chosen, sample, tmp_path).predict(sample_columns(infer_contract(sample), sample))
    rows = fitted.frame.to_numpy()
    assert served["label"].tolist() == fitted.model.predict(rows).tolist()
    assert np.allclose(served["probabilities"], fitted.model.predict_proba(rows), atol=1e-6)
    assert chosen.task is Task.classification
    assert chosen.outputs[1].labels == ("setosa", "versicolor", "virginica")


@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_lightgbm_that_ranks(objective: str) -> None:
    ranked = MODELS["xgboost, ranking"]()
    rows = ranked.frame.to_numpy()
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(int), group=[10] * (len(rows) // 10))
    booster = lightgbm.train({"objective": objective, **QUIET}, data, 10)
    chosen = choose(booster, Sample(frame=ranked.frame, as_frame=False), kind="lightgbm")
    assert chosen.spec.kind == "onnx", chosen.proof.reason
    assert chosen.task is Task.regression


def test_scaled_xgboost_whose_stock_conversion_disagrees_at_thresholds_ends_with_zero_flips() -> None:
    fitted = MODELS["scaled xgboost"]()
    chosen = choose(fitted.model, Sample(frame=fitted.frame, as_frame=False), options=ConversionOptions())
    first = chosen.proof.attempts[0]
    assert first.strategy == "float32"
    assert not first.accepted
    assert first.max_abs_diff > 0.01  # the fault this proof exists for
    assert chosen.spec.kind == "onnx"
    assert chosen.proof.label_flips == 0
    assert chosen.proof.max_abs_diff < 1e-6
    assert chosen.proof.rows_by_kind["threshold-edge"] > 1000


@pytest.mark.parametrize("name", ["scaled xgboost", "one-hot columns, logistic regression", "words", "stack"])
def test_converting_twice_gives_the_same_bytes(name: str) -> None:
    fitted = MODELS[name]()
    sample = Sample(frame=fitted.frame, as_frame=fitted.as_frame)
    first, second = (choose(fitted.model, sample, options=ConversionOptions(max_rows=200)) for _ in range(2))
    assert first.files == second.files
    assert first.spec == second.spec
    assert msgspec.json.encode(first.proof) == msgspec.json.encode(second.proof)


def test_boosters_of_their_own_take_the_same_way() -> None:
    for name, kind in (("xgboost, three classes", "xgboost"), ("lightgbm with categories", "lightgbm")):
        fitted = MODELS[name]()
        booster = fitted.model.get_booster() if kind == "xgboost" else fitted.model.booster_
        sample = Sample(frame=fitted.frame, as_frame=fitted.as_frame)
        for forced, engine in ((False, "onnx"), (True, f"native:{kind}")):
            options = ConversionOptions(max_rows=1000, force_native=forced)
            chosen = choose(booster, sample, kind=kind, options=options)
            assert chosen.spec.kind == engine, chosen.proof.reason
            assert chosen.proof.label_flips == 0


def test_a_forced_native_engine_says_that_it_was_asked_for() -> None:
    fitted = MODELS["random forest"]()
    sample = Sample(frame=fitted.frame.head(100), as_frame=False)
    chosen = choose(fitted.model, sample, options=ConversionOptions(max_rows=100, force_native=True))
    assert chosen.spec.kind == "native:sklearn"
    assert "asked for" in chosen.proof.attempts[0].reason
    assert chosen.spec.trusted == () or all(isinstance(name, str) for name in chosen.spec.trusted)


def test_the_proof_covers_nulls_and_unseen_categories() -> None:
    fitted = MODELS["one-hot columns, xgboost"]()
    kinds = choose(fitted.model, Sample(frame=fitted.frame)).proof.rows_by_kind
    assert kinds.keys() == {"sample", "threshold-edge", "null", "unseen-category"}


def test_what_the_original_refuses_is_reported_and_not_held_against_the_conversion() -> None:
    frame, target = payments(nulls=False)
    frame = frame[["country", "channel"]]
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, target)
    chosen = choose(model, Sample(frame=frame))
    assert chosen.spec.kind == "onnx"
    assert chosen.refused.categories == {"country", "channel"}
    assert chosen.refused.nulls == frozenset()


def test_sample_rows_with_nulls_that_the_model_refuses_are_left_out_and_reported() -> None:
    fitted = MODELS["logistic regression"]()
    gaps = fitted.frame.copy()
    gaps.iloc[:5, 0] = np.nan
    chosen = choose(fitted.model, Sample(frame=gaps, as_frame=False))
    assert chosen.refused.nulls == {"x0"}
    assert chosen.proof.rows_by_kind == {"sample": len(gaps) - 5}


def test_a_sample_that_the_model_cannot_predict_is_an_error_that_says_so() -> None:
    fitted = MODELS["logistic regression"]()
    broken = fitted.frame.copy()
    broken.iloc[0, 0] = np.inf
    with pytest.raises(ModelFailed, match="infinity"):
        choose(fitted.model, Sample(frame=broken, as_frame=False))


def test_columns_go_in_by_name_whatever_their_order() -> None:
    frame, target = payments(nulls=False)
    frame = frame[["amount", "age"]]
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(frame, target)
    chosen = choose(model, Sample(frame=frame[["age", "amount"]]))
    assert chosen.proof.label_flips == 0
    assert chosen.spec.feeds[0].fields == ("amount", "age")


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_boosters_take_their_columns_by_name(kind: str) -> None:
    frame, target = payments(nulls=False)
    frame = frame[["amount", "age"]]
    if kind == "xgboost":
        booster = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(frame, target).get_booster()
    else:
        booster = lightgbm.LGBMClassifier(n_estimators=5, **QUIET).fit(frame, target).booster_
    chosen = choose(booster, Sample(frame=frame[["age", "amount"]]), kind=kind)
    assert chosen.spec.kind == "onnx"
    assert chosen.spec.feeds[0].fields == ("amount", "age")


def test_progress_is_told_in_order() -> None:
    told: list[tuple[str, float]] = []
    fitted = MODELS["scaled xgboost"]()
    sample = Sample(frame=fitted.frame.head(500), as_frame=False)
    source = SourceModel(kind="sklearn", model=fitted.model)
    choose_engine(
        source, sample, infer_contract(sample), options=OPTIONS, progress=lambda s, f: told.append((s, f))
    )
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("float64" in stage for stage, _ in told)


def test_allowed_flips_and_a_wide_tolerance_keep_the_faster_engine() -> None:
    fitted = MODELS["scaled xgboost"]()
    options = ConversionOptions(max_rows=4000, tolerance=1.0, allow_flips=4000)
    chosen = choose(fitted.model, Sample(frame=fitted.frame, as_frame=False), options=options)
    assert [attempt.strategy for attempt in chosen.proof.attempts] == ["float32"]


class Moody(LogisticRegression):
    """Predicts something else each time."""

    def predict_proba(self, X: Any) -> Any:
        return np.random.default_rng().dirichlet([1.0, 1.0], len(X))


def test_a_model_that_contradicts_itself_is_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 2))
    model = Moody().fit(rows, rows[:, 0] > 0)
    sample = Sample(frame=pd.DataFrame(rows, columns=["x0", "x1"]), as_frame=False)
    with pytest.raises(ProofFailed, match="random"):
        choose(model, sample)


@pytest.fixture
def function_file(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from weights import WEIGHT

            def by_frame(frame):
                return frame["a"].to_numpy() * WEIGHT

            def by_dict(columns: dict[str, np.ndarray]):
                return {"double": columns["a"] * 2, "name": np.array(["x"] * len(columns["a"]))}
            """
        )
    )
    (tmp_path / "weights.py").write_text("WEIGHT = 3.0")
    return tmp_path / "model.py"


@pytest.mark.parametrize(("name", "outputs"), [("by_frame", ["prediction"]), ("by_dict", ["double", "name"])])
def test_a_python_function_is_shipped_with_its_files(
    function_file: Path, tmp_path_factory: pytest.TempPathFactory, name: str, outputs: list[str]
) -> None:
    sample = Sample(frame=pd.DataFrame({"a": [1.0, 2.0, 3.0]}))
    chosen = choose(
        read_function(function_file, name),
        sample,
        kind="python",
        path=function_file,
        entry=f"model.py:{name}",
        files={"weights.py": function_file.parent / "weights.py"},
    )
    assert chosen.spec.kind == "native:python"
    assert chosen.task is Task.other
    assert [output.name for output in chosen.outputs] == outputs
    assert sorted(chosen.files) == ["engine/model.py", "engine/weights.py"]
    served = reload(chosen, sample, tmp_path_factory.mktemp("served"))
    answer = served.predict(sample_columns(infer_contract(sample), sample))
    assert answer[outputs[0]].tolist() == ([3.0, 6.0, 9.0] if name == "by_frame" else [2.0, 4.0, 6.0])


def test_a_python_function_without_its_file_cannot_be_packaged() -> None:
    with pytest.raises(UnknownFormat, match=r"file\.py:function"):
        choose(lambda frame: frame["a"], Sample(frame=pd.DataFrame({"a": [1.0]})), kind="python")


def test_an_onnx_model_is_served_unchanged_under_its_own_names(tmp_path: Path) -> None:
    fitted = MODELS["xgboost, three classes"]()
    sample = Sample(frame=fitted.frame, as_frame=False)
    model = choose(fitted.model, sample).files["engine/model.onnx"]
    chosen = choose(model, sample, kind="onnx")
    assert chosen.files == {"engine/model.onnx": model}
    assert chosen.spec.kind == chosen.proof.engine == "onnx"
    assert [output.name for output in chosen.outputs] == ["label", "probabilities"]
    served = reload(chosen, sample, tmp_path).predict(sample_columns(infer_contract(sample), sample))
    assert served["label"].tolist() == fitted.model.predict(fitted.frame.to_numpy()).tolist()


def test_early_stopping_is_kept() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(800, 4))
    target = (rows[:, 0] + rng.normal(size=800) > 0).astype(int)
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, n_jobs=1)
    model.fit(rows[:600], target[:600], eval_set=[(rows[600:], target[600:])], verbose=False)
    assert model.best_iteration < 55
    sample = Sample(frame=pd.DataFrame(rows, columns=list("abcd")), as_frame=False)
    assert choose(model, sample).spec.kind == "onnx"
    native = choose(model, sample, options=ConversionOptions(max_rows=500, force_native=True))
    assert json.loads(native.spec.options["rounds"]) == model.best_iteration + 1
