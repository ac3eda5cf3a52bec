"""What kind of column one is, told from its Arrow type and, for text, from a sample of its values."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from fairway.monitoring.drift.values import Kind

_DISTINCT = 0.5
_WORDS = 3.0
_ENOUGH = 100


def kind_of(type_: pa.DataType) -> Kind | None:
    """The kind by type; None for text, of which the values decide, and for columns of nothing but nulls."""
    types = pa.types
    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return kind_of(type_.storage_type)
    if (
        types.is_null(type_)
        or types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_string_view(type_)
    ):
        return None
    if types.is_boolean(type_):
        return Kind.boolean
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return Kind.number
    if types.is_temporal(type_):
        return Kind.time
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return Kind.tensor if kind_of(type_.value_type) in (Kind.number, Kind.tensor) else Kind.other
    return Kind.other


def kind_of_texts(values: Sequence[str | None]) -> Kind:
    """Categories come again; texts are many words, nearly all different; identifiers are different, and short."""
    known = [value for value in values if value is not None]
    if not known:
        return Kind.category
    distinct = len(set(known)) / len(known)
    words = sum(len(value.split()) for value in known) / len(known)
    if words >= _WORDS and (distinct > _DISTINCT or words > 4 * _WORDS):
        return Kind.text
    if distinct > 0.9 and len(known) >= _ENOUGH:
        return Kind.identifier
    return Kind.category
