"""How much the served model heeds each input: permutation importance, on the sample, without labels.

A column is put in another order and the rows are answered again (Breiman 2001; as "model reliance" in Fisher et al. 2019); how far the
answers move is what the input is heeded by. Monitors rank drift with it. The work is bounded by numbers, not by time, so that
the same model and data make the same bundle.
"""

from __future__ import annotations

import numpy as np

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.contract import Contract, Task
from fairway.core.errors import ContractViolation, ModelFailed
from fairway.packaging.golden import Predicts

ROWS = 500
"""Most rows answered for each field."""
BUDGET = 50_000
"""Most rows answered in all; of more fields than that allows, fewer rows each."""
FEWEST = 20
ELEMENTS = 5_000_000
"""Most numbers of a tensor that are answered again: of models of images and the like nothing is ranked."""
_SEED = 23


def permutation_importance(engine: Predicts, contract: Contract, columns: Columns) -> dict[str, float]:
    """Each field's share of all the movement of the answers, 0..1, adding up to 1.

    Empty for fewer than two fields, for fewer than 20 rows, for more fields than can be tried, for a model that answers
    nothing comparable, or fails on rows put together anew.
    """
    fields = contract.inputs
    rows = min(ROWS, BUDGET // max(len(fields), 1), columns.rows)
    elements = sum(int(np.prod(field.shape)) for field in fields) * rows * len(fields)
    if len(fields) < 2 or rows < FEWEST or (any(field.shape for field in fields) and elements > ELEMENTS):
        return {}
    rng = np.random.default_rng(_SEED)
    sample = columns.take(np.sort(rng.permutation(columns.rows)[:rows]))
    moved: dict[str, float] = {}
    try:
        before = _answers(contract, engine.predict(sample))
        if before is None:
            return {}
        for position, field in enumerate(fields):
            after = _answers(contract, engine.predict(_shuffled(sample, position, rng)))
            assert after is not None
            moved[field.name] = _distance(before, after)
    except (ModelFailed, ContractViolation):  # rows that never were, such as an end before a start
        return {}
    total = sum(moved.values())
    if not np.isfinite(total) or total <= 0:
        return {}
    return {name: float(f"{value / total:.4g}") for name, value in moved.items()}


def _shuffled(sample: Columns, position: int, rng: np.random.Generator) -> Columns:
    order = rng.permutation(sample.rows)
    if sample.packed is not None:
        packed = sample.packed.copy()
        packed[:, position] = packed[order, position]
        return Columns(sample.names, sample.rows, packed=packed)
    arrays = list(sample.arrays)
    arrays[position] = arrays[position][order]
    return Columns(sample.names, sample.rows, arrays=arrays)


def _answers(contract: Contract, outputs: Outputs) -> Array | None:
    """`[rows, numbers]`: probabilities where there are any, else every numeric output, else labels as they are."""
    if contract.task is Task.classification and "probabilities" in outputs:
        return _flat(outputs["probabilities"])
    numeric = [_flat(values) for values in outputs.values() if values.dtype.kind in "biuf"]
    if numeric:
        return np.column_stack(numeric)
    texts = [values for values in outputs.values() if values.ndim == 1 and values.dtype.kind in "OU"]
    return np.column_stack(texts) if texts else None


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1).astype(np.float64)


def _distance(before: Array, after: Array) -> float:
    """Mean movement of a row's numbers, each in standard deviations of its own; of texts the share that changed."""
    if before.dtype.kind == "O":
        return float(np.mean(before != after))
    spread = before.std(axis=0)
    telling = np.isfinite(spread) & (spread > 0)
    if not telling.any():
        return 0.0
    return float(np.nanmean(np.abs(after - before)[:, telling] / spread[telling]))
