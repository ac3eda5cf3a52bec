"""Calls an object with scikit-learn's interface: columns in, the contract's named outputs out.

Shared by `native:sklearn` and by the packager, which compares a converted model with the original through
it, so that both see the same rows. pandas is imported only when the model wants a DataFrame.

| model | outputs |
|---|---|
| classifier with `predict_proba` | `label` [n], `probabilities` [n, classes] |
| classifier with only `decision_function` | `label` [n], `score` [n] (binary: above 0 is the second class) or [n, classes] |
| classifier of several targets | `label` [n, targets], `probabilities_0` [n, classes of target 0], ... |
| regressor | `prediction` [n] or [n, targets] |
| anomaly detector | `label` [n] (1 inside, -1 outlier), `score` [n] (`decision_function`: below 0 is an outlier) |
| clusterer with `predict` | `label` [n] |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Task
from fairway.core.errors import ModelFailed, UnknownFormat

if TYPE_CHECKING:
    import pandas as pd

InputForm = Literal["frame", "matrix", "column"]
"""What `predict` is called with: a DataFrame, an `[n, k]` array, or one `[n]` array (text pipelines)."""


def input_form(options: Mapping[str, str]) -> InputForm:
    """The input form in an engine's options; a DataFrame when it says nothing."""
    form = options.get("input", "frame")
    if form not in ("frame", "matrix", "column"):
        raise UnknownFormat(f"engine option input={form!r} is not frame, matrix or column.")
    return form  # type: ignore[return-value]


def task_of(estimator: Any) -> Task:
    """What a fitted estimator or pipeline predicts. Raises `UnknownFormat` when it cannot be served."""
    last = _last_step(estimator)
    kind = getattr(last, "_estimator_type", None)
    if kind is None and hasattr(last, "__sklearn_tags__"):
        kind = last.__sklearn_tags__().estimator_type
    if not hasattr(estimator, "predict"):
        raise UnknownFormat(
            f"{type(last).__name__} has no predict(): it is a step of preparation, not a model.",
            hint="Package the whole pipeline that ends in a model.",
        )
    tasks = {
        "classifier": Task.classification,
        "regressor": Task.regression,
        "outlier_detector": Task.anomaly,
        "clusterer": Task.other,
        "ranker": Task.regression,  # a score that rows are ordered by
    }
    if kind not in tasks:
        raise UnknownFormat(
            f"{type(last).__name__} is not a classifier, regressor, anomaly detector or clusterer.",
            hint=_RANKERS.get(
                type(last).__name__,
                "Give it scikit-learn's ClassifierMixin or RegressorMixin, or package a function: file.py:function.",
            ),
        )
    return tasks[kind]


_RANKERS = {
    "LGBMRanker": "Package what it learned: model.booster_.save_model('model.txt').",
}
"""Models that order rows and do not say so: files of theirs can be served."""


class EstimatorEngine:
    """A live estimator as an engine.

    `fields` are the names of the columns it sees, in order. `dtypes` gives the pandas dtype each column had
    when the model was packaged (see `pandas_dtype`); the matrix form takes its common numpy dtype from them.
    Columns go in by name when the estimator remembers its feature names, else in the order of `fields`.
    """

    def __init__(
        self,
        estimator: Any,
        fields: Sequence[str],
        task: Task,
        input_form: InputForm,
        dtypes: Mapping[str, str],
    ) -> None:
        self._estimator = estimator
        self._prepare, self._model = _halves(estimator)
        self._task = task
        self._form = input_form
        self._dtypes = dtypes
        self._fields = tuple(fields)
        if input_form == "frame":
            known = feature_names(estimator)
            if known is not None and set(known) <= set(fields):
                self._fields = known
        self._matrix_dtype = _matrix_dtype([dtypes.get(name, "float64") for name in self._fields])

    def predict(self, columns: Columns) -> Outputs:
        """Raises `ModelFailed` with the model's own message when it refuses the rows."""
        try:
            return self._outputs(self.input(columns))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelFailed(f"the model {type(self._estimator).__name__} raised {reason}") from error

    def unload(self) -> None:
        self._estimator = None

    def input(self, columns: Columns) -> Any:
        """What the estimator is called with for these rows."""
        if self._form == "frame":
            return to_frame(columns, self._fields, self._dtypes)
        if self._form == "column":
            return columns[self._fields[0]]
        if columns.packed is not None and self._fields == columns.names:
            return columns.packed.astype(self._matrix_dtype, copy=False)
        arrays = [columns[name] for name in self._fields]
        if len(arrays) == 1 and arrays[0].ndim > 1:
            return arrays[0]
        if self._matrix_dtype == np.dtype(object):
            arrays = [_nan_for_none(array.astype(object)) for array in arrays]
        return np.stack(arrays, axis=1).astype(self._matrix_dtype, copy=False)

    def _outputs(self, rows: Any) -> Outputs:
        estimator = self._model
        if self._prepare is not None:
            rows = self._prepare.transform(rows)  # once, not once for labels and once for probabilities
        if self._task is Task.classification and _labels_follow(estimator):
            probabilities = estimator.predict_proba(rows)
            label = _plain(estimator.classes_[np.argmax(probabilities, axis=1)])
            return {"label": label, "probabilities": probabilities}
        label_or_value = np.asarray(estimator.predict(rows))
        if label_or_value.ndim == 2 and label_or_value.shape[1] == 1:
            label_or_value = label_or_value[:, 0]  # CatBoost gives [n, 1], some regressors too
        if self._task is Task.regression:
            return {"prediction": label_or_value}
        label = _plain(label_or_value)
        if self._task is Task.anomaly:
            return {"label": label, "score": np.asarray(estimator.decision_function(rows))}
        if self._task is Task.other:
            return {"label": label}
        if hasattr(estimator, "predict_proba"):
            probabilities = estimator.predict_proba(rows)
            if isinstance(probabilities, list):
                return {"label": label} | {f"probabilities_{i}": p for i, p in enumerate(probabilities)}
            return {"label": label, "probabilities": np.asarray(probabilities)}
        if hasattr(estimator, "decision_function"):
            return {"label": label, "score": np.asarray(estimator.decision_function(rows))}
        return {"label": label}


