"""What monitors wrote, read for pages. Reports as they are; summaries, of which a year has thousands, no further than needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from fairway.monitoring.watch.values import ColumnReport, Point, Report, Step
from fairway.stores.windows import WatchedWindow

_NONE = msgspec.Raw(b"{}")


class Summary(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """As `monitoring.watch.values.Summary`, but what is large in it is left as JSON: `effects`, and metrics until they are
    asked for."""

    end: str
    rows: int
    requests: int = 0
    drifted: tuple[str, ...] = ()
    effects: msgspec.Raw = _NONE
    quality: int = 0
    violations: int = 0
    p50: float | None = None
    p99: float | None = None
    sources: dict[str, int] = {}
    estimates_json: msgspec.Raw = msgspec.field(default=_NONE, name="estimates")
    labels: int = 0
    performance_json: msgspec.Raw = msgspec.field(default=_NONE, name="performance")
    alerts: int = 0
    findings: int = 0

    @cached_property
    def estimates(self) -> dict[str, Point]:
        return _points_in(self.estimates_json)

    @cached_property
    def performance(self) -> dict[str, Point]:
        return _points_in(self.performance_json)


_steps = msgspec.json.Decoder(tuple[Step, ...])
_summary = msgspec.json.Decoder(Summary)
_points = msgspec.json.Decoder(dict[str, Point])
_report = msgspec.json.Decoder(Report)
_effects: msgspec.json.Decoder[dict[str, float | None]] = msgspec.json.Decoder(dict[str, float | None])
_AWKWARD = re.compile(r'[\x00-\x1f"\\]')
"""What field names of a `Struct` may not have."""


def _points_in(text: msgspec.Raw) -> dict[str, Point]:
    """None of those that another Fairway wrote in a form that this one does not know."""
    try:
        return _points.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def summary_in(window: WatchedWindow) -> Summary | None:
    """None for one that another Fairway wrote in a form that this one does not know."""
    try:
        return _summary.decode(window.summary)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def report_in(window: WatchedWindow | None) -> Report | None:
    """None where there is none, or none that can be read."""
    if window is None:
        return None
    try:
        return _report.decode(window.report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def steps_in(mark: str) -> tuple[Step, ...]:
    """What a server's counters told, window by window; nothing where it was never told."""
    try:
        return _steps.decode(mark) if mark else ()
    except msgspec.MsgspecError:
        return ()


def effects_reader(columns: Sequence[str]) -> Callable[[Summary], tuple[float | None, ...]]:
    """Reads the effects of these columns out of a summary, None for those that were not compared, and passes over the
    others."""
    decoder: msgspec.json.Decoder[Any] = _effects
    names = {f"column_{index}": name for index, name in enumerate(columns)}
    if not _AWKWARD.search("".join(columns)):
        fields = [(field, float | None, None) for field in names]
        decoder = msgspec.json.Decoder(msgspec.defstruct("Effects", fields, rename=names))

    def read(summary: Summary) -> tuple[float | None, ...]:
        try:
            found = decoder.decode(summary.effects)
        except msgspec.MsgspecError:
            return (None,) * len(columns)
        if decoder is _effects:
            return tuple(found.get(name) for name in columns)
        return tuple(getattr(found, field) for field in names)

    return read


def ranked(report: Report) -> tuple[ColumnReport, ...]:
    """Its columns: those that drifted first, inputs before what the model made of them, then by effect times importance, where
    that is known."""

    def order(column: ColumnReport) -> tuple[bool, bool, float, str]:
        drift = column.drift
        if drift is None:
            return True, True, 1.0, column.name
        heeded = 1.0 if column.importance is None else 0.05 + column.importance
        return not drift.drifted, column.role == "output", -abs(drift.effect or 0.0) * heeded, column.name

    return tuple(sorted(report.columns, key=order))
