"""Traffic, latency, errors and saturation against their own history: what is usual at this hour, and how far off now is.

Values are brought to a scale on which chance is even (square roots of counts, Anscombe 1948; logarithms of times; arcsines of
shares, Freeman and Tukey 1950), what is usual is the median of the same hour of the day or of the week where the series has such a rhythm
(seasonal medians as in Hochenbaum et al. 2017, "Automatic anomaly detection in the cloud via statistical learning") and follows the
level of late, and distance is counted in robust deviations (median absolute deviation, Iglewicz and Hoaglin 1993). A history that strays
far by itself sets a wider limit. Pure: numbers in, a judgement out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import InvalidInput
from fairway.monitoring.told import LIMIT, Anomaly, Measure

SMALLEST = 24
"""Fewest earlier values that anything is said from."""
MOST = 100_000
"""Most earlier values that are looked at: the last."""
DAY, WEEK = 86_400.0, 604_800.0
_GAIN = 0.8
_PERIODS = 3
_NORMAL = 1.4826  # a normal's standard deviation over its median absolute deviation
_STRAY = 1.1


@dataclass(frozen=True)
class _Scale:
    """Values `there` on a scale on which chance is even once multiplied by `weight`, and back; `floor` is the least
    deviation then."""

    there: Array
    weight: Array
    floor: float
    measure: Measure

    def back(self, value: float) -> float:
        if self.measure is Measure.traffic:
            return max((value / 2) ** 2 - 0.375, 0.0)
        if self.measure is Measure.latency:
            return math.exp(min(value, 700.0))
        if self.measure is Measure.errors:
            return math.sin(min(max(value, 0.0), math.pi / 2)) ** 2
        return value


def judge_operations(
    measure: Measure,
    times: Array,
    values: Array,
    *,
    totals: Array | None = None,
    limit: float = LIMIT,
) -> Anomaly:
    """Judges the last value by all before it.

    `times` `[n]` are seconds since 1970 at even steps (gaps do no harm, other orders are put right), `values` `[n]` what `measure` says;
    `totals` `[n]` the requests that errors are counted among. NaN values are left out. Raises InvalidInput for columns of different
    lengths, for no values and for errors without totals.
    """
    times, values, totals = _clean(measure, times, values, totals)
    shown = (
        values[-1] / max(totals[-1], 1.0) if measure is Measure.errors and totals is not None else values[-1]
    )
    if len(values) <= SMALLEST:
        return Anomaly(
            measure=measure,
            value=float(shown),
            note=f"{len(values) - 1} earlier values; {SMALLEST} are needed",
        )
    scale = _scale(measure, values, totals)
    rhythm, usual = _usual(times, scale.there)
    rest = scale.there[:-1] - usual[:-1]
    level = float(np.median(rest[-SMALLEST:]))
    followed = _followed(rest)
    followed = followed * scale.weight[-1 - len(followed) : -1]
    spread = max(float(np.median(np.abs(followed))) * _NORMAL, scale.floor)
    strays = float(np.quantile(np.abs(followed), 0.995)) / spread * _STRAY
    limit = max(limit, strays)
    spread /= float(scale.weight[-1])
    expected = float(usual[-1]) + level
    score = (float(scale.there[-1]) - expected) / spread
    far = abs(score) > limit if measure is Measure.traffic else score > limit
    return Anomaly(
        measure=measure,
        value=float(shown),
        anomalous=bool(far),
        expected=scale.back(expected),
        lower=scale.back(expected - limit * spread),
        upper=scale.back(expected + limit * spread),
        score=score,
        limit=limit,
        rhythm=rhythm,
    )


def _clean(
    measure: Measure, times: Array, values: Array, totals: Array | None
) -> tuple[Array, Array, Array | None]:
    if measure is Measure.errors and totals is None:
        raise InvalidInput("errors are judged among all requests: give totals.")
    for name, column in (("values", values), ("totals", totals)):
        if column is not None and len(column) != len(times):
            raise InvalidInput(f"{len(times)} times have {len(column)} {name}.")
    known = np.isfinite(values.astype(np.float64)) & np.isfinite(times.astype(np.float64))
    order = np.argsort(times[known].astype(np.float64), kind="stable")[-MOST:]
    times, values = times[known].astype(np.float64)[order], values[known].astype(np.float64)[order]
    if len(values) == 0:
        raise InvalidInput("there is no value to judge.")
    return times, values, None if totals is None else totals[known].astype(np.float64)[order]


def _scale(measure: Measure, values: Array, totals: Array | None) -> _Scale:
    if measure is Measure.traffic:
        return _Scale(2 * np.sqrt(np.maximum(values, 0.0) + 0.375), np.ones(len(values)), 1.0, measure)
    if measure is Measure.latency:
        return _Scale(np.log(np.maximum(values, 1e-9)), np.ones(len(values)), 0.05, measure)
    if measure is Measure.errors:
        assert totals is not None
        n = np.maximum(totals, 1.0)
        share = np.clip(values / n, 0.0, 1.0)
        even = (np.arcsin(np.sqrt(share * n / (n + 1))) + np.arcsin(np.sqrt((share * n + 1) / (n + 1)))) / 2
        return _Scale(even, 2 * np.sqrt(n + 0.5), 1.0, measure)
    return _Scale(values, np.ones(len(values)), 0.02, measure)


def _usual(times: Array, there: Array) -> tuple[str, Array]:
    """The rhythm that explains most and what is usual at each time by it; a longer one needs to be clearly better."""
    past = there[:-1]
    flat = np.full(len(there), float(np.median(past)))
    best, name = flat, "none"
    least = float(np.median(np.abs(past - flat[:-1])))
    step = float(np.median(np.diff(times)))
    for rhythm, period in (("day", DAY), ("week", WEEK)):
        slots = round(period / step) if step > 0 else 0
        if slots < 4 or times[-1] - times[0] < _PERIODS * period:
            continue
        slot = np.floor((times % period) / period * slots).astype(np.int64) % slots
        usual, others = _by_slot(slot, there, slots)
        spread = float(np.median(np.abs(past - others)))
        if spread < _GAIN * least:
            best, least, name = usual, spread, rhythm
    return name, best


def _by_slot(slot: Array, there: Array, slots: int) -> tuple[Array, Array]:
    """The median of the past at each value's slot; and of the others there, for values of the past themselves."""
    past = there[:-1]
    usual: Array = np.full(len(there), float(np.median(past)))
    others: Array = usual[:-1].copy()
    for number in range(slots):
        rows = np.flatnonzero(slot[:-1] == number)
        if len(rows) == 0:
            continue
        usual[slot == number] = np.median(past[rows])
        ordered = np.sort(past[rows])
        if len(rows) > 1:
            place = np.searchsorted(ordered, past[rows])
            half = (len(rows) - 1) // 2
            others[rows] = np.where(
                place <= half, ordered[np.minimum(half + 1, len(rows) - 1)], ordered[half]
            )
    return usual, others


def _followed(rest: Array) -> Array:
    """Each value less the median of those just before it, as the last one will be judged."""
    windows = np.lib.stride_tricks.sliding_window_view(rest, SMALLEST)[:-1]
    if len(windows) == 0:
        return np.asarray(rest - np.median(rest))
    return np.asarray(rest[SMALLEST:] - np.median(windows, axis=1))