def _halves(estimator: Any) -> tuple[Any, Any]:
    """The steps before the model as one transformer (or None), and the model. Only for scikit-learn's own
    Pipeline, whose predict is known to be exactly that."""
    is_pipeline = type(estimator).__name__ == "Pipeline" and type(estimator).__module__ == "sklearn.pipeline"
    if not is_pipeline or len(estimator.steps) < 2 or estimator.steps[-1][1] in (None, "passthrough"):
        return None, estimator
    return estimator[:-1], estimator.steps[-1][1]


def _labels_follow(estimator: Any) -> bool:
    """Whether the label is by definition the class of the highest probability, so that one pass gives both."""
    return (
        type(estimator).__module__ == "sklearn.ensemble._forest" and getattr(estimator, "n_outputs_", 0) == 1
    )


def feature_names(estimator: Any) -> tuple[str, ...] | None:
    """The column names the estimator was fitted with, or None when it was fitted without names."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        names = getattr(estimator, "feature_names_", None)  # CatBoost
    return None if names is None else tuple(str(name) for name in names)


def passes_names_on(estimator: Any, columns: Sequence[str]) -> bool:
    """Whether a later step of a pipeline knows these column names: then its first step, often somebody's own class
    that remembers none, was given a frame."""
    seen = [feature_names(step) for _, step in getattr(estimator, "steps", ())]
    return any(names is not None and set(names) <= set(columns) for names in seen)


def pandas_dtype(series: pd.Series) -> str:
    """How `to_frame` is to rebuild a column like this one, as a string that fits in a manifest.

    The pandas dtype's own name, except: `category:[...]` with the categories as JSON; `object` holds its
    nulls as NaN and `object-none` as None, because scikit-learn's encoders tell the two apart.
    """
    name = str(series.dtype)
    if name == "category":
        categories = series.cat.categories
        return "category:" + json.dumps([_json_scalar(value) for value in categories.tolist()])
    if name == "object" and any(value is None for value in series.to_numpy()):
        return "object-none"
    return name


def to_frame(columns: Columns, names: Sequence[str], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """The columns as a DataFrame with the dtypes the model was packaged with; a tensor is a column of arrays, one a row.

    A value outside a `category` column's categories becomes missing there, as pandas itself does.
    """
    import pandas as pd  # optional: only models that want a DataFrame need it

    return pd.DataFrame({name: _series(columns[name], dtypes.get(name)) for name in names}, copy=False)


def _series(array: Array, dtype: Any) -> Any:
    import pandas as pd  # optional: only models that want a DataFrame need it

    if array.ndim > 1:
        return pd.Series(list(array), dtype=object)
    if dtype in ("object", "object-none"):
        values = _nan_for_none(array) if dtype == "object" else array
        return pd.Series(values, dtype=object)  # or pandas would guess text
    if dtype is None or array.dtype.name == dtype:
        return array
    if dtype.startswith("category:"):
        categories = json.loads(dtype.removeprefix("category:"))
        if array.dtype.kind == "f" and all(isinstance(value, int) for value in categories):
            array = array.astype(object)
        codes = pd.Index(categories).get_indexer(pd.Index(array))
        return pd.Categorical.from_codes(codes, categories=categories)
    if dtype.startswith("datetime64["):
        stamps: Any = pd.Series(array)
        if "," in dtype:
            stamps = stamps.dt.tz_localize("UTC")
        return stamps.astype(dtype)
    if dtype in ("str", "string"):
        return pd.array(array, dtype=dtype)
    return pd.Series(array).astype(dtype)  # nullable integers and booleans travel as float64


def _nan_for_none(array: Array) -> Array:
    if array.dtype != object:
        return array
    missing = array == None  # noqa: E711 - elementwise
    if not missing.any():
        return array
    filled = array.copy()
    filled[missing] = np.nan
    return filled


def _matrix_dtype(dtypes: Sequence[str]) -> np.dtype[Any]:
    """float32 when every column is; float64 for other numbers; object as soon as one column is text."""
    plain = [dtype.lower() for dtype in dtypes]
    if any(dtype.startswith(("object", "str", "string", "category")) for dtype in plain):
        return np.dtype(object)
    return np.dtype(np.float32 if plain and all(dtype == "float32" for dtype in plain) else np.float64)


def _plain(label: Array) -> Array:
    """Labels as numbers, or as an object array of `str`: numpy's fixed-width strings are not a contract type."""
    if label.dtype.kind == "U" or (label.dtype.kind == "O" and label.size and isinstance(label.flat[0], str)):
        return label.astype(str).astype(object)
    if label.dtype.kind == "O":
        return np.asarray(label.tolist())
    return label


def _json_scalar(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _last_step(estimator: Any) -> Any:
    """The model at the end of a pipeline or inside a search or threshold wrapper."""
    steps = getattr(estimator, "steps", None)
    return _last_step(steps[-1][1]) if steps else estimator
