"""When the rows of a sample were: by it monitors compare an evening with evenings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairway.core.columns import Array
from fairway.core.errors import MalformedInput
from fairway.packaging.source import Sample


@dataclass(frozen=True)
class Times:
    """When the rows of a sample were, `[rows]` datetime64[us] in UTC, by its column `name`."""

    name: str
    values: Array


def read_times(sample: Sample, used: Collection[str], name: str | None = None) -> Times | None:
    """`name` is the column of times; without it the only column of moments that the model does not use (`used` are those that
    it does). None where there is none, or more than one. Raises MalformedInput for a column that is not there, or holds
    other things."""
    frame = sample.frame
    if name is not None:
        if name not in frame.columns:
            raise MalformedInput(f"there is no column {name!r} in the sample data to take times from.")
        return Times(name, _moments(name, frame[name]))
    found = [
        str(column)
        for column in frame.columns
        if column not in used and pd.api.types.is_datetime64_any_dtype(frame[column].dtype)
    ]
    return Times(found[0], _moments(found[0], frame[found[0]])) if len(found) == 1 else None


def _moments(name: str, column: pd.Series[Any]) -> Array:
    """Moments without a zone are taken to be UTC."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise MalformedInput(
            f"column {name!r} holds numbers, not times.", hint="Write times as 2026-11-01T12:00:00Z."
        )
    try:
        iso = None if pd.api.types.is_datetime64_any_dtype(column.dtype) else "ISO8601"
        moments = pd.to_datetime(column, utc=True, format=iso)
    except (ValueError, TypeError) as error:
        raise MalformedInput(
            f"column {name!r} holds things that are no times: {str(error).splitlines()[0]}."
        ) from error
    return np.asarray(moments.dt.tz_localize(None).to_numpy(dtype="datetime64[us]"))
