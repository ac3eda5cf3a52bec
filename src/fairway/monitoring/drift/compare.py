"""Two tables -> `DriftReport`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput, MalformedInput
from fairway.core.settings import DriftSettings
from fairway.monitoring.drift import category, levels, numeric, text
from fairway.monitoring.drift.columns import as_floats, as_rows, as_text, is_numeric, texts_of
from fairway.monitoring.drift.dependence import MOST, NAME, dependence_evidence
from fairway.monitoring.drift.evidence import joined
from fairway.monitoring.drift.judge import Seen, judge
from fairway.monitoring.drift.kinds import kind_of, kind_of_texts
from fairway.monitoring.drift.scores import tail_share
from fairway.monitoring.drift.tensor import tensor_evidence
from fairway.monitoring.drift.values import DriftReport, Kind
from fairway.monitoring.tables import Table

MOST_COLUMNS = 2000
"""Columns compared; the rest are named in the notes."""
MOST_JOINT = 100
"""With more columns than this no rows are held for them: they are calibrated as if they were independent, which makes alarms
rarer where they are not."""
_NEW_SHOWN = 20


def compare_tables(
    reference: Table,
    current: Table,
    settings: DriftSettings | None = None,
    *,
    columns: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    kinds: Mapping[str, Kind] | None = None,
    rows: tuple[Array | None, Array | None] = (None, None),
    notes: tuple[str, ...] = (),
) -> DriftReport:
    """Every column of `reference` (or only `columns`) but `ignore` in `current`. `kinds` overrides what a column is taken for.
    `rows` restricts either side to some rows (`season.matching_rows`). `notes` are passed on. Memory holds one column of both sides and
    `settings.sample_rows` rows of each."""
    settings = settings or DriftSettings()
    names = [name for name in reference.names if (not columns or name in columns) and name not in ignore]
    names += [name for name in columns if name not in reference.names]
    if not names:
        raise InvalidInput("The reference has no column to compare.")
    said = [f"Column {name!r} is new: the reference has none." for name in current.names
             if name not in (*reference.names, *ignore) and not columns]  # fmt: skip
    if len(names) > MOST_COLUMNS:
        said.append(f"{len(names) - MOST_COLUMNS} columns beyond the first {MOST_COLUMNS} were not compared.")
        names = names[:MOST_COLUMNS]
    pair = _Pair(reference, current, settings, rows)
    pair.joint = len(names) <= MOST_JOINT
    seen = [pair.look_at(name, (kinds or {}).get(name)) for name in names]
    together = pair.look_together() if settings.multivariate else None
    return judge(seen, together, settings, pair.rows, [*said, *notes])


class _Pair:
    """Both tables, the rows of each that are held together, and what those rows score for `look_together`."""

    def __init__(
        self,
        reference: Table,
        current: Table,
        settings: DriftSettings,
        only: tuple[Array | None, Array | None],
    ) -> None:
        self.tables = (reference, current)
        self.only = only
        counts = [
            table.rows if some is None else len(some) for table, some in zip(self.tables, only, strict=True)
        ]
        self.rows = (counts[0], counts[1])
        rng = np.random.default_rng(settings.seed)
        self.held = tuple(
            np.sort(rng.choice(count, settings.sample_rows, replace=False))
            if count > settings.sample_rows
            else np.arange(count)
            for count in self.rows
        )
        self.tail = tail_share(min(self.rows))
        self._read: list[Any] = [None, None]
        self.joint = True
        self.numbers: dict[str, Array] = {}
        self.categories: dict[str, Array] = {}

    def look_at(self, name: str, kind: Kind | None) -> Seen:
        for table, where in zip(self.tables, ("reference", "current window"), strict=True):
            if name not in table.names:
                return Seen(name, Kind.other, status=f"absent from the {where}", drifted=True)
        found = [self._kind(name, side) for side in (0, 1)]
        empty = [pa.types.is_null(table.type_of(name)) for table in self.tables]
        kind = kind or (found[0] if not empty[0] else found[1])
        if not any(empty) and not _alike(found[0], found[1], self.tables, name):
            status = f"of another type: {found[0].value} before, {found[1].value} now"
            return Seen(name, found[0], rows=self.rows, status=status, drifted=True)
        try:
            return self._compared(name, kind)
        except pa.ArrowException as error:
            text = (str(error).splitlines() or [""])[0][:200]
            raise MalformedInput(f"column {name!r} cannot be compared as {kind.value}: {text}.") from error

    def _compared(self, name: str, kind: Kind) -> Seen:
        if kind in (Kind.number, Kind.boolean) and all(is_numeric(t.type_of(name)) for t in self.tables):
            return self._numbers(name, kind)
        if kind in (Kind.category, Kind.boolean, Kind.number):
            return self._categories(name, kind)
        if kind in (Kind.text, Kind.identifier):
            return self._texts(name, kind)
        if kind is Kind.tensor:
            return self._tensors(name)
        return Seen(name, kind, rows=self.rows, status="not compared: it moves on by itself" if kind is Kind.time
                    else f"not compared: of the type {str(self.tables[0].type_of(name))[:60]}")  # fmt: skip

    def look_together(self) -> Seen | None:
        scores = {**self.numbers, **self.categories}
        names = list(scores)[:MOST]
        if len(names) < 2 or min(self.rows) < 2:
            return None
        rows = np.column_stack([scores[name] for name in names])
        evidence, sizes, pair = dependence_evidence(names, rows, len(self.held[0]))
        if evidence is None:
            return None
        return Seen(NAME, Kind.other, evidence, sizes, self.rows, notes=(pair,))

    def _kind(self, name: str, side: int) -> Kind:
        kind = kind_of(self.tables[side].type_of(name))
        if kind is not None:
            return kind
        return kind_of_texts(texts_of(self._take(name, side)))

    def _column(self, name: str, side: int) -> pa.ChunkedArray:
        """Read once for each column, and let go with the next one."""
        if self._read[side] is None or self._read[side][0] != name:
            some = self.only[side]
            table = self.tables[side]
            self._read[side] = (name, table.column(name) if some is None else table.take(name, some))
        return self._read[side][1]

    def _take(self, name: str, side: int) -> pa.ChunkedArray:
        return self._column(name, side).take(pa.array(self.held[side]))

    def _numbers(self, name: str, kind: Kind) -> Seen:
        before, after = (as_floats(self._column(name, side)) for side in (0, 1))
        held = np.concatenate([before[self.held[0]], after[self.held[1]]])
        edges = levels.cuts(held[np.isfinite(held)], self.tail)
        codes = [levels.codes_of(values, edges) for values in (before, after)]
        reference = levels.count(before, codes[0], len(edges) + 1)
        current = levels.count(after, codes[1], len(edges) + 1)
        del before, after
        table, tests = numeric.number_scores(reference, current)
        kept = np.concatenate([codes[0][self.held[0]], codes[1][self.held[1]]])
        if len(self.numbers) < MOST:
            self.numbers[name] = table[kept, 0]
        codes_held = kept if self.joint else None
        evidence = numeric.evidence_of(name, table, tests, reference, current, codes=codes_held)
        sizes = numeric.number_effects(reference, current)
        if kind is Kind.boolean:
            sizes = {**category.category_effects(reference, current), **_rates(sizes)}
        return Seen(name, kind, evidence, sizes, self.rows)

    def _categories(self, name: str, kind: Kind) -> Seen:
        kind = Kind.category if kind is Kind.number else kind
        counts, held = [], []
        for side in (0, 1):
            column = as_text(self._column(name, side))
            counted = pc.value_counts(column)
            counts.append(
                {value: float(rows) for value, rows in zip(
                    counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)}
            )  # fmt: skip
            held.append(column.take(pa.array(self.held[side])))
        sides, chosen = category.sides_of(counts[0], counts[1])
        table, tests = category.category_scores(*sides)
        codes = np.concatenate([_category_codes(values, chosen) for values in held])
        if len(chosen) > 1 and len(self.categories) < MOST:
            self.categories[name] = (codes == 0).astype(float)  # the commonest stands for the column
        evidence = numeric.evidence_of(name, table, tests, *sides, codes=codes if self.joint else None)
        new = sorted(
            (value for value in counts[1] if value is not None and value not in counts[0]),
            key=lambda value: (-counts[1][value], value),
        )
        sizes = category.category_effects(*sides)
        sizes["new_category_rate"] = sum(counts[1][value] for value in new) / max(self.rows[1], 1)
        return Seen(name, kind, evidence, sizes, self.rows, new_categories=tuple(new[:_NEW_SHOWN]))

    def _texts(self, name: str, kind: Kind) -> Seen:
        sides = [as_text(self._column(name, side)) for side in (0, 1)]
        lengths = [as_floats(pc.utf8_length(column)) for column in sides]
        held = np.concatenate([lengths[0][self.held[0]], lengths[1][self.held[1]]])
        edges = levels.cuts(held[np.isfinite(held)], self.tail)
        codes = [levels.codes_of(values, edges) for values in lengths]
        reference, current = (
            levels.count(values, code, len(edges) + 1) for values, code in zip(lengths, codes, strict=True)
        )
        table, tests = numeric.number_scores(reference, current)
        kept = np.concatenate([codes[0][self.held[0]], codes[1][self.held[1]]])
        evidence = numeric.evidence_of(
            name, table, tests, reference, current, codes=kept if self.joint else None
        )
        sizes = numeric.number_effects(reference, current)
        sizes = {
            "length_wasserstein": sizes["wasserstein"],
            "length_ks": sizes["ks"],
            "length_psi": sizes["psi"],
            "missing_rate_change": sizes["missing_rate_change"],
        }
        if kind is Kind.text:
            before, after = (
                texts_of(column.take(pa.array(rows))) for column, rows in zip(sides, self.held, strict=True)
            )
            words = text.vocabulary(name, before, after)
            evidence = joined(evidence, words)
            sizes["unknown_words"] = text.unknown_words(before, after)
            sizes["word_change"] = text.word_change(before, after)
        return Seen(name, kind, evidence, sizes, self.rows)

    def _tensors(self, name: str) -> Seen:
        before, after = (as_rows(self._take(name, side)) for side in (0, 1))
        if before.shape[1] != after.shape[1] and min(before.shape[1], after.shape[1]) > 0:
            status = f"of another shape: {before.shape[1]} elements before, {after.shape[1]} now"
            return Seen(name, Kind.tensor, rows=self.rows, status=status, drifted=True)
        width = max(before.shape[1], after.shape[1], 1)
        before, after = (
            rows if rows.shape[1] == width else np.full((len(rows), width), np.nan)
            for rows in (before, after)
        )
        evidence, sizes = tensor_evidence(name, before, after)
        return Seen(name, Kind.tensor, evidence, sizes, self.rows)


def _alike(before: Kind, after: Kind, tables: tuple[Table, Table], name: str) -> bool:
    strings = (Kind.category, Kind.text, Kind.identifier)
    numbers = (Kind.number, Kind.boolean)
    return (
        before is after
        or (before in strings and after in strings)
        or (before in numbers and after in numbers)
    )


def _rates(sizes: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in sizes.items() if name.endswith("rate_change")}


def _category_codes(column: pa.ChunkedArray, chosen: tuple[str, ...]) -> Array:
    found = pc.index_in(column, value_set=pa.array(chosen, type=column.type))
    codes = pc.fill_null(found, len(chosen)).to_numpy().astype(np.int64)
    missing = column.is_null().to_numpy()
    codes[missing] = len(chosen) + 1 + levels.MISSING
    return np.asarray(codes)
