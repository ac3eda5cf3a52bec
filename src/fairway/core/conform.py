"""Values of any origin into the one canonical form of a field; anything of the wrong type is a problem.

Nulls are NaN in floats, and in nullable integers and booleans, which are therefore float64; None in strings;
NaT in timestamps. Rules (ranges, categories, ...) are not applied here: this is types only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import ContractViolation, Problem

Values = Array | Sequence[Any]

EXACT_IN_FLOAT64 = 2**53
_NAT = np.datetime64("NaT", "us")
_PANDAS_NULLS = frozenset({"NaTType", "NAType"})  # by name, because pandas is not imported here
_COARSE_UNITS = frozenset({"Y", "M", "W", "D", "h", "m", "s", "ms"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MICROSECOND = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000
_LAST_MICROSECOND = int((datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000


def canonical_dtype(field: Field) -> np.dtype[Any]:
    """The numpy dtype a field's values have once conformed."""
    if field.dtype is DType.string:
        return np.dtype(object)
    if field.dtype is DType.timestamp:
        return np.dtype("datetime64[us]")
    if field.nullable and (field.dtype.is_integer or field.dtype is DType.bool):
        return np.dtype(np.float64)
    return np.dtype(field.dtype.value)


def nulls_of(values: Array) -> Array:
    """Boolean `[n]` (or the array's own shape): where canonical values are null."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "M":
        return np.isnat(values)
    if values.dtype.kind == "O":
        return np.array([value is None for value in values.flat], dtype=bool).reshape(values.shape)
    return np.zeros(values.shape, dtype=bool)


def frame_arrays(frame: Any) -> dict[str, Array]:
    """Columns of a pandas or polars DataFrame as canonical arrays by name; neither library is imported."""
    if hasattr(frame, "iter_columns"):  # polars
        frame = frame.to_pandas()
    return {str(name): _series_array(frame[name]) for name in frame.columns}


def to_columns(contract: Contract, arrays: Mapping[str, Values]) -> Columns:
    """Conforms named values to the contract's fields, in contract order.

    Raises ContractViolation naming every missing field, wrong type and null where none may be.
    """
    problems = [Problem("missing", field.name) for field in contract if field.name not in arrays]
    if problems:
        raise ContractViolation("The data does not fit the contract.", tuple(problems))
    conformed: list[Array] = []
    for field in contract:
        values, found = conform(field, arrays[field.name])
        problems += found
        if not field.nullable and not field.shape and not found:
            rows = np.flatnonzero(nulls_of(values))
            problems += [
                Problem("null, and the field is not nullable", field.name, int(row)) for row in rows[:20]
            ]
        conformed.append(values)
    lengths = {len(values) for values in conformed}
    if len(lengths) > 1:
        sizes = ", ".join(f"{f.name} {len(v)}" for f, v in zip(contract, conformed, strict=True))
        problems.append(Problem(f"fields have different numbers of rows: {sizes}"))
    if problems:
        raise ContractViolation("The data does not fit the contract.", tuple(problems))
    return gather(contract, conformed)


def gather(contract: Contract, arrays: Sequence[Array]) -> Columns:
    """Conformed arrays in contract order as `Columns`; packed into one matrix when the contract is one."""
    names = tuple(field.name for field in contract)
    rows = len(arrays[0]) if arrays else 0
    if contract.is_matrix:
        packed = np.empty((rows, len(names)), dtype=matrix_dtype(contract))
        for i, values in enumerate(arrays):
            packed[:, i] = values
        return Columns(names, rows, packed=packed)
    final = [
        values if values.dtype == (wanted := canonical_dtype(field)) else values.astype(wanted)
        for field, values in zip(contract, arrays, strict=True)
    ]
    return Columns(names, rows, arrays=final)


def matrix_dtype(contract: Contract) -> np.dtype[Any]:
    """float32 when every field is (or narrows to) float32, else float64."""
    narrow = all(field.dtype in (DType.float32, DType.float16) for field in contract)
    return np.dtype(np.float32 if narrow else np.float64)


def conform(field: Field, values: Values) -> tuple[Array, list[Problem]]:
    """`values` (an array, or a list of Python values as JSON gives them) as the field's canonical array.

    A column that holds nulls comes back in a form that can hold them even when the field is not nullable.
    Rows of the wrong type are reported and left null.
    """
    if field.shape:
        return _tensor(field, values)
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            wrong = Problem(f"expected one value a row, got shape {list(values.shape)}", field.name)
            return np.zeros(0, dtype=canonical_dtype(field)), [wrong]
        if values.dtype.kind in "biuf" and field.dtype.is_numeric:
            return _numeric_array(field, values)
        if values.dtype.kind == "M" and field.dtype is DType.timestamp:
            return _timestamp_array(field, values)
        if values.dtype.kind in "mM":
            values = values.astype(
                f"{values.dtype.kind}8[us]"
            )  # as datetimes; finer units become plain integers
        values = list(values.tolist())
    if field.dtype.is_float:
        fast = _float_list(field, values)
        if fast is not None:
            return fast, []
    return _each(field, values)


def wrong_type(field: Field, value: Any) -> str:
    """Why `value` is not of the field's type, for a person."""
    wanted = {
        DType.string: "text",
        DType.bool: "true or false",
        DType.timestamp: "an ISO 8601 date and time",
    }.get(field.dtype, "a whole number" if field.dtype.is_integer else "a number")
    return f"expected {wanted}, got {_shown(value)}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


