"""The limits of a numeric contract as vectors, so that a matrix is judged in a handful of operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import le
from typing import Any

import numpy as np

from fairway.core.columns import Array
from fairway.core.conform import EXACT_IN_FLOAT64, matrix_dtype
from fairway.core.contract import Action, Contract, DType, Field

Broken = Callable[[str, str, int], None]
"""Told (field, rule, rows) about values that broke a rule and were let through, clipped or imputed."""


_RULES = ("on_range", "on_outlier")
_TILED = 8192
"""Most values for which limits are laid out."""
_FEW_ODD = 48
"""Up to here, looking at the values outside their clean range one by one beats a dozen numpy calls."""


class MatrixLimits:
    """The fields' limits as vectors, so that a matrix is judged in a handful of numpy operations."""

    def __init__(self, contract: Contract) -> None:
        self.dtype = matrix_dtype(contract)
        self._names = [field.name for field in contract]
        clean = [clean_range(field) for field in contract]
        self._low = self._vector([low for low, _ in clean])
        self._high = self._vector([high for _, high in clean])
        self._lows, self._highs = self._low.tolist(), self._high.tolist()
        self._tiles = self._low.reshape(1, -1), self._high.reshape(1, -1)
        passing = [_passing_range(field) for field in contract]
        ranges = [_bounds(field.minimum, field.maximum) for field in contract]
        fences = [_bounds(*(field.fence or (None, None))) for field in contract]
        sides = [
            [self._vector(side) for side in zip(*limits, strict=True)] for limits in (passing, ranges, fences)
        ]
        self._limits = np.stack([np.stack(side) for side in zip(*sides, strict=True)])
        """[low and high, what passes and each of _RULES, fields]"""
        self._each = [
            [tuple(self._limits[:, kind, i].tolist()) for kind in range(1 + len(_RULES))]
            for i in range(len(ranges))
        ]
        self._each_flat = [tuple(limit for pair in pairs for limit in pair) for pairs in self._each]
        self._narrow = [
            (i, np.dtype(field.dtype.value))
            for i, field in enumerate(contract)
            if field.dtype.is_float and np.dtype(field.dtype.value).itemsize < self.dtype.itemsize
        ]
        self._bools = [field.dtype is DType.bool for field in contract]
        self._nulls_pass = [nulls_pass(field) for field in contract]
        self._nulls = np.array(self._nulls_pass)
        self._whole_columns = [i for i, field in enumerate(contract) if not field.dtype.is_float]
        self._categories = [
            (i, frozenset(float(c.value) for c in field.categories))
            for i, field in enumerate(contract)
            if field.categories
        ]

    def _vector(self, limits: Sequence[float]) -> Array:
        with np.errstate(over="ignore"):
            return np.array(limits, dtype=np.float64).astype(self.dtype)

    def takes(self, dtypes: Sequence[np.dtype[Any]]) -> bool:
        """Whether columns of these types can be put side by side and then be judged: a boolean is not a number, and
        a field of fewer bits than the matrix must not be rounded to the matrix first."""
        if any(dtype.kind == "b" and not self._bools[i] for i, dtype in enumerate(dtypes)):
            return False
        return all(dtypes[i] == dtype for i, dtype in self._narrow)

    def pack(self, values: Array) -> Array:
        """The matrix in the contract's types, each field rounded to its own."""
        if not self._narrow and values.dtype == self.dtype:
            return values
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is not clean
            packed = values.astype(self.dtype)
            for i, dtype in self._narrow:
                packed[:, i] = packed[:, i].astype(dtype)
            return packed

    def judge(self, packed: Array, broken: Broken) -> bool:
        """True when the matrix can be used as it is: no rule applies to any value, or those that do only warn,
        and then the warnings are counted. False leaves everything to the full path."""
        if len(packed) == 1:
            return self._judge_row(packed.tolist()[0], broken)
        inside = self._inside(packed)
        if b"\x00" not in inside.tobytes():  # a fifth of the time of inside.all() on a small matrix
            return self._well_formed(packed)
        (odd,) = (~inside).reshape(-1).nonzero()
        columns = odd % len(self._names)
        values = packed.reshape(-1).take(odd)
        if len(odd) <= _FEW_ODD:
            return self._judge_few(columns.tolist(), values.tolist(), packed, broken)
        lows, highs = self._limits.take(columns, axis=2)  # each [3, values]: what passes, then each rule
        outside = (values < lows) | (values > highs)
        if b"\x01" in outside[0].tobytes():
            return False
        nulls = np.isnan(values)
        if b"\x01" in nulls.tobytes() and not self._nulls.take(columns[nulls]).all():
            return False
        if not self._well_formed(packed):
            return False
        for rule, hits in zip(_RULES, outside[1:], strict=True):
            for column, count in enumerate(np.bincount(columns[hits]).tolist()):
                if count:
                    broken(self._names[column], rule, count)
        return True

    def _judge_few(
        self, columns: Sequence[int], values: Sequence[float], packed: Array, broken: Broken
    ) -> bool:
        """The few values outside their clean range one by one."""
        ranges: dict[int, int] = {}
        fences: dict[int, int] = {}
        each, nulls_pass = self._each_flat, self._nulls_pass
        for column, value in zip(columns, values, strict=True):
            low, high, range_low, range_high, fence_low, fence_high = each[column]
            if not low <= value <= high:
                if value != value and nulls_pass[column]:  # noqa: PLR0124 - NaN
                    continue
                return False
            if not range_low <= value <= range_high:
                ranges[column] = ranges.get(column, 0) + 1
            if not fence_low <= value <= fence_high:
                fences[column] = fences.get(column, 0) + 1
        if not self._well_formed(packed):
            return False
        for rule, counts in zip(_RULES, (ranges, fences), strict=True):
            for column, count in counts.items():
                broken(self._names[column], rule, count)
        return True

    def _inside(self, packed: Array) -> Array:
        """Which values are in their clean range: booleans of the matrix' shape.

        numpy compares long runs of values three times as fast as one row after the other with limits that it has to
        repeat, so the limits are laid out like the matrix, up to so many values."""
        rows, width = packed.shape
        run = max(_TILED // width, 1)
        if rows <= run:
            low, high = self._tiled(rows, run)
            return (packed >= low) & (packed <= high)
        low, high = self._tiled(run, run)
        whole = rows - rows % run
        inside = np.empty(packed.shape, dtype=np.bool_)
        blocks, flat = packed[:whole].reshape(-1, run * width), inside[:whole].reshape(-1, run * width)
        np.logical_and(blocks >= low.reshape(-1), blocks <= high.reshape(-1), out=flat)
        rest = packed[whole:]
        inside[whole:] = (rest >= low[: len(rest)]) & (rest <= high[: len(rest)])
        return inside

    def _tiled(self, rows: int, most: int) -> tuple[Array, Array]:
        """The clean range's limits once for each of `rows` rows; laid out as needed, for more rows each time."""
        tiles = self._tiles
        if len(tiles[0]) < rows:
            size = min(2 ** (rows - 1).bit_length(), most)
            tiles = self._tiles = np.tile(self._low, (size, 1)), np.tile(self._high, (size, 1))
        return tiles[0][:rows], tiles[1][:rows]

    def _judge_row(self, row: list[float], broken: Broken) -> bool:
        """For one row a dozen numpy calls cost more than looking at its values."""
        low, high = self._lows, self._highs
        warnings: list[tuple[str, str]] = []
        if not (all(map(le, low, row)) and all(map(le, row, high))):
            for column, value in enumerate(row):
                if not low[column] <= value <= high[column] and not self._passes(column, value, warnings):
                    return False
        for column in self._whole_columns:  # NaN only gets here where it may pass
            if row[column] % 1 and row[column] == row[column]:
                return False
        for column, known in self._categories:
            if row[column] not in known and row[column] == row[column]:
                return False
        for field, rule in warnings:
            broken(field, rule, 1)
        return True

    def _passes(self, column: int, value: float, warnings: list[tuple[str, str]]) -> bool:
        """Whether a value outside the clean range is let through; adds the rules it broke to `warnings`."""
        if value != value:  # noqa: PLR0124 - NaN
            return self._nulls_pass[column]
        (low, high), *rules = self._each[column]
        if not low <= value <= high:
            return False
        for rule, (low, high) in zip(_RULES, rules, strict=True):
            if not low <= value <= high:
                warnings.append((self._names[column], rule))
        return True

    def _well_formed(self, packed: Array) -> bool:
        """Integers and booleans are whole numbers, categories are known ones."""
        if self._whole_columns:
            whole = packed[:, self._whole_columns]
            if any(self._nulls_pass):
                whole = np.nan_to_num(whole)
            if not (whole == np.floor(whole)).all():
                return False
        return all(_all_known(packed[:, i], known) for i, known in self._categories)


def _all_known(values: Array, known: frozenset[float]) -> bool:
    if len(values) <= 16:
        return all(value in known or math.isnan(value) for value in values.tolist())
    return bool((np.isin(values, np.array(sorted(known))) | np.isnan(values)).all())


def nulls_pass(field: Field) -> bool:
    """Nulls that training never saw are let through too, but counted, which the full path does."""
    return field.nullable and field.rules.on_null is Action.warn and field.missing_rate > 0


def _bounds(low: float | None, high: float | None) -> tuple[float, float]:
    return (-math.inf if low is None else low), (math.inf if high is None else high)


def _type_range(field: Field) -> tuple[float, float]:
    """Values the type itself can hold; integers as far as a float64 matrix holds them exactly."""
    if field.dtype is DType.bool:
        return 0, 1
    if field.dtype.is_integer:
        kind = np.iinfo(field.dtype.value)
        return float(max(kind.min, 1 - EXACT_IN_FLOAT64)), float(min(kind.max, EXACT_IN_FLOAT64 - 1))
    high = float(np.finfo(np.dtype(field.dtype.value)).max)
    return -high, high


def clean_range(field: Field) -> tuple[float, float]:
    """Numbers that break neither type, range nor fence."""
    return _within(_type_range(field), (field.minimum, field.maximum), field.fence or (None, None))


def _passing_range(field: Field) -> tuple[float, float]:
    """Numbers that break nothing worse than a rule that warns. (Infinities take the full path in any case.)"""
    limits = [
        (field.minimum, field.maximum) if field.rules.on_range is not Action.warn else (None, None),
        field.fence if field.fence and field.rules.on_outlier is not Action.warn else (None, None),
    ]
    return _within(_type_range(field), *limits)


def _within(*limits: tuple[float | None, float | None]) -> tuple[float, float]:
    lows = [low for low, _ in limits if low is not None]
    highs = [high for _, high in limits if high is not None]
    return max(lows), min(highs)
