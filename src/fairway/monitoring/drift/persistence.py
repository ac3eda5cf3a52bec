"""Drift that lasts: what is seen in several windows in a row is no chance, which shows drift in a few of a hundred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from fairway.core.errors import InvalidInput

OF = 3
"""Windows that are looked at, the newest among them."""


def lasting_drift(windows: Sequence[Collection[str]], *, need: int = 2, of: int = OF) -> set[str]:
    """The names that drifted in the newest window and in at least `need` of the last `of`.

    `windows` are the names of what drifted in each, the oldest window first; leave out windows of too few rows, which say
    neither yes nor no. Raises InvalidInput unless 1 <= need <= of."""
    if not 1 <= need <= of:
        raise InvalidInput(f"{need} of {of} windows: needs at least 1, and at most all of them.")
    if not windows:
        return set()
    seen = Counter(name for window in windows[-of:] for name in set(window))
    return {name for name in windows[-1] if seen[name] >= need}
