"""How a live model is called, and how its graph is fed: the two readings of the same columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from fairway.core.bundle import Feed
from fairway.core.contract import Contract, DType, Field
from fairway.packaging.conversion.graph import NULL, Block, Graph, Tensor, Unsupported
from fairway.packaging.source import Sample
from fairway.runtimes.estimator import InputForm, feature_names, pandas_dtype, passes_names_on


def dtypes_of(sample: Sample) -> dict[str, str]:
    """Column -> pandas dtype, as `runtimes.estimator.to_frame` takes them; tensors by their numpy dtype."""
    dtypes = {str(name): pandas_dtype(sample.frame[name]) for name in sample.frame.columns}
    return dtypes | {name: values.dtype.name for name, values in sample.tensors.items()}


def form_of(estimator: Any, sample: Sample) -> InputForm:
    """What the estimator was fitted on, as far as it remembers; else what the sample is."""
    columns = [str(name) for name in sample.frame.columns]
    if _reads_text(estimator) and len(columns) == 1:
        return "column"
    if not sample.as_frame or not columns:
        return "matrix"
    names = feature_names(estimator)
    if getattr(estimator, "has_categories", False):
        return "frame"  # a bare booster whose categories are pandas'
    if names is not None:
        return "frame" if set(names) <= set(columns) else "matrix"
    fitted_on_array = getattr(estimator, "n_features_in_", None) is not None
    return "matrix" if fitted_on_array and not passes_names_on(estimator, columns) else "frame"


def columns_seen(estimator: Any, contract: Contract, form: InputForm) -> tuple[str, ...]:
    """The fields the estimator sees, in its order."""
    fields = tuple(field.name for field in contract)
    names = feature_names(estimator) if form == "frame" else None
    return names if names is not None and set(names) <= set(fields) else fields


def feed_block(
    graph: Graph, contract: Contract, order: tuple[str, ...], form: InputForm
) -> tuple[Block, tuple[Feed, ...]]:
    """Declares the graph's inputs: all numbers as one matrix, all text as another; and the columns in order.

    Timestamps, and tensors beside other fields, are not fed; a step that reads one raises `Unsupported`.
    """
    fields = {field.name: field for field in contract}
    used = [fields[name] for name in order]
    if len(used) == 1 and used[0].shape:
        return _tensor_block(graph, used[0])
    unread = {
        field.name: Tensor.unread(
            f"field {field.name!r}: {'a tensor' if field.shape else 'a timestamp'} column"
        )
        for field in used
        if field.shape or field.dtype is DType.timestamp
    }
    fed = [field for field in used if field.name not in unread]
    numbers = tuple(field.name for field in fed if field.dtype is not DType.string)
    texts = tuple(field.name for field in fed if field.dtype is DType.string)
    feeds: list[Feed] = []
    tensors: dict[str, Tensor] = {}
    graph.narrow = all(fields[name].dtype in (DType.float32, DType.float16) for name in numbers)
    if numbers:
        tensors["numbers"] = graph.input("numbers", graph.number, len(numbers))
        feeds.append(Feed(name="numbers", fields=numbers, dtype=graph.precision))
    if texts:
        tensors["texts"] = graph.input("texts", TensorProto.STRING, len(texts))
        feeds.append(Feed(name="texts", fields=texts, dtype="object", null=NULL))
    places = {
        **{name: (tensors["numbers"], i) for i, name in enumerate(numbers)},
        **{name: (tensors["texts"], i) for i, name in enumerate(texts)},
        **{name: (tensor, 0) for name, tensor in unread.items()},
    }
    columns = [places[name] for name in order]
    return Block(tuple(columns), order if form == "frame" else None), tuple(feeds)


def _tensor_block(graph: Graph, field: Field) -> tuple[Block, tuple[Feed, ...]]:
    if len(field.shape) != 1 or field.dtype is DType.string:
        raise Unsupported(f"field {field.name!r}: a tensor of shape {list(field.shape)}")
    tensor = graph.input(field.name, graph.number, int(np.prod(field.shape)))
    return Block.of(tensor), (Feed(name=field.name, fields=(field.name,), dtype=graph.precision),)


def _reads_text(estimator: Any) -> bool:
    """Whether the first step takes one column of texts, as scikit-learn's text vectorizers do."""
    steps = getattr(estimator, "steps", None)
    if steps:
        return _reads_text(steps[0][1])
    union = getattr(estimator, "transformer_list", None)
    if union:
        return all(_reads_text(step) for _, step in union)
    best = getattr(estimator, "best_estimator_", None)
    if best is not None:
        return _reads_text(best)
    return hasattr(estimator, "build_analyzer") and hasattr(estimator, "ngram_range")
