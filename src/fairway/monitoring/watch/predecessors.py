"""A season lent by versions before this one, until its own days tell of theirs.

A new version would raise alarms in its first nights, though the log has months of the same traffic. What versions were
asked does not depend on them, so inputs are compared with the same hours of the last days before this version's first row,
where a predecessor was given the same fields. What versions answered does: predictions are compared with this version's own
reference. But there they would be an alarm each night; so a distance that the predecessor's predictions have from its
own whole days at the same hours is none (`swings.within_swings`).

Inputs that have moved in the version's own first days would become usual when these take over. So a column in which they are
not as the lent ones goes on being compared with those.

Columns in which the predecessors' inputs had moved away from this version's reference go on being compared with the reference, as
with a version's own days.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import MalformedInput
from fairway.core.settings import DriftSettings
from fairway.monitoring.drift.profile import kinds_of
from fairway.monitoring.drift.season import Season
from fairway.monitoring.watch.frame import Frame, frame_kinds, frame_of, together
from fairway.monitoring.watch.own import DAYS, HOUR, ROWS, Rows, days_known, some, with_own_season, with_past
from fairway.monitoring.watch.reference import Elsewhere, Hours, Past, Reference, season_of
from fairway.monitoring.watch.swings import mean_swings, moved

_MOST = 8
"""Versions whose rows are read."""
_ENOUGH = 1000
"""From so many own rows on there are enough of each part of the day to compare a window with."""
_DAYS_OF = {Season.none: 0, Season.day: 2, Season.week: 7}
"""Days that can tell of a season."""
_FINER = tuple(_DAYS_OF)


@dataclass(frozen=True)
class Predecessor:
    """A version of the same model with rows in the log before this one's first: its contract, when its first and its last row
    were, and how they are read."""

    version: int
    contract: Contract
    first: datetime
    last: datetime
    rows: Rows


def in_season(
    reference: Reference,
    rows: Rows,
    first: datetime,
    days: int,
    before: Callable[[], Sequence[Predecessor]],
    settings: DriftSettings,
) -> Reference:
    """The reference with a season where one is known: of the version's own first `days`, or else of those before it.

    Its own takes over once it has rows enough and is as fine as the one that is lent: two days tell hours, and weekends
    take a week. After the last of `DAYS` it is what counts, but for columns that had moved by then."""
    own = with_own_season(reference, rows, first, days, settings) if days else reference
    try:
        lent = with_lent_season(reference, before(), first, settings)
    except (
        MalformedInput,
        pa.ArrowException,
    ) as error:  # another version's rows must not end the watch over this one
        note = f"versions before it lend no season, as their rows cannot be read together: {error}"[:500]
        return dataclasses.replace(own, notes=(*own.notes, note))
    if lent.past is None or (own.past is None and days >= DAYS[-1]):
        return own
    told = 0 if own.past is None or own.past.hours.frame.rows < _ENOUGH else days
    if own.past is None or (told < _DAYS_OF[lent.past.hours.season] and days < DAYS[-1]):
        return lent
    return _with_moved(own, own.past, lent.past, days, settings)


def _with_moved(own: Reference, past: Past, lent: Past, days: int, settings: DriftSettings) -> Reference:
    """The reference whose own days take over, but for inputs that in these are not as they were before. Fewer days than
    that, or than a week, may have been other weekdays and tell nothing of it."""
    before = lent.hours.frame
    if _days_in(before) < min(days, _DAYS_OF[Season.week]):
        return own
    kinds = frame_kinds(before, own.contract)
    found = moved(before, past.hours.frame, kinds, settings)
    names = [name for name in found if name not in past.standing]
    if not names:
        return own
    frame = Frame(before.table.select(names), tuple(names), (), before.about)
    still = Hours(frame, lent.hours.season, lent.hours.text)
    note = f"its own first days are not as {lent.hours.text} in {', '.join(names)}, which goes on being compared with these"
    return dataclasses.replace(own, past=dataclasses.replace(past, still=still), notes=(*own.notes, note))


def _days_in(frame: Frame) -> float:
    """Two days of traffic end a little before two days are over."""
    assert frame.times is not None
    return float((frame.times.max() - frame.times.min()) / np.timedelta64(1, "D")) + 0.5


def with_lent_season(
    reference: Reference, before: Sequence[Predecessor], first: datetime, settings: DriftSettings
) -> Reference:
    """The reference with the season of the last whole days that predecessors had before `first`; as it was where they
    have none, or were given nothing that this version is."""
    known = sorted(before, key=lambda one: (_covered(one, first), one.last), reverse=True)[:_MOST]
    if not known:
        return reference
    main = known[0]
    end = min(first, main.last + timedelta(microseconds=1))
    days = days_known(min(one.first for one in known), end + HOUR)  # two days of traffic end a little earlier
    given, answers = _read(reference.contract, known, end, days)
    if sum(batch.num_rows for batch in given) < settings.min_reference_rows:
        return reference
    inputs = frame_of(together(given), reference.contract)
    outputs = _outputs(frame_of(together(answers), main.contract))
    season = max(season_of(inputs), season_of(outputs), key=_FINER.index)
    if season is Season.none or not inputs.inputs:
        return reference
    text = f"version {main.version}"
    if len(known) > 1:
        others = ", ".join(str(one.version) for one in known[1:])
        text = f"{text} (and {others}, where it had too few)"
    swinging, of = (outputs, "predictions") if outputs.outputs else (inputs, "inputs")
    kinds = frame_kinds(swinging, main.contract)
    elsewhere = Elsewhere(
        Hours(swinging, season, f"{of} of version {main.version}"),
        kinds,
        mean_swings(swinging, kinds, settings),
    )
    hours = Hours(inputs, season, f"the inputs of {text} in {days} days")
    return with_past(reference, hours, settings, elsewhere, f" of version {main.version}")


def _covered(one: Predecessor, first: datetime) -> timedelta:
    """How much of what is read it may have been asked in."""
    return min(min(one.last, first) - one.first, timedelta(days=DAYS[-1]))


def _read(
    contract: Contract, known: Sequence[Predecessor], end: datetime, days: int
) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Inputs that both had, and all that the first of `known` was asked and answered, of the days before `end`. Other
    versions fill hours that it has too few rows of: a canary may have been asked other things."""
    given: list[pa.RecordBatch] = []
    answers: list[pa.RecordBatch] = []
    fields = [_shared(contract, one.contract) for one in known]
    for back in range(days * 24, 0, -1):
        hour = end - back * HOUR
        left = ROWS // (days * 24)
        for one, names in zip(known, fields, strict=True):
            if left <= 0 or not names or one.first >= hour + HOUR or one.last < hour:
                continue
            batches = some(one.rows, hour, left)
            left -= sum(batch.num_rows for batch in batches)
            given += [_only(batch, names) for batch in batches]
            if one is known[0]:
                answers += batches
    return given, answers


def _shared(mine: Contract, theirs: Contract) -> set[str]:
    """Fields of the same kind in both: of one that either keeps private the log has no values."""
    kinds = (kinds_of(mine), kinds_of(theirs))
    fields = {field.name: field for field in theirs}

    def alike(field: Field) -> bool:
        other = fields.get(field.name)
        return (
            other is not None
            and field.private is None
            and other.private is None
            and kinds[0][field.name] is kinds[1][field.name]
            and field.shape == other.shape
            and (field.dtype is DType.string) == (other.dtype is DType.string)
        )

    return {field.name for field in mine if alike(field)}


def _only(batch: pa.RecordBatch, names: set[str]) -> pa.RecordBatch:
    kept = {"time", "source", *(f"input.{name}" for name in names)}
    return batch.select([name for name in batch.schema.names if name in kept])


def _outputs(frame: Frame) -> Frame:
    return Frame(frame.table.select(list(frame.outputs)), (), frame.outputs, frame.about)
