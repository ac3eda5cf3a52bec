"""The model card says what is known, marks what is not, and lets no name break its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from fairway.core.bundle import Attempt
from fairway.core.columns import Columns
from fairway.core.contract import Action, Category, Contract, DType, Field, Output, Rules, Task
from fairway.packaging.card import DataDigest, data_digest, in_sample_metrics, with_inputs, write_card
from tests.unit.packaging.conftest import PARTS

CONTRACT = Contract(
    inputs=(
        Field(
            name="amount|`x`",
            dtype=DType.float64,
            nullable=True,
            minimum=0.0,
            maximum=9.0,
            quantiles=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 9.0),
            fence=(-4.0, 12.0),
            missing_rate=0.125,
            rules=Rules(on_null=Action.warn, on_range=Action.clip),
        ),
        Field(
            name="kind", dtype=DType.string, categories=tuple(Category(f"<c{i}>", 1 / 8) for i in range(8))
        ),
        Field(name="note", dtype=DType.string),
        Field(name="when", dtype=DType.timestamp, quantiles=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 86400e6)),
        Field(name="image", dtype=DType.uint8, shape=(2, 3)),
    ),
    outputs=(Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),),
    task=Task.classification,
    target="fraud",
)


def card(**given: Any) -> str:
    proof = msgspec.structs.replace(
        PARTS["proof"],
        rows_by_kind={"sample": 2, "null": 1},
        attempts=(
            Attempt(strategy="float32", accepted=False, reason="2 of 3 rows got another label"),
            Attempt(strategy="float64", accepted=True, reason="agreed"),
        ),
    )
    facts: dict[str, Any] = {
        "model_type": "Pipeline: StandardScaler, LogisticRegression",
        "source_kind": "sklearn",
        "model_file": "model.joblib",
        "contract": CONTRACT,
        "spec": PARTS["spec"],
        "profile": PARTS["profile"],
        "environment": msgspec.structs.replace(PARTS["environment"], required=("numpy",)),
        "proof": proof,
        "data": DataDigest("the file", "ab12"),
        "metrics": {"accuracy": 0.75},
    }
    return write_card(**(facts | given))


def test_says_what_is_known() -> None:
    text = card(notes=("The model does not use z.",))
    for told in (
        "# Model card: Pipeline: StandardScaler, LogisticRegression",
        "| Task | classification |",
        "file `model.joblib`",
        "| sha256 of the file | `ab12` |",
        "| Target | `fraud` |",
        "- The model does not use z.",
        "12.50% | 0 to 9, median 3 | warn | clip | warn | - |",
        "1970-01-01 to 1970-01-02",
        "free text",
        "| `image` | uint8 [2, 3] |",
        "and 3 more",
        "| `probabilities` | float32 [2] | no, yes |",
        "in-sample",
        "| accuracy | 0.75 |",
        "(2 sample, 1 null)",
        "- float32: not kept. 2 of 3 rows got another label",
        "- float64: kept.",
        "- numpy 2.1.0 (the engine needs it)",
    ):
        assert told in text
    assert text.count("*not stated*") >= 5


def test_marks_what_is_not_known() -> None:
    text = card(metrics={}, model_file=None, contract=msgspec.structs.replace(CONTRACT, target=None))
    assert "*Not stated*: no target column was named" in text
    assert "| Target | *not stated* |" in text


def test_names_break_no_table() -> None:
    text = card()
    assert "amount\\|'x'" in text
    assert "<c0>" not in text
    for line in text.splitlines():
        if line.startswith("| `"):
            assert line.replace("\\|", "").count("|") in (4, 9)


def test_rules_are_written_anew_after_an_edit() -> None:
    text = card()
    first = msgspec.structs.replace(CONTRACT.inputs[0], rules=Rules())
    edited = msgspec.structs.replace(CONTRACT, inputs=(first, *CONTRACT.inputs[1:]))
    assert with_inputs(text, edited) == card(contract=edited)
    assert with_inputs(text, CONTRACT) == text
    assert with_inputs("my own card", CONTRACT) == "my own card"


class TestMetrics:
    rng = np.random.default_rng(0)

    def test_two_classes_agree_with_scikit_learn(self) -> None:
        score = np.round(self.rng.random(200), 1)  # with ties
        target = np.where(self.rng.random(200) < score, "yes", "no").astype(object)
        label = np.where(score > 0.5, "yes", "no").astype(object)
        outputs = {"label": label, "probabilities": np.stack([1 - score, score], axis=1)}
        metrics = in_sample_metrics(Task.classification, outputs, target)
        assert metrics["accuracy"] == np.mean(label == target)
        assert metrics["area under the ROC curve"] == pytest.approx(roc_auc_score(target == "yes", score))

    def test_numbers_as_classes_whatever_their_type(self) -> None:
        outputs = {
            "label": np.array([0, 1, 1]),
            "probabilities": np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]),
        }
        metrics = in_sample_metrics(Task.classification, outputs, np.array([0.0, 1.0, 0.0]))
        assert metrics == {"accuracy": pytest.approx(2 / 3), "area under the ROC curve": 1.0}

    def test_regression_agrees_with_scikit_learn(self) -> None:
        target, given = self.rng.normal(size=50), self.rng.normal(size=50)
        metrics = in_sample_metrics(Task.regression, {"prediction": given}, target)
        assert metrics == {
            "mean absolute error": pytest.approx(mean_absolute_error(target, given)),
            "root mean squared error": pytest.approx(root_mean_squared_error(target, given)),
            "R2": pytest.approx(r2_score(target, given)),
        }

    def test_nothing_to_compare(self) -> None:
        assert in_sample_metrics(Task.regression, {"prediction": np.zeros(2)}, None) == {}
        assert in_sample_metrics(Task.anomaly, {"label": np.zeros(2)}, np.zeros(2)) == {}
        assert in_sample_metrics(Task.regression, {"prediction": np.zeros(1)}, np.array([np.nan])) == {}
        one_class = {"label": np.zeros(2), "probabilities": np.array([[1.0, 0.0], [1.0, 0.0]])}
        assert in_sample_metrics(Task.classification, one_class, np.zeros(2)) == {"accuracy": 1.0}


def test_data_is_known_by_its_content(tmp_path: Path) -> None:
    def columns(*values: str | None) -> Columns:
        return Columns(("s",), len(values), arrays=[np.array(values, dtype=object)])

    path = tmp_path / "a.csv"
    path.write_bytes(b"s\na\n")
    assert data_digest(path, columns("a")).what == "the file"
    assert data_digest(None, columns("a", None)) == data_digest(None, columns("a", None))
    assert data_digest(None, columns("a", "b")) != data_digest(None, columns("ab", ""))
    numbers = Columns(("s",), 2, packed=np.array([[1.0], [2.0]]))
    assert data_digest(None, numbers).what == "the values"