class _Wrong(Exception):
    pass


def _float_list(field: Field, values: Sequence[Any]) -> Array | None:
    """The common case at C speed: a list of JSON numbers and nulls. None when something else is inside."""
    try:
        array = np.array(msgspec.convert(values, list[float | None]), dtype=np.float64)
    except (msgspec.ValidationError, OverflowError, TypeError):
        return None
    if field.dtype is DType.float64:
        return array
    return _narrow(field, array)


def _narrow(field: Field, array: Array) -> Array | None:
    limit = float(np.finfo(np.dtype(field.dtype.value)).max)
    with np.errstate(invalid="ignore"):
        too_large = np.isfinite(array) & (np.abs(array) > limit)
    return None if too_large.any() else array.astype(field.dtype.value)


def _each(field: Field, values: Sequence[Any]) -> tuple[Array, list[Problem]]:
    numeric = _read_float if field.dtype.is_float else _read_integer
    read: Callable[[Field, Any], Any] = _READERS.get(field.dtype, numeric)
    problems: list[Problem] = []
    result: list[Any] = []
    for row, value in enumerate(values):
        try:
            result.append(None if is_null(value) else read(field, value))
        except _Wrong as why:
            problems.append(Problem(str(why), field.name, row))
            result.append(None)
    return _build(field, result), problems


def _build(field: Field, values: list[Any]) -> Array:
    if field.dtype is DType.string:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if field.dtype is DType.timestamp:
        return np.array([_NAT if v is None else v for v in values], dtype="datetime64[us]")
    if field.dtype.is_float:
        return np.array([np.nan if v is None else v for v in values], dtype=field.dtype.value)
    if field.nullable or any(v is None for v in values):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.array(values, dtype=field.dtype.value)


