"""Request values against the contract: typed columns, or every bad field named.

One meaning, and short cuts to it. A numeric matrix is compared with all its limits at once; a field of a few
values is looked at one by one. What a short cut finds unclean, and everything else, takes the full path: conform the
field's type, apply its rules, collect every problem.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Columns
from fairway.core.conform import (
    EXACT_IN_FLOAT64,
    Values,
    canonical_dtype,
    conform,
    gather,
    is_null,
    naive_utc,
    nulls_of,
)
from fairway.core.contract import Action, Contract, DType, Field
from fairway.core.errors import ContractViolation, MalformedInput, PayloadTooLarge, Problem
from fairway.core.request import Inputs
from fairway.inference.matrix_limits import Broken, MatrixLimits, clean_range, nulls_pass

FEW_ROWS = 4
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_NAT = np.iinfo(np.int64).min


class Split(msgspec.Struct, frozen=True):
    """Rows of one table parted: `columns` are those that fit the contract (None when none does), `rows` `[n]` their
    places in the table, ascending; `problems` names what is wrong with each of the others, `row` always set."""

    columns: Columns | None
    rows: Array
    problems: tuple[Problem, ...]


class Validator:
    """A contract, compiled. Safe to use from several threads."""

    def __init__(self, contract: Contract, *, max_rows: int = 100_000, max_problems: int = 100) -> None:
        self.contract = contract
        self._max_rows = max_rows
        self._max_problems = max_problems
        self._names = tuple(field.name for field in contract)
        self._known = frozenset(self._names)
        self._limits = MatrixLimits(contract) if contract.is_matrix else None
        self._fields = [
            (field, canonical_dtype(field), _clean_value(field), _builder(field)) for field in contract
        ]
        self._all_tensors = bool(self._names) and all(
            field.shape and field.dtype.is_float for field in contract
        )

    def check(self, inputs: Inputs, broken: Broken) -> Columns:
        """Typed columns in contract order. Raises ContractViolation, MalformedInput or PayloadTooLarge."""
        packed = self._as_matrix(inputs)
        if packed is not None:
            return self._check_matrix(packed, broken)
        if self._all_tensors:
            tensors = self._clean_tensors([inputs])
            if tensors is not None:
                return tensors[0]
        packed = self._stacked(inputs)
        if packed is not None and self._limits is not None and self._limits.judge(packed, broken):
            return Columns(self._names, len(packed), packed=packed)
        return self._check_fields(inputs, broken)

    def split(self, inputs: Inputs, broken: Broken) -> Split:
        """As `check`, but rows that do not fit leave the others alone: a row is among `rows` if and only if `check`
        takes it alone, with the same values. Raises what no row can help: ContractViolation for fields that are
        missing, unknown or of another length, MalformedInput for no rows, PayloadTooLarge."""
        total = max((len(values) for values in inputs.values()), default=0)
        left = np.arange(total)
        problems: list[Problem] = []
        while len(left) or not total:
            noted: list[tuple[str, str, int]] = []
            rest = inputs if len(left) == total else {name: _at(v, left) for name, v in inputs.items()}
            try:
                columns = self.check(rest, lambda *note, noted=noted: noted.append(note))
            except ContractViolation as error:
                if self._has_other_fields(inputs):
                    raise
                # A column with a value of the wrong type was looked at no further, so the rest is looked at again.
                wrong, found = _placed(error.problems, left)
                problems += found
                left = np.delete(left, wrong)
                continue
            for field, rule, rows in noted:
                broken(field, rule, rows)
            return Split(columns, left, tuple(problems))
        return Split(None, left, tuple(problems))

    def _has_other_fields(self, inputs: Inputs) -> bool:
        """Whether the columns themselves are not those of the contract, whatever their values."""
        names = set(inputs)
        if len(names) == 1 and not names & self._known:  # one matrix for all fields
            (values,) = inputs.values()
            return not (isinstance(values, np.ndarray) and values.shape[1:] == (len(self._names),))
        sizes = {len(inputs[name]) for name in self._names if name in inputs}
        extra = self.contract.extra_fields == "reject" and bool(names - self._known)
        return extra or len(sizes) > 1 or not names >= self._known

    def check_together(self, requests: Sequence[Inputs], broken: Broken) -> tuple[Columns, list[int]] | None:
        """Several requests judged in one go: their rows one after the other, and how many each has. None when they
        are not all clean matrices, or clean tensors: then each has to be checked for itself."""
        if self._all_tensors:
            return self._clean_tensors(requests)
        if self._limits is None:
            return None
        matrices: list[Array] = []
        for inputs in requests:
            try:
                matrix = self._as_matrix(inputs)
                if matrix is None:
                    matrix = self._stacked(inputs)
            except ContractViolation:
                return None
            if matrix is None or matrix.dtype.kind == "O" or not 0 < len(matrix) <= self._max_rows:
                return None
            if matrices and matrix.dtype != matrices[0].dtype:
                return None  # joining them would round numbers that alone would not have been rounded
            matrices.append(matrix)
        packed = self._limits.pack(np.concatenate(matrices))
        if not self._limits.judge(packed, broken):
            return None
        return Columns(self._names, len(packed), packed=packed), [len(matrix) for matrix in matrices]

    def _clean_tensors(self, requests: Sequence[Inputs]) -> tuple[Columns, list[int]] | None:
        """The rows of requests whose tensors are arrays of the right type and shape without NaN or infinity."""
        counts: list[int] = []
        parts: list[list[Array]] = [[] for _ in self._fields]
        for inputs in requests:
            if len(inputs) != len(self._fields):
                return None
            rows = 0
            for (field, dtype, _, _), found in zip(self._fields, parts, strict=True):
                values = inputs.get(field.name)
                if not isinstance(values, np.ndarray) or values.dtype != dtype:
                    return None
                if values.shape[1:] != field.shape or (found is not parts[0] and len(values) != rows):
                    return None
                rows = len(values)
                found.append(values)
            if not 0 < rows <= self._max_rows:
                return None
            counts.append(rows)
        arrays = [found[0] if len(found) == 1 else np.concatenate(found) for found in parts]
        if not all(np.isfinite(values).all() for values in arrays):
            return None
        return Columns(self._names, sum(counts), arrays=arrays), counts

    def _as_matrix(self, inputs: Inputs) -> Array | None:
        """The one `[n, fields]` array that stands for the whole numeric table, if that is what was sent."""
        if self._limits is None or len(inputs) != 1:
            return None
        (name,) = inputs
        values = inputs[name]
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            return None
        if name in self._known and len(self._names) == 1:
            return None
        if values.shape[1] != len(self._names):
            if name in self._known:
                return None
            raise ContractViolation(
                f"A matrix for this model has {len(self._names)} columns.",
                (Problem(f"expected shape [n, {len(self._names)}], got {list(values.shape)}", name),),
            )
        return values if values.dtype.kind in "iufO" else None

    def _stacked(self, inputs: Inputs) -> Array | None:
        """Arrays of numbers, one a field, as the matrix they make together; None where a column has to be looked at
        for itself, or would be rounded twice on its way."""
        limits = self._limits
        if limits is None or (len(inputs) != len(self._names) and self.contract.extra_fields == "reject"):
            return None
        columns: list[Array] = []
        rows = -1
        for name in self._names:
            values = inputs.get(name)
            if not isinstance(values, np.ndarray) or values.dtype.kind not in "iufb":
                return None
            if values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            if values.ndim != 1 or (rows != len(values) and rows >= 0):
                return None
            rows = len(values)
            columns.append(values)
        if not 0 < rows <= self._max_rows or not limits.takes([values.dtype for values in columns]):
            return None
        packed = np.empty((rows, len(columns)), dtype=limits.dtype)
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is not clean
            for i, values in enumerate(columns):
                packed[:, i] = values
        return packed

    def _check_matrix(self, values: Array, broken: Broken) -> Columns:
        assert self._limits is not None
        self._limit_rows(len(values))
        if values.dtype.kind == "O":  # nulls among the numbers
            return self._check_fields(
                {name: values[:, i].tolist() for i, name in enumerate(self._names)}, broken
            )
        packed = self._limits.pack(values)
        if self._limits.judge(packed, broken):
            return Columns(self._names, len(packed), packed=packed)
        return self._check_fields({name: values[:, i] for i, name in enumerate(self._names)}, broken)

    def _check_fields(self, inputs: Inputs, broken: Broken) -> Columns:
        rows = self._rows(inputs)
        few = rows <= FEW_ROWS
        problems: list[Problem] = []
        arrays: list[Array] = []
        for field, dtype, is_clean, build in self._fields:
            given = inputs.get(field.name)
            if few and type(given) is list and len(given) == rows and all(map(is_clean, given)):
                arrays.append(build(given))
            elif given is None:
                problems.append(Problem("missing", field.name))
            elif len(given) != rows:
                problems.append(Problem(f"has {len(given)} rows where others have {rows}", field.name))
            else:
                given, filled = _filled(field, given)
                values, found = conform(field, given)
                if self._limits is not None and not found:
                    found = _beyond_matrix(field, values)
                problems += found
                if not found:
                    values = _apply_rules(field, values, filled, problems, broken)
                arrays.append(values if problems else values.astype(dtype, copy=False))
        if self.contract.extra_fields == "reject":
            problems += [
                Problem("is not a field of this model", name) for name in inputs if name not in self._known
            ]
        if problems:
            raise violation(problems, self._max_problems)
        if self._limits is not None:
            return gather(self.contract, arrays)
        return Columns(self._names, rows, arrays=arrays)

    def _rows(self, inputs: Inputs) -> int:
        """Rows of most of the fields, so that the odd ones out are the ones named."""
        sizes = [len(inputs[name]) for name in self._names if name in inputs]
        if not sizes:
            return 0
        rows = sizes[0] if sizes.count(sizes[0]) == len(sizes) else Counter(sizes).most_common(1)[0][0]
        self._limit_rows(rows)
        return rows

    def _limit_rows(self, rows: int) -> None:
        if rows > self._max_rows:
            raise PayloadTooLarge(
                f"{rows} rows in one request; the limit is {self._max_rows} (limits.rows).",
                hint="Send them in several requests.",
            )
        if rows == 0:
            raise MalformedInput("The request holds no rows.", (Problem("0 rows"),))


def _at(values: Values, rows: Array) -> Values:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows.tolist()]


def _placed(problems: Sequence[Problem], rows: Array) -> tuple[list[int], list[Problem]]:
    """Which of `rows` are wrong, and the problems at their places in the whole table. A tensor that has another shape
    in every row is one problem without a row."""
    whole = [problem for problem in problems if problem.row is None]
    if whole:
        everywhere = [msgspec.structs.replace(problem, row=row) for row in rows.tolist() for problem in whole]
        return list(range(len(rows))), everywhere
    wrong = sorted({problem.row for problem in problems if problem.row is not None})
    return wrong, [msgspec.structs.replace(p, row=int(rows[p.row or 0])) for p in problems]


def _beyond_matrix(field: Field, values: Array) -> list[Problem]:
    """Integers that a float64 matrix would change. (A nullable field's have been refused already.)"""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not len(values):
        return []
    if values.min() >= -EXACT_IN_FLOAT64 and values.max() <= EXACT_IN_FLOAT64:
        return []
    beyond = (values > EXACT_IN_FLOAT64) | (values < -EXACT_IN_FLOAT64)
    return list(
        _each_row(field, beyond, lambda row: f"{values[row]} is beyond 2**53, the most this model takes")
    )


def violation(problems: Sequence[Problem], limit: int) -> ContractViolation:
    """One error that names the problems, up to `limit` of them."""
    fields = Counter(problem.field for problem in problems if problem.field is not None)
    named = ", ".join(list(fields)[:5]) + (", ..." if len(fields) > 5 else "")
    more = f" The first {limit} are listed." if len(problems) > limit else ""
    what = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    where = f" in {named}" if fields else ""
    return ContractViolation(
        f"The input does not fit the contract: {what}{where}.{more}", tuple(problems[:limit])
    )


def _clean_value(field: Field) -> Callable[[Any], bool]:
    """A test that one JSON value needs nothing done to it: right type, no rule broken."""
    null_passes = nulls_pass(field)
    known = frozenset(category.value for category in field.categories)
    if field.shape:
        return lambda value: False
    if field.dtype is DType.string:
        if known:
            return lambda value: (type(value) is str and value in known) or (value is None and null_passes)
        return lambda value: type(value) is str or (value is None and null_passes)
    if field.dtype is DType.bool:
        return lambda value: (
            (type(value) is bool and (not known or value in known)) or (value is None and null_passes)
        )
    if field.dtype is DType.timestamp:
        return _clean_timestamp(field, null_passes)
    low, high = clean_range(field)
    kinds: tuple[type, ...] = (int,) if field.dtype.is_integer else (float, int)

    def number(value: Any) -> bool:
        if value is None:
            return null_passes
        return type(value) in kinds and low <= value <= high and (not known or value in known)

    return number


def _clean_timestamp(field: Field, null_passes: bool) -> Callable[[Any], bool]:
    limits = [(field.minimum, field.maximum), field.fence or (None, None)]
    low = max((v for v, _ in limits if v is not None), default=-math.inf)
    high = min((v for _, v in limits if v is not None), default=math.inf)

    def moment(value: Any) -> bool:
        if value is None:
            return null_passes
        if type(value) is not str and not isinstance(value, datetime):
            return False
        try:
            return low <= _microseconds(value) <= high
        except (ValueError, OverflowError):
            return False

    return moment


def _microseconds(value: str | datetime) -> int:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (naive_utc(moment) - _EPOCH) // _MICROSECOND


def _builder(field: Field) -> Callable[[list[Any]], Array]:
    """Clean values of one field as its canonical array."""
    if field.dtype is DType.string:

        def objects(values: list[Any]) -> Array:
            array = np.empty(len(values), dtype=object)
            array[:] = values
            return array

        return objects
    if field.dtype is DType.timestamp:
        return lambda values: np.array(
            [_NAT if value is None else _microseconds(value) for value in values], dtype=np.int64
        ).view("datetime64[us]")
    if field.dtype.is_float or field.nullable:
        dtype = np.dtype(field.dtype.value if field.dtype.is_float else np.float64)
        return lambda values: np.array(values, dtype=dtype)  # numpy reads None as NaN
    dtype = np.dtype(field.dtype.value)
    return lambda values: np.array(values, dtype=dtype)


def _filled(field: Field, given: Values) -> tuple[Values, Array | None]:
    """Whole numbers with their nulls filled in, and where: an array that held the nulls would be floating point, and
    round its neighbours beyond 2**53."""
    fills = field.dtype.is_integer and not field.nullable and field.rules.on_null is Action.impute
    if not fills or isinstance(given, np.ndarray):
        return given, None
    nulls = np.array([is_null(value) for value in given], dtype=bool)
    fill = field.impute_with
    return [fill if null else value for value, null in zip(given, nulls.tolist(), strict=True)], nulls


def _apply_rules(
    field: Field, values: Array, filled: Array | None, problems: list[Problem], broken: Broken
) -> Array:
    """Values with the field's rules applied; rejected rows go to `problems`, everything else to `broken`. What a rule
    filled in (or was `filled` in for nulls) is not judged again: a mean may well lie beyond the fence."""
    passed = nulls_of(values)
    if filled is not None and filled.any():
        broken(field.name, "on_null", int(filled.sum()))
        passed = passed | filled
    elif passed.any() and not (field.shape and field.nullable):
        values = _null_rule(field, values, passed, problems, broken)

    def rule(name: str, hit: Array) -> None:
        nonlocal values, passed
        hit = hit & ~passed
        values = _rule(field, name, values, hit, problems, broken)
        if getattr(field.rules, name) is Action.impute:
            passed = passed | hit

    if values.dtype.kind == "f":
        rule("on_infinite", np.isinf(values))
    if values.dtype.kind in "iufM" and not field.shape:
        rule("on_range", _outside(values, field.minimum, field.maximum))
        if field.fence is not None:
            rule("on_outlier", _outside(values, *field.fence))
    if field.categories:
        known = {category.value for category in field.categories}
        unseen = np.fromiter((value not in known for value in values.tolist()), dtype=bool, count=len(values))
        rule("on_category", unseen)
    return values


def _outside(values: Array, low: float | None, high: float | None) -> Array:
    numbers = values.astype(np.int64) if values.dtype.kind == "M" else values
    below = numbers < low if low is not None else np.zeros(numbers.shape, dtype=bool)
    return below | (numbers > high) if high is not None else below


def _null_rule(field: Field, values: Array, nulls: Array, problems: list[Problem], broken: Broken) -> Array:
    action = field.rules.on_null
    if action is Action.reject:
        problems += _each_row(field, nulls, lambda row: "is null, and null is not allowed")
    elif action is Action.impute:
        broken(field.name, "on_null", int(nulls.sum()))
        return _imputed(field, values, nulls)
    elif not field.missing_rate:
        broken(field.name, "on_null", int(nulls.sum()))
    return values


def _rule(
    field: Field, rule: str, values: Array, hit: Array, problems: list[Problem], broken: Broken
) -> Array:
    if not hit.any():
        return values
    action: Action = getattr(field.rules, rule)
    if action is Action.reject:
        problems += _each_row(field, hit, lambda row: _why(field, rule, values[row]))
        return values
    broken(field.name, rule, int(hit.sum()))
    if action is Action.impute:
        return _imputed(field, values, hit)
    if action is Action.clip:
        return _clipped(field, rule, values, hit)
    return values


def _each_row(field: Field, hit: Array, why: Callable[[int], str]) -> Iterable[Problem]:
    rows = np.flatnonzero(hit.reshape(len(hit), -1).any(axis=1))
    return [Problem(why(int(row)), field.name, int(row)) for row in rows]


def _why(field: Field, rule: str, value: Any) -> str:
    shown = value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value
    if rule == "on_infinite":
        return "is infinite"
    if rule == "on_category":
        names = ", ".join(repr(category.value) for category in field.categories[:8])
        return f"{shown!r} is not one of {names}{', ...' if len(field.categories) > 8 else ''}"
    low, high = (field.minimum, field.maximum) if rule == "on_range" else field.fence or (None, None)
    what = "the allowed range" if rule == "on_range" else "the outlier fence"
    if field.dtype is DType.timestamp:
        low, high = (None if v is None else np.datetime64(int(v), "us") for v in (low, high))  # type: ignore[assignment]
    return f"{shown} is outside {what} {low} to {high}"


def _imputed(field: Field, values: Array, hit: Array) -> Array:
    values = values.copy()
    fill: Any = field.impute_with
    if field.dtype is DType.timestamp:
        fill = np.datetime64(_microseconds(fill) if isinstance(fill, str) else int(fill), "us")
    values[hit] = fill
    return values


def _clipped(field: Field, rule: str, values: Array, hit: Array) -> Array:
    """The values hit moved to the nearest limit; the others are not touched, not even by rounding."""
    low, high = field.fence if rule == "on_outlier" and field.fence else (field.minimum, field.maximum)
    values = values.copy()
    numbers = values.view(np.int64) if values.dtype.kind == "M" else values
    whole = not field.dtype.is_float
    below = hit & (numbers < low) if low is not None else np.zeros_like(hit)
    above = hit & (numbers > high) if high is not None else np.zeros_like(hit)
    if low is not None and below.any():
        numbers[below] = math.ceil(low) if whole else low
    if high is not None and above.any():
        numbers[above] = math.floor(high) if whole else high
    return values
