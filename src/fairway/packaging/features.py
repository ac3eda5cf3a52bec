"""Fits the sample to the model: the columns the model was trained on, in its order, and no others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairway.core.columns import Array
from fairway.core.conform import conform
from fairway.core.contract import DType, Field
from fairway.core.errors import MalformedInput
from fairway.core.listing import listed
from fairway.packaging.contract import sample_arrays
from fairway.packaging.conversion.onnx import onnx_signature
from fairway.packaging.source import Sample, SourceModel
from fairway.runtimes.estimator import feature_names, passes_names_on

_MADE_UP = re.compile(r"(Column_|f|x)?\d+")
"""Names that libraries give to the columns of a bare array."""


def fit_sample(source: SourceModel, sample: Sample) -> tuple[Sample, tuple[str, ...]]:
    """(the sample with the model's features, notes on what was changed).

    Raises MalformedInput naming the columns that are missing.
    """
    if source.kind == "onnx":
        return _fit_graph(source.model, sample)
    if source.kind == "python":
        return sample, ()
    names, count = model_features(source)
    if names is not None and (not _is_made_up(names) or set(names) <= set(map(str, sample.frame.columns))):
        return _fit_names(names, sample)
    if count is None:
        return sample, ()
    widths = [int(np.prod(values.shape[1:])) for values in sample.tensors.values()]
    if len(sample.frame.columns) + sum(widths) != count:
        raise MalformedInput(
            f"the model takes {count} features and the sample data has {len(sample.frame.columns) + sum(widths)}: "
            f"{_listed(sample)}.",
            hint="If one of them is the label, name it: --target COLUMN.",
        )
    if sample.as_frame and passes_names_on(source.model, [str(name) for name in sample.frame.columns]):
        return sample, ()
    return dataclasses.replace(sample, as_frame=False), ()


def model_features(source: SourceModel) -> tuple[tuple[str, ...] | None, int | None]:
    """(names of the features the model was fitted with, their number), None for what it does not tell."""
    model = source.model
    names: Sequence[str] | None
    count: int | None
    if source.kind == "xgboost":
        names, count = model.feature_names, int(model.num_features())
    elif source.kind == "lightgbm":
        names, count = model.feature_name(), int(model.num_feature())
    else:
        names, count = feature_names(model), _count(model)
    return None if names is None else tuple(map(str, names)), count if names is None else len(names)


def _is_made_up(names: Sequence[str]) -> bool:
    return all(_MADE_UP.fullmatch(name) for name in names)


def _count(model: Any) -> int | None:
    try:
        return int(model.n_features_in_)
    except (AttributeError, TypeError):  # a text pipeline takes one list of texts and counts no features
        return None


def _listed(sample: Sample) -> str:
    return listed([*map(str, sample.frame.columns), *sample.tensors], 30)


def _fit_names(names: Sequence[str], sample: Sample) -> tuple[Sample, tuple[str, ...]]:
    there = {str(name): str(name) for name in sample.frame.columns}
    # LightGBM stores names with blanks as underscores.
    there = {re.sub(r"\s", "_", name): name for name in there} | there
    if not sample.as_frame and len(names) == len(sample.frame.columns):
        there = dict(zip(names, map(str, sample.frame.columns), strict=True))
    missing = [name for name in names if name not in there]
    if missing:
        raise MalformedInput(
            f"the sample data lacks columns the model was trained on: {', '.join(missing)}; it has: {_listed(sample)}."
        )
    wanted = [there[name] for name in names]
    dropped = [*(str(name) for name in sample.frame.columns if name not in wanted), *sample.tensors]
    frame = sample.frame[wanted].set_axis(list(names), axis=1)
    dtypes = {name: sample.dtypes[there[name]] for name in names if there[name] in sample.dtypes}
    notes = []
    if dropped:
        notes.append(f"The model does not use {', '.join(dropped)}: left out of the contract.")
    if not sample.as_frame:
        notes.append("The sample data has no column names: its columns were taken in the model's order.")
    fitted = dataclasses.replace(sample, frame=frame, as_frame=True, tensors={}, dtypes=dtypes)
    return fitted, tuple(notes)


def _fit_graph(data: bytes, sample: Sample) -> tuple[Sample, tuple[str, ...]]:
    """Names and dtypes are the graph's; one `[n, k]` input also takes k columns."""
    inputs, _ = onnx_signature(data)
    arrays = sample_arrays(sample)
    scalars = [name for name in arrays if name not in sample.tensors]
    if len(inputs) == 1 and inputs[0].name not in arrays:
        (only,) = inputs
        width = int(np.prod(only.shape, dtype=int))
        if len(sample.tensors) == 1 and not scalars:
            arrays = {only.name: next(iter(sample.tensors.values()))}
        elif len(only.shape) <= 1 and len(scalars) == width and not sample.tensors:
            if sample.as_frame and only.shape:
                return _matrix_of_columns(only, sample), ()
            values = [arrays[name] for name in scalars]
            arrays = {only.name: np.stack(values, axis=1) if only.shape else values[0]}
        elif len(only.shape) <= 1:
            raise MalformedInput(
                f"the graph's input {only.name!r} takes {width} values a row and the sample data has "
                f"{len(scalars)} columns: {_listed(sample)}.",
                hint="If one of them is the label, name it: --target COLUMN.",
            )
    missing = [field.name for field in inputs if field.name not in arrays]
    if missing:
        raise MalformedInput(
            f"the sample data lacks inputs of the graph: {', '.join(missing)}; it has: {_listed(sample)}."
        )
    dropped = [name for name in arrays if name not in {field.name for field in inputs}]
    notes = (f"The graph does not use {', '.join(dropped)}: left out of the contract.",) if dropped else ()
    cast = {field.name: _as_graph_type(field, arrays[field.name]) for field in inputs}
    return _from_arrays(inputs, cast, sample), notes


def _matrix_of_columns(only: Field, sample: Sample) -> Sample:
    """k named columns for one `[n, k]` input: the names stay, the dtype is the graph's."""
    cast = {
        name: _as_graph_type(Field(name=name, dtype=only.dtype), values)
        for name, values in sample_arrays(sample).items()
    }
    fields = [Field(name=name, dtype=only.dtype) for name in cast]
    return _from_arrays(fields, cast, sample)


def _as_graph_type(field: Field, values: Array) -> Array:
    nullable = Field(name=field.name, dtype=field.dtype, shape=field.shape, nullable=True)
    conformed, problems = conform(nullable, values)
    if problems:
        raise MalformedInput(
            f"the graph's input {field.name!r} is {field.dtype}"
            f"{list(field.shape) if field.shape else ''}; row {problems[0].row or 0} of the sample: {problems[0].reason}."
        )
    if conformed.dtype.kind == "f" and not field.dtype.is_float and not np.isnan(conformed).any():
        conformed = conformed.astype(field.dtype.value)
    return conformed


def _from_arrays(fields: Sequence[Field], arrays: Mapping[str, Array], sample: Sample) -> Sample:
    scalars = {field.name: arrays[field.name] for field in fields if not field.shape}
    tensors = {field.name: arrays[field.name] for field in fields if field.shape}
    dtypes: dict[str, DType] = {
        field.name: field.dtype
        for field in fields
        if not field.shape and arrays[field.name].dtype.kind == "f" and not field.dtype.is_float
    }
    frame = pd.DataFrame(scalars, index=pd.RangeIndex(len(sample)))
    return dataclasses.replace(sample, frame=frame, tensors=tensors, dtypes=dtypes, as_frame=True)