def is_null(value: Any) -> bool:
    """Whether a Python value stands for no value: None, NaN, pandas' own nulls."""
    if value is None or type(value).__name__ in _PANDAS_NULLS:
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def _read_float(field: Field, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise _Wrong(wrong_type(field, value))
    try:
        number = float(value)
    except OverflowError:
        raise _Wrong(f"{wrong_type(field, value)}, which no {field.dtype} can hold") from None
    if math.isfinite(number) and abs(number) > float(np.finfo(field.dtype.value).max):
        raise _Wrong(f"{_shown(value)} is too large for {field.dtype}")
    return number


def _read_integer(field: Field, value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise _Wrong(wrong_type(field, value))
    if isinstance(value, float | np.floating):
        if not float(value).is_integer():
            raise _Wrong(wrong_type(field, value))
        value = int(value)
    limits = np.iinfo(field.dtype.value)
    if not limits.min <= value <= limits.max:
        raise _Wrong(f"{_shown(int(value))} does not fit {field.dtype} ({limits.min} to {limits.max})")
    if field.nullable and abs(int(value)) > EXACT_IN_FLOAT64:
        raise _Wrong(f"{value} is beyond 2**53, the most a nullable integer holds exactly")
    return int(value)


def _read_bool(field: Field, value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.number) and value in (0, 1):
        return bool(value)
    raise _Wrong(wrong_type(field, value))


def _read_string(field: Field, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise _Wrong("expected text, got bytes that are not UTF-8") from None
    raise _Wrong(wrong_type(field, value))


def _read_timestamp(field: Field, value: Any) -> np.datetime64:
    if isinstance(value, bytes):
        value = _read_string(field, value)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise _Wrong(wrong_type(field, value)) from None
    if isinstance(value, np.datetime64):
        moments, problems = _timestamp_array(field, np.array([value]))
        if problems:
            raise _Wrong(problems[0].reason)
        return cast("np.datetime64", moments[0])
    if not isinstance(value, datetime):
        raise _Wrong(f"{wrong_type(field, value)}; send text such as 2026-01-31T12:00:00Z")
    try:
        return np.datetime64(naive_utc(value), "us")
    except (OverflowError, ValueError):
        raise _Wrong(f"{value} is out of range once moved to UTC") from None


def naive_utc(moment: datetime) -> datetime:
    """`moment` in UTC without its zone; one without a zone is taken as UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


_READERS: dict[DType, Callable[[Field, Any], Any]] = {
    DType.bool: _read_bool,
    DType.string: _read_string,
    DType.timestamp: _read_timestamp,
}


def _numeric_array(field: Field, values: Array) -> tuple[Array, list[Problem]]:
    """A numeric array at C speed; anything odd goes through the row by row path, which names it."""
    kind = values.dtype.kind
    if field.dtype.is_float and kind in "iuf":
        if values.dtype == field.dtype.value:
            return values, []
        narrowed = _narrow(field, values.astype(np.float64))
        return (narrowed, []) if narrowed is not None else _each(field, values.tolist())
    if field.dtype is DType.bool and kind == "b":
        return (values.astype(np.float64) if field.nullable else values), []
    if field.dtype.is_integer and kind in "iu":
        limits = np.iinfo(field.dtype.value)
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        exact = not field.nullable or max(-low, high) <= EXACT_IN_FLOAT64
        if limits.min <= low and high <= limits.max and exact:
            return values.astype(np.float64 if field.nullable else field.dtype.value), []
    if field.dtype.is_integer and kind == "f":
        values64 = values.astype(np.float64)
        known = values64[~np.isnan(values64)]
        limits = np.iinfo(field.dtype.value)
        safe = max(limits.min, -EXACT_IN_FLOAT64), min(limits.max, EXACT_IN_FLOAT64)
        if bool(np.all((known >= safe[0]) & (known <= safe[1]) & (np.floor(known) == known))):
            holds_null = field.nullable or len(known) < len(values64)
            return (values64 if holds_null else values64.astype(field.dtype.value)), []
    return _each(field, values.tolist())


def _timestamp_array(field: Field, values: Array) -> tuple[Array, list[Problem]]:
    outside = np.zeros(values.shape, dtype=bool)
    if np.datetime_data(values.dtype)[0] in _COARSE_UNITS:
        # Before the cast: numpy below 2.5 wraps around silently there, and 2.5 raises.
        first, last = (
            np.datetime64(limit, "us").astype(values.dtype)
            for limit in (_FIRST_MICROSECOND, _LAST_MICROSECOND)
        )
        outside = ~np.isnat(values) & ((values < first) | (values > last))
        values = np.where(outside, _NAT.astype(values.dtype), values)
    moments = values.astype("datetime64[us]")
    numbers = moments.astype(np.int64)
    wrong = outside | ~np.isnat(moments) & ((numbers < _FIRST_MICROSECOND) | (numbers > _LAST_MICROSECOND))
    problems = [
        Problem("is outside the years 1 to 9999", field.name, int(row)) for row in np.flatnonzero(wrong)
    ]
    return moments, problems


def _tensor(field: Field, values: Values) -> tuple[Array, list[Problem]]:
    empty = np.zeros((0, *field.shape), dtype=canonical_dtype(field))
    try:
        if isinstance(values, np.ndarray):
            array = values
        else:  # left to itself numpy would make text of the numbers that stand beside text
            array = np.array(values, dtype=object if field.dtype is DType.string else None)
    except ValueError:
        return empty, _ragged_rows(field, values)
    if array.ndim == 0 or (array.shape[1:] != field.shape and len(array)):
        given = f"[n, {', '.join(map(str, array.shape[1:]))}]" if array.ndim else "a single value"
        wanted = ", ".join(map(str, field.shape))
        return empty, [Problem(f"expected shape [n, {wanted}], got {given}", field.name)]
    if array.size == 0:
        return np.zeros((len(array), *field.shape), dtype=canonical_dtype(field)), []
    flat = Field(name=field.name, dtype=field.dtype, nullable=field.dtype.is_float)
    conformed, problems = conform(flat, array.reshape(-1))
    width = math.prod(field.shape)
    placed = [Problem(p.reason, p.field, None if p.row is None else p.row // width) for p in problems]
    if problems:
        return empty, placed
    return conformed.reshape(array.shape), []


def _ragged_rows(field: Field, values: Values) -> list[Problem]:
    problems = []
    for row, value in enumerate(values):
        try:
            shape = np.array(value).shape
        except ValueError:
            problems.append(Problem("is ragged", field.name, row))
            continue
        if shape != field.shape:
            problems.append(
                Problem(f"expected shape {list(field.shape)}, got {list(shape)}", field.name, row)
            )
    return problems or [Problem("is ragged", field.name)]


def _series_array(series: Any) -> Array:
    """One pandas Series as a canonical array."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        values: Array = series.to_numpy()
        return values
    kind = getattr(dtype, "kind", "O")
    if kind == "M":
        if getattr(dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return np.asarray(series.to_numpy().astype("datetime64[us]"))
    missing = series.isna().to_numpy()
    if kind in "biuf" and hasattr(dtype, "na_value"):  # pandas' nullable numbers
        if missing.any():
            return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
        return np.asarray(series.to_numpy(dtype=dtype.numpy_dtype if hasattr(dtype, "numpy_dtype") else None))
    values = np.array(series.astype(object).to_numpy(), dtype=object, copy=True)
    values[missing] = None
    known = values[~missing]
    if len(known) and not missing.any() and all(isinstance(v, bool | np.bool_) for v in known):
        return values.astype(bool)
    return values
