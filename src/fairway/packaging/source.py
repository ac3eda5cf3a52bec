"""What the packager starts from: an opened model and a sample of its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from fairway.core.columns import Array
    from fairway.core.contract import DType
    from fairway.packaging.isolated import IsolatedFunction


@dataclass(frozen=True)
class SourceModel:
    """An opened model.

    `kind` is sklearn (any estimator or pipeline with scikit-learn's interface, XGBoost's, LightGBM's and
    CatBoost's wrappers among them), xgboost (a Booster), lightgbm (a Booster), catboost, onnx or python.
    `model` is the live object, the ONNX bytes, or the callable. `path` is the file it came from, if any;
    `files` are the files a python callable needs, by path relative to its folder. `isolated` is a python callable
    that runs in an environment of its own; `model` is None then.
    """

    kind: str
    model: Any
    path: Path | None = None
    entry: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    isolated: IsolatedFunction | None = None

    def close(self) -> None:
        """Ends the processes of an isolated function."""
        if self.isolated is not None:
            self.isolated.close()


@dataclass(frozen=True)
class Sample:
    """Rows the model was trained on, or rows like them.

    `frame` holds the scalar features (no target), one column each; for a model fitted on a bare array the
    columns are named x0, x1, ... and `as_frame` is False: the model wants a matrix back. `tensors` are inputs
    of fixed shape, `[n, ...]`. `target` is the label column, if one was named. `dtypes` gives the contract's
    dtype of columns whose pandas dtype does not tell it: whole numbers and booleans with gaps.
    """

    frame: pd.DataFrame
    as_frame: bool = True
    tensors: dict[str, Array] = field(default_factory=dict)
    target: Array | None = None
    dtypes: dict[str, DType] = field(default_factory=dict)

    def __len__(self) -> int:
        return (
            len(self.frame)
            if len(self.frame.columns)
            else max((len(t) for t in self.tensors.values()), default=0)
        )
