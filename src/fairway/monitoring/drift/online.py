"""Detectors that look at every value as it comes, for streams that no window suits.

    adwin         ADWIN (Bifet and Gavalda 2007, "Learning from time-changing data with adaptive windowing"); for a
                  bounded measure such as an error rate or a score; forgets what no longer holds
    page-hinkley  Page (1954), Hinkley (1971): a change of the mean, in either direction
    kswin         KSWIN (Raab, Heusinger and Schleif 2020): Kolmogorov-Smirnov between old and recent values

They come from river. They are quick to tell (tens of values), and have no correction for how long they run: use them to
look closer, not to wake people.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, Protocol

from fairway.core.errors import InvalidInput, MissingExtra

DETECTORS: dict[str, str] = {
    "adwin": "river.drift:ADWIN",
    "page-hinkley": "river.drift:PageHinkley",
    "kswin": "river.drift:KSWIN",
}
"""Name -> "module:class". A class has `update(value)` and `drift_detected`."""


class Detector(Protocol):
    """What river's detectors are used through."""

    @property
    def drift_detected(self) -> bool: ...
    def update(self, x: float) -> Any: ...


class Stream:
    """One measure, value by value. `seen` values went in, `skipped` were no finite numbers, `changes` are the positions (among
    the values that went in) at which a change was told, the last thousand of them."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.seen = self.skipped = 0
        self.changes: list[int] = []

    def update(self, value: float) -> bool:
        """True when this value shows that something has changed."""
        if not math.isfinite(value):
            self.skipped += 1
            return False
        self.seen += 1
        self._detector.update(value)
        if not self._detector.drift_detected:
            return False
        self.changes = [*self.changes[-999:], self.seen - 1]
        return True


def open_stream(name: str, **options: Any) -> Stream:
    """A stream watched by the detector `name`, with river's own options (`delta=...`). Raises InvalidInput for a name or an
    option that is not known, MissingExtra without river."""
    if name not in DETECTORS:
        raise InvalidInput(f"there is no detector {name!r}; there are: {', '.join(DETECTORS)}.")
    module, attribute = DETECTORS[name].split(":")
    try:
        kind = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"online detectors need river: pip install 'fairway[monitor]' ({error})."
        ) from error
    try:
        return Stream(kind(**options))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} cannot be set up so: {error}.") from error
