"""Models that already are ONNX: their signature, and how to feed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from fairway.core.bundle import EngineSpec, Feed
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import CorruptBundle, UnknownFormat

_TYPES: dict[int, DType] = {
    onnx.TensorProto.BOOL: DType.bool,
    onnx.TensorProto.INT8: DType.int8,
    onnx.TensorProto.INT16: DType.int16,
    onnx.TensorProto.INT32: DType.int32,
    onnx.TensorProto.INT64: DType.int64,
    onnx.TensorProto.UINT8: DType.uint8,
    onnx.TensorProto.UINT16: DType.uint16,
    onnx.TensorProto.UINT32: DType.uint32,
    onnx.TensorProto.UINT64: DType.uint64,
    onnx.TensorProto.FLOAT16: DType.float16,
    onnx.TensorProto.FLOAT: DType.float32,
    onnx.TensorProto.DOUBLE: DType.float64,
    onnx.TensorProto.STRING: DType.string,
}


def onnx_signature(data: bytes) -> tuple[tuple[Field, ...], tuple[Output, ...]]:
    """The graph's inputs as fields and its outputs, under their own names; the first axis is the rows.

    `[n]` and `[n, 1]` are scalars, `[n, k, ...]` a tensor of shape `(k, ...)`. Raises `CorruptBundle` when it is
    not ONNX, `UnknownFormat` when a size other than the rows is open, the rows are fixed, or an input is no tensor.
    """
    graph = _parse(data).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(
        Field(name=value.name, dtype=_dtype(value), shape=_row_shape(value, strict=True))
        for value in graph.input
        if value.name not in weights
    )
    outputs = tuple(
        Output(name=value.name, dtype=_dtype(value), shape=_row_shape(value, strict=False))
        for value in graph.output
    )
    return inputs, outputs


def onnx_spec(data: bytes, contract: Contract, *, file: str) -> EngineSpec:
    """How to feed the graph from the contract's fields.

    Each input takes the field of its name; a single `[n, k]` input takes k scalar fields as one matrix.
    """
    graph = _parse(data).graph
    weights = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in weights]
    fields = {field.name: field for field in contract}
    feeds = []
    for value in values:
        dtype = _dtype(value)
        numpy_name = "object" if dtype is DType.string else dtype.value
        rank = len(value.type.tensor_type.shape.dim)
        if value.name in fields:
            feeds.append(Feed(name=value.name, fields=(value.name,), dtype=numpy_name, column=rank != 1))
            continue
        width = int(np.prod(_row_shape(value, strict=True), dtype=int))
        scalars = tuple(field.name for field in contract if not field.shape)
        if len(values) == 1 and rank == 2 and width == len(scalars) == len(fields):
            feeds.append(Feed(name=value.name, fields=scalars, dtype=numpy_name))
            continue
        raise UnknownFormat(
            f"the graph's input {value.name!r} ({dtype}, {width} values a row) matches no field "
            f"({', '.join(fields)}).",
            hint="Give sample data with a column or array of that name.",
        )
    return EngineSpec(kind="onnx", file=file, feeds=tuple(feeds))


def external_files(data: bytes) -> tuple[str, ...]:
    """Names of the files, relative to the graph's folder, that hold its weights; sorted."""
    graph = _parse(data).graph
    names = {ExternalDataInfo(tensor).location for tensor in graph.initializer if uses_external_data(tensor)}
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CorruptBundle(f"the graph keeps weights in {name!r}, outside its own folder.")
    return tuple(sorted(names))


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:
        raise CorruptBundle(f"not an ONNX model: {error}") from error


def _dtype(value: onnx.ValueInfoProto) -> DType:
    kind = value.type.tensor_type.elem_type
    if not value.type.HasField("tensor_type") or kind not in _TYPES:
        raise UnknownFormat(
            f"the graph's {value.name!r} is not a tensor of numbers or strings.",
            hint="Export classifiers without ZipMap (zipmap=False).",
        )
    return _TYPES[kind]


def _row_shape(value: onnx.ValueInfoProto, *, strict: bool) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    if not dims:
        if strict:
            raise UnknownFormat(f"the graph's input {value.name!r} has no row axis.")
        return ()
    if strict and dims[0].dim_value > 0:
        raise UnknownFormat(
            f"the graph's input {value.name!r} takes exactly {dims[0].dim_value} rows.",
            hint="Export it with an open first axis (dynamic batch size).",
        )
    sizes = tuple(dim.dim_value for dim in dims[1:])
    if strict and 0 in sizes:
        raise UnknownFormat(
            f"the graph's input {value.name!r} leaves a size beside the rows open.",
            hint="Export it with fixed sizes but for the first axis.",
        )
    return () if strict and sizes == (1,) else sizes
