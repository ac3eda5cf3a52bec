"""`fairway.drift`: has the data changed? In one shot, without a server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fairway.app.home import open_home
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput, MissingExtra
from fairway.core.listing import listed
from fairway.core.settings import DriftSettings
from fairway.core.version import parse_reference
from fairway.packaging.bundle import Bundle, read_bundle

if TYPE_CHECKING:
    from fairway.core.columns import Array
    from fairway.monitoring.drift.values import DriftReport, Kind
    from fairway.monitoring.tables import Table
    from fairway.monitoring.watch.frame import Frame

_EXTRA = "comparing data needs scipy and datasketches: pip install 'fairway[monitor]'"
_SEASON_COLUMNS = 10
_SEASON_ROWS = 50_000


def drift(
    reference: Any,
    current: Any,
    *,
    columns: tuple[str, ...] = (),
    kinds: dict[str, str] | None = None,
    time: str | None = None,
    settings: DriftSettings | None = None,
    home: str | os.PathLike[str] | None = None,
) -> DriftReport:
    """Has `current` changed against `reference`? Both are paths (Parquet, Arrow, CSV, JSON Lines), pandas or polars
    DataFrames, Arrow tables, or mappings of arrays; `reference` may also name a model, whose bundle carries rows to compare
    with.

    `columns` are the ones compared (all of the reference's by default) and `kinds` what they are taken for, where that is
    told wrongly ("number", "category", "text", ...). With `time`, a column of times, the reference's rows are
    matched by hour and weekday where its data has such a season. The result has `drifted`, `columns[i].name`, `.drifted`,
    `.effect`, `.p_value`, and more: see `fairway.monitoring.drift.values`.

    Raises InvalidInput (MalformedInput, UnsupportedContent) for data that cannot be read, NotFound for a file or model that
    is not there, MissingExtra without scipy and datasketches.
    """
    try:  # needs scipy and datasketches, which are optional
        from fairway.monitoring.drift.compare import compare_tables
        from fairway.monitoring.tables import open_table
        from fairway.monitoring.watch.frame import reference_rows
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{_EXTRA} ({error}).") from error
    settings = settings or DriftSettings()
    window = open_table(current)
    if _names_model(reference):
        bundle = _bundle(str(reference), home)
        return _against_rows(reference_rows(bundle), bundle.contract, window, columns, kinds, time, settings)
    table = open_table(reference)
    _check_names(columns, (*table.names, *window.names))
    _check_names(kinds or (), table.names)
    chosen, notes = (None, ()) if time is None else _in_season(table, window, time)
    return compare_tables(
        table,
        window,
        settings,
        columns=columns,
        ignore=(time,) if time else (),
        kinds=_kinds(kinds),
        rows=(chosen, None),
        notes=notes,
    )


def _against_rows(
    reference: Frame,
    contract: Contract,
    window: Table,
    columns: tuple[str, ...],
    kinds: dict[str, str] | None,
    time: str | None,
    settings: DriftSettings,
) -> DriftReport:
    """Against the rows that a bundle carries: its inputs, and outputs that the window has too."""
    from fairway.monitoring.drift.compare import compare_tables
    from fairway.monitoring.tables import HeldTable
    from fairway.monitoring.watch.frame import frame_kinds

    inputs = [field.name for field in contract]
    missing = [name for name in columns if name not in inputs]
    if missing:
        raise InvalidInput(f"the model takes no {', '.join(missing)}.")
    _check_names(kinds or (), reference.table.column_names)
    wanted = [name for name in inputs if not columns or name in columns]
    unknown = [name for name in wanted if name not in reference.inputs]
    notes: tuple[str, ...] = ()
    if unknown:
        notes = (f"Not compared, as the bundle has no values of it: {', '.join(unknown)}.",)
    compared = [name for name in wanted if name in reference.inputs]
    if not columns:
        compared += _answers(reference.outputs, contract, window)
    table, chosen = reference.table, None
    if time is not None:
        if reference.times is None:
            raise InvalidInput(
                "the bundle does not say when its rows were.", hint="Deploy it with --time COLUMN."
            )
        if time in table.column_names:
            table = table.drop_columns([time])
        table = table.append_column(time, pa.array(reference.times))
        chosen, told = _in_season(HeldTable(table), window, time)
        notes += told
    return compare_tables(
        HeldTable(table),
        window,
        settings,
        columns=tuple(name for name in compared if name != time),
        kinds={**frame_kinds(reference, contract), **_kinds(kinds)},
        rows=(chosen, None),
        notes=notes,
    )


def _answers(outputs: Iterable[str], contract: Contract, window: Table) -> list[str]:
    """Outputs that the window has. A column called like the target holds what became of the rows, not what was answered."""
    return [name for name in outputs if name in window.names and name != contract.target]


def _check_names(names: Iterable[str], known: Sequence[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise InvalidInput(f"there is no column {', '.join(missing)}; there are: {listed(known, 30)}.")


def _names_model(reference: Any) -> bool:
    """A file that is there is a file; so is what looks like a path."""
    if not isinstance(reference, str) or Path(reference).exists():
        return False
    return "/" not in reference and os.sep not in reference and not Path(reference).suffix


def _bundle(reference: str, home: str | os.PathLike[str] | None) -> Bundle:
    with open_home(home) as place:
        version = place.registry.resolve(parse_reference(reference))
        return read_bundle(place.registry.fetch(version), check_files=False)


def _kinds(kinds: dict[str, str] | None) -> dict[str, Kind]:
    from fairway.monitoring.drift.values import Kind

    unknown = sorted({kind for kind in (kinds or {}).values() if kind not in set(Kind)})
    if unknown:
        raise InvalidInput(f"there is no kind {', '.join(unknown)}; there are: {', '.join(Kind)}.")
    return {name: Kind(kind) for name, kind in (kinds or {}).items()}


def _in_season(table: Table, window: Table, time: str) -> tuple[Any, tuple[str, ...]]:
    """The reference's rows of the window's hours and weekdays, and what was done."""
    from fairway.monitoring.drift.season import Season, detect_season, matching_rows, season_numbers

    before, after = (_times(side, time) for side in (table, window))
    some = np.sort(np.random.default_rng(0).permutation(len(before))[:_SEASON_ROWS])
    numbers: dict[str, Array] = {}
    for name in [name for name in table.names if name != time][:_SEASON_COLUMNS]:
        numbers |= season_numbers(name, table.take(name, some))
    season = detect_season(before[some], numbers)
    if season is Season.none:
        return None, ("The reference has no daily or weekly season: all its rows are compared.",)
    rows = matching_rows(before, after, season)
    if len(rows) == len(before):
        return None, (
            f"The reference has a season ({season.value}), but too few rows of the window's hours.",
        )
    return rows, (
        f"Season: {season.value}. {len(rows):,} of {len(before):,} reference rows are of the window's hours.",
    )


def _times(table: Table, name: str) -> Any:
    if name not in table.names:
        raise InvalidInput(f"there is no column {name!r} to take times from.")
    column = table.column(name)
    try:
        return np.asarray(column.cast(pa.timestamp("us"), safe=False).to_numpy()).astype("datetime64[us]")
    except pa.ArrowException as error:
        text = (str(error).splitlines() or [""])[0]
        raise InvalidInput(
            f"column {name!r} is not of times: {text}.", hint="Write them as 2026-01-31T12:00:00."
        ) from error
