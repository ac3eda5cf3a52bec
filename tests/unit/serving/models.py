"""Models with outputs of every task, around engines of one line."""

from collections.abc import Callable

import numpy as np

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from tests.planes import live_version

TEXTS = np.array(["no", "yes"], dtype=object)


class Engine:
    def __init__(self, function: Callable[[Columns], Outputs]) -> None:
        self.predict = function

    def unload(self) -> None:
        pass


def model(name: str, contract: Contract, function: Callable[[Columns], Outputs]) -> LiveModel:
    version = live_version(1, Engine(function), model=name, contract=contract)
    return LiveModel(everything_to(name, 1), {1: version}, {"champion": 1})


def classifier(name: str = "classifier") -> LiveModel:
    """`yes` where x is at least 0.5; probabilities [1 - x, x]."""
    contract = Contract(
        inputs=(Field(name="x", dtype=DType.float32), Field(name="n", dtype=DType.int64)),
        outputs=(
            Output(name="label", dtype=DType.string),
            Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),
        ),
        task=Task.classification,
    )

    def predict(columns: Columns) -> Outputs:
        x = columns["x"].astype(np.float32)
        return {"label": TEXTS[(x >= 0.5).astype(int)], "probabilities": np.stack([1 - x, x], axis=1)}

    return model(name, contract, predict)


def regressor(name: str = "regressor") -> LiveModel:
    """Half of x, plus three."""
    contract = Contract(
        inputs=(Field(name="x", dtype=DType.float32),),
        outputs=(Output(name="prediction", dtype=DType.float32),),
        task=Task.regression,
    )
    return model(name, contract, lambda columns: {"prediction": (columns["x"] / 2 + 3).astype(np.float32)})


def echo(contract_inputs: tuple[Field, ...], name: str = "echo") -> LiveModel:
    """Gives back what it gets, field by field."""
    outputs = tuple(
        Output(name=field.name, dtype=DType.float64 if _widened(field) else field.dtype, shape=field.shape)
        for field in contract_inputs
    )
    contract = Contract(inputs=contract_inputs, outputs=outputs)
    return model(name, contract, lambda columns: {key: columns[key].copy() for key in columns})


def _widened(field: Field) -> bool:
    return field.nullable and (field.dtype.is_integer or field.dtype is DType.bool)
