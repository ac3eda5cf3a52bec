"""Steps of preparation that are translated here, in the precision scikit-learn computes in.

The stock converters go through float32 when columns come together and know no missing text, so a value
next to a split threshold ends up on the other side of it. Everything not in `TRANSLATED` is left to them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import check_array

from fairway.core.columns import Array
from fairway.packaging.conversion.graph import NULL, Block, Graph, Tensor, Unsupported
from fairway.packaging.conversion.tree_model import category_hits, encode_categories


def _arithmetic(graph: Graph, block: Block, steps: list[tuple[str, Any]]) -> Block:
    tensor = graph.matrix(block)
    if tensor.is_text:
        raise Unsupported("a scaler on text")
    name = tensor.name
    for op, by in steps:
        if by is not None:
            name = graph.node(op, [name, graph.constant(np.asarray(by, float).reshape(1, -1))])
            if graph.narrow and graph.precision == "float64":
                rounded = graph.node("Cast", [name], to=TensorProto.FLOAT)
                name = graph.node("Cast", [rounded], to=graph.number)
    return Block.of(Tensor(name, tensor.width, tensor.type))


def _standard(graph: Graph, step: Any, block: Block) -> Block:
    mean = step.mean_ if step.with_mean else None
    return _arithmetic(graph, block, [("Sub", mean), ("Div", step.scale_ if step.with_std else None)])


def _robust(graph: Graph, step: Any, block: Block) -> Block:
    center = step.center_ if step.with_centering else None
    return _arithmetic(graph, block, [("Sub", center), ("Div", step.scale_ if step.with_scaling else None)])


def _min_max(graph: Graph, step: Any, block: Block) -> Block:
    limits = [("Max", [step.feature_range[0]]), ("Min", [step.feature_range[1]])] if step.clip else []
    return _arithmetic(graph, block, [("Mul", step.scale_), ("Add", step.min_), *limits])


def _max_abs(graph: Graph, step: Any, block: Block) -> Block:
    return _arithmetic(graph, block, [("Div", step.scale_)])


_FUNCTIONS = {np.log1p: "log1p", np.log: "Log", np.exp: "Exp", np.sqrt: "Sqrt", np.abs: "Abs"}


def _function(graph: Graph, step: Any, block: Block) -> Block:
    func = step.func
    if func is None or (isinstance(func, functools.partial) and func.func is check_array):
        return block
    if func not in _FUNCTIONS or step.kw_args:
        raise Unsupported(f"FunctionTransformer({getattr(func, '__name__', func)!s})")
    tensor = graph.matrix(block)
    if func is np.log1p:
        return Block.of(Tensor(_log1p(graph, tensor.name), tensor.width, tensor.type))
    return Block.of(Tensor(graph.node(_FUNCTIONS[func], [tensor.name]), tensor.width, tensor.type))


def _log1p(graph: Graph, x: str) -> str:
    """log(1 + x) without losing small x: log(u) * x / (u - 1) with u = 1 + x rounded (Kahan's correction)."""
    one = graph.constant(np.array(1.0))
    u = graph.node("Add", [x, one])
    log = graph.node("Log", [u])
    rest = graph.node("Sub", [u, one])
    corrected = graph.node("Div", [graph.node("Mul", [log, x]), rest])
    plain = graph.node("Or", [graph.node("IsInf", [u]), graph.node("IsNaN", [corrected])])
    exact = graph.node("Where", [graph.node("Equal", [rest, graph.constant(np.array(0.0))]), x, corrected])
    tiny_or_plain = graph.node("And", [plain, graph.node("Not", [graph.node("Equal", [u, one])])])
    return graph.node("Where", [tiny_or_plain, log, exact])


def _impute(graph: Graph, step: Any, block: Block) -> Block:
    tensor = graph.matrix(block)
    statistics = np.asarray(step.statistics_)
    missing = _missing(graph, step.missing_values, tensor)
    if tensor.is_text:
        filled = graph.constant(_texts(statistics).reshape(1, -1))
        result = Tensor(graph.node("Where", [missing, filled, tensor.name]), tensor.width, tensor.type)
    else:
        numbers = statistics.astype(float)
        kept = np.flatnonzero(~np.isnan(numbers))  # scikit-learn drops columns that were all missing
        filled = graph.constant(np.nan_to_num(numbers).reshape(1, -1))
        result = Tensor(graph.node("Where", [missing, filled, tensor.name]), tensor.width, tensor.type)
        if len(kept) < tensor.width:
            result = graph.matrix(Block.of(result).pick(kept.tolist()))
    if not step.add_indicator:
        return Block.of(result)
    if tensor.is_text:
        raise Unsupported("SimpleImputer(add_indicator=True) on text")
    flags = Tensor(graph.node("Cast", [missing], to=graph.number), tensor.width, graph.number)
    shown = Block.of(flags).pick(step.indicator_.features_.tolist())
    return Block((*Block.of(result).columns, *shown.columns))


def _missing(graph: Graph, value: Any, tensor: Tensor) -> str:
    if tensor.is_text:
        text = np.array([[NULL if _is_null(value) else str(value)]], object)
        return graph.node("Equal", [tensor.name, graph.constant(text)])
    if isinstance(value, (int, float, np.number)) and not math.isnan(value):
        return graph.node("Equal", [tensor.name, graph.constant(np.array(float(value)))])
    return graph.node("IsNaN", [tensor.name])


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_null(value: Any) -> bool:
    return value is None or _is_nan(value) or str(value) == "<NA>"


def _texts(values: Array) -> Array:
    return np.array([NULL if _is_null(value) else str(value) for value in values.tolist()], object)


def _categories(step: Any, position: int, tensor: Tensor) -> list[Any]:
    categories = np.asarray(step.categories_[position])
    if tensor.is_text:
        return list(_texts(categories))
    if categories.dtype.kind in "OU" and any(isinstance(value, str) for value in categories.tolist()):
        raise Unsupported(f"{type(step).__name__} with text categories on a column of numbers")
    return [math.nan if _is_null(value) else float(value) for value in categories.tolist()]


def _one_hot(graph: Graph, step: Any, block: Block) -> Block:
    together = _one_hot_together(graph, step, block)
    if together is not None:
        return together
    parts = []
    for position in range(len(block.columns)):
        column = graph.matrix(block.pick([position]))
        categories = _categories(step, position, column)
        if column.is_text:
            codes = encode_categories(graph, column, categories, -1.0)
            hits = category_hits(graph, codes, list(range(len(categories))))
        else:
            hits = category_hits(graph, column, categories)
        places = _one_hot_places(step, position, len(categories))
        unknown = _infrequent(step, position)
        width = len(places[0])
        joins_unknown = step.handle_unknown == "infrequent_if_exist" and unknown is not None
        if joins_unknown or not np.array_equal(places, np.eye(len(categories))):
            spread = graph.node("MatMul", [hits, graph.constant(places)])
            if joins_unknown:
                known = graph.node("ReduceMax", [hits, graph.constant(np.array([1], np.int64))], keepdims=1)
                absent = graph.node("Sub", [graph.constant(np.array(1.0)), known])
                target = graph.constant((np.arange(width) == unknown).astype(float).reshape(1, -1))
                spread = graph.node("Add", [spread, graph.node("Mul", [absent, target])])
            hits = spread
        parts.append(Tensor(hits, width, graph.number))
    return Block(tuple((part, i) for part in parts for i in range(part.width)))


def _one_hot_together(graph: Graph, step: Any, block: Block) -> Block | None:
    """Several text columns in four nodes, however many columns there are: for one row, nodes are what costs.

    None where a category does not simply light a column of its own.
    """
    if len(block.columns) < 2 or not all(tensor.is_text for tensor, _ in block.columns):
        return None
    whole = graph.matrix(block)
    categories = [_categories(step, position, whole) for position in range(len(block.columns))]
    for position, names in enumerate(categories):
        places = _one_hot_places(step, position, len(names))
        if _infrequent(step, position) is not None or not np.array_equal(places, np.eye(len(names))):
            return None
    numbers = {
        text: number
        for number, text in enumerate(dict.fromkeys(name for names in categories for name in names))
    }
    lit = [(position, numbers[name]) for position, names in enumerate(categories) for name in names]
    codes = encode_categories(graph, whole, list(numbers), -1.0)
    columns = graph.constant(np.array([position for position, _ in lit], np.int64))
    spread = Tensor(graph.node("Gather", [codes.name, columns], axis=1), len(lit), graph.number)
    equal = graph.node(
        "Equal", [spread.name, graph.constant(np.array([[float(number) for _, number in lit]]))]
    )
    return Block.of(Tensor(graph.node("Cast", [equal], to=graph.number), len(lit), graph.number))


def _one_hot_places(step: Any, position: int, count: int) -> Array:
    """`[categories, columns]`: the column each category lights, after infrequent ones are joined and one dropped."""
    mappings = getattr(step, "_default_to_infrequent_mappings", None)
    mapping = mappings[position] if mappings is not None else None
    code = np.arange(count) if mapping is None else np.asarray(mapping)
    places = np.eye(int(code.max()) + 1)[code]
    dropped = None if step.drop_idx_ is None else step._drop_idx_after_grouping[position]
    return places if dropped is None else np.delete(places, dropped, axis=1)


def _infrequent(step: Any, position: int) -> int | None:
    """The column of the infrequent categories, when there are some."""
    mappings = getattr(step, "_default_to_infrequent_mappings", None)
    if mappings is None or mappings[position] is None:
        return None
    if step.drop_idx_ is not None:
        raise Unsupported("OneHotEncoder that drops a category and joins infrequent ones")
    return int(np.max(mappings[position]))


def _ordinal(graph: Graph, step: Any, block: Block) -> Block:
    unknown = math.nan if step.handle_unknown == "error" else float(step.unknown_value)
    mappings = getattr(step, "_default_to_infrequent_mappings", None)
    if mappings is not None and any(mapping is not None for mapping in mappings):
        raise Unsupported("OrdinalEncoder that joins infrequent categories")
    columns = []
    for position in range(len(block.columns)):
        column = graph.matrix(block.pick([position]))
        categories = _categories(step, position, column)
        codes = np.arange(len(categories), dtype=float)
        # scikit-learn gives the code for missing values to NaN only; None is a category like any other
        null = [i for i, value in enumerate(step.categories_[position].tolist()) if _is_nan(value)]
        codes[null] = float(step.encoded_missing_value)
        columns.append((encode_categories(graph, column, categories, unknown, codes.tolist()), 0))
    return Block(tuple(columns))


TRANSLATED: dict[type, Callable[[Graph, Any, Block], Block]] = {
    StandardScaler: _standard,
    RobustScaler: _robust,
    MinMaxScaler: _min_max,
    MaxAbsScaler: _max_abs,
    FunctionTransformer: _function,
    SimpleImputer: _impute,
    OneHotEncoder: _one_hot,
    OrdinalEncoder: _ordinal,
}
