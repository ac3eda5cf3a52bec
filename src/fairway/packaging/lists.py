"""Which rows of a sample are one list, for models that rank: by it monitors tell how good the order of a list was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fairway.core.columns import Array
from fairway.core.errors import MalformedInput
from fairway.packaging.source import Sample


@dataclass(frozen=True)
class Lists:
    """The number of each row's list as text, `[rows]`, None for a row of none; by the sample's column `name`, whose values may be
    nobody's business and are not kept."""

    name: str
    values: Array

    def whole(self, rows: Array, most: int) -> Array:
        """Of these rows those of the first lists that come to at most `most` rows, in ascending order. Raises MalformedInput
        where no list fits."""
        codes, _ = pd.factorize(self.values[rows])  # in the order in which lists come; -1 for a row of none
        sizes = np.bincount(codes[codes >= 0])
        fits = np.cumsum(np.where(sizes <= most, sizes, 0)) <= most
        kept = np.append(fits & (sizes <= most), False)[codes]
        if not kept.any():
            raise MalformedInput(
                f"column {self.name!r} makes no list of at most {most:,} rows.",
                hint="Name the column whose values tell which rows were ranked together.",
            )
        return np.sort(rows[kept])


def read_lists(sample: Sample, name: str | None) -> Lists | None:
    """None without a name. Raises MalformedInput for a column that is not there."""
    if name is None:
        return None
    if name not in sample.frame.columns:
        raise MalformedInput(f"there is no column {name!r} in the sample data to tell lists by.")
    numbers, _ = pd.factorize(sample.frame[name])
    return Lists(name, np.array([None if number < 0 else str(number) for number in numbers], dtype=object))
