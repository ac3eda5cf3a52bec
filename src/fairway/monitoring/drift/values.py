"""What is said of drift. Values only."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """What a column holds, which decides how it is compared."""

    number = "number"
    category = "category"
    boolean = "boolean"
    text = "text"
    identifier = "identifier"  # nearly every value another one: only lengths and gaps are compared
    tensor = "tensor"
    time = "time"  # moves on by itself: not compared
    other = "other"  # of a type that nothing is known about: not compared


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One column. `drifted` needs both significance (`p_adjusted` <= alpha) and an effect above its floor.

    `effect` is the size in the unit `measure` names: `wasserstein` (numbers, lengths of texts: standard deviations of
    the reference), `total variation` (categories: share of rows that would have to change), `mean shift` (tensors: the
    largest shift of a direction, in standard deviations), `missing rate` (where only gaps differ). `effects` holds all
    that were computed. `p_value` is the column's own, all its tests combined; `p_adjusted` counts that there are other
    columns. `test` is the test that shows most, `statistic` its value (a standard normal deviate where nothing has
    changed). `status` says why a column was not compared; it is "compared" otherwise.
    """

    name: str
    kind: Kind
    drifted: bool
    status: str = "compared"
    effect: float = 0.0
    measure: str = ""
    p_value: float = 1.0
    p_adjusted: float = 1.0
    test: str = ""
    statistic: float = 0.0
    effects: dict[str, float] = {}
    reference_rows: int = 0
    current_rows: int = 0
    new_categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """`drifted`: any column, or the columns together (`multivariate`). `columns` are in the reference's order."""

    drifted: bool
    columns: tuple[ColumnDrift, ...]
    multivariate: ColumnDrift | None
    reference_rows: int
    current_rows: int
    alpha: float
    notes: tuple[str, ...] = ()

    @property
    def drifted_columns(self) -> tuple[ColumnDrift, ...]:
        """The columns that drifted, the surest first."""
        found = [column for column in self.columns if column.drifted]
        return tuple(sorted(found, key=lambda column: (column.p_value, -column.effect)))

    def column(self, name: str) -> ColumnDrift:
        """Raises KeyError for a column that is in neither table."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
