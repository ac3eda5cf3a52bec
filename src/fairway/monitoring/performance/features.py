"""Columns of any kind as the numeric matrix that scikit-learn's boosted trees take, the same for every window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairway.core.columns import Array
from fairway.core.errors import MalformedInput

CATEGORIES = 200
"""Most categories kept apart; the trees' own limit is 255."""
COLUMNS = 300
"""Most columns used; further ones are left out."""


@dataclass(frozen=True)
class Encoding:
    """`names` are the columns used, in order; `codes` the number of each known category of the text columns."""

    names: tuple[str, ...]
    codes: dict[str, dict[str, int]]

    @property
    def categorical(self) -> list[bool]:
        """Which columns of the matrix hold codes."""
        return [name in self.codes for name in self.names]

    def matrix(self, features: dict[str, Array], *further: Array) -> Array:
        """`[n, names + further]`, NaN for nulls and for categories not known. Raises MalformedInput for a column missing."""
        columns = []
        for name in self.names:
            if name not in features:
                raise MalformedInput(f"the window has no column {name!r}, which the reference has.")
            values = features[name]
            if name in self.codes:
                known = self.codes[name]
                columns.append(
                    np.array([known.get(str(v), np.nan) for v in values.tolist()], dtype=np.float64)
                )
            else:
                columns.append(_finite(values))
        return np.column_stack([*columns, *further]) if columns or further else np.zeros((0, 0))


def make_encoding(features: dict[str, Array]) -> Encoding:
    """Of the reference's columns. Timestamps are left out: every later row differs by them; so are tensors."""
    names: list[str] = []
    codes: dict[str, dict[str, int]] = {}
    for name, values in features.items():
        if values.ndim != 1 or values.dtype.kind in "Mm" or len(names) == COLUMNS:
            continue
        if values.dtype.kind in "OUS":
            texts, counts = np.unique([str(v) for v in values.tolist() if v is not None], return_counts=True)
            frequent = texts[np.argsort(-counts, kind="stable")][:CATEGORIES]
            codes[name] = {str(text): number for number, text in enumerate(sorted(frequent))}
        names.append(name)
    return Encoding(tuple(names), codes)


def _finite(values: Array) -> Array:
    floats = values.astype(np.float64)
    return np.where(np.isfinite(floats), floats, np.nan)
