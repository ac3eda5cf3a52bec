"""What drift is asked with and what is answered. Values only."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

_Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_Floor = Annotated[float, msgspec.Meta(ge=0)]
_Rows = Annotated[int, msgspec.Meta(ge=2)]


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


class DriftSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults need no tuning."""

    alpha: _Share = 0.03
    """Most often that a window without drift raises any alarm at all, over all its columns together."""
    min_rows: _Rows = 30
    """A current window with fewer rows is not judged."""
    min_reference_rows: _Rows = 50
    """A reference with fewer rows judges nothing."""
    spread_floor: _Floor = 0.05
    """Drift smaller than this Wasserstein distance, in standard deviations of the reference, is no alarm, unless
    another floor is passed."""
    share_floor: _Floor = 0.025
    """The same for the share of rows that lie elsewhere (Kolmogorov-Smirnov, total variation), and for correlations."""
    rate_floor: _Floor = 0.005
    """The same for the share of rows that are missing, infinite or in the reference's tails."""
    multivariate: bool = True
    """Whether drift that no single column shows is looked for."""
    resamples: Annotated[int, msgspec.Meta(ge=200, le=100_000)] = 2000
    """Draws of a window without drift that the alarms are calibrated on."""
    sample_rows: Annotated[int, msgspec.Meta(ge=500, le=1_000_000)] = 5_000
    """Most rows of each side that are held together in memory: for calibration, dependence between columns, texts
    and tensors. All rows count in every other test."""
    seed: int = 0


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
