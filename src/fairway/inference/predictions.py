"""Answered requests as the prediction log is told of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import compress

import msgspec
import numpy as np

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Privacy
from fairway.core.request import Request

_EVERYTHING = 2**32


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in all predictions of a version: who answers, which fields are private, which share of the
    requests is recorded."""

    model: str
    version: int
    digest: str
    private: Mapping[str, Privacy] = {}
    sample: float = 1.0


class Predictions(msgspec.Struct, frozen=True, gc=False):
    """Requests that were answered together, `counts` rows each, one after the other in `columns` and `outputs`.

    `time` is when, in seconds since 1970; `seconds` is how long each request took. `sources` says who answered each:
    None for the model. `violations` are rules that were broken since the last predictions of this version, with their
    rows."""

    about: Logged
    requests: Sequence[Request]
    counts: Sequence[int]
    time: float
    seconds: Sequence[float]
    columns: Columns
    outputs: Outputs
    sources: Sequence[str] | None = None
    violations: Mapping[tuple[str, str], int] | None = None

    @property
    def bytes(self) -> int:
        """Rough size of what came and what was answered."""
        return self.columns.bytes + sum([values.nbytes for values in self.outputs.values()])

    @property
    def request_ids(self) -> list[str]:
        return [request.request_id for request in self.requests]


def in_sample(request_id: str, share: float) -> bool:
    """Whether a request is recorded: decided by its id alone, so that every process decides alike."""
    return zlib.crc32(request_id.encode("utf-8", "replace")) < share * _EVERYTHING


def sampled(predictions: Predictions) -> Predictions | None:
    """Those requests, with their rows, that are in the sample; None where none is."""
    share = predictions.about.sample
    chosen = [in_sample(request.request_id, share) for request in predictions.requests]
    if all(chosen):
        return predictions
    if not any(chosen):
        return None
    rows = np.repeat(chosen, predictions.counts)
    sources = predictions.sources
    return msgspec.structs.replace(
        predictions,
        requests=[*compress(predictions.requests, chosen)],
        counts=[*compress(predictions.counts, chosen)],
        seconds=[*compress(predictions.seconds, chosen)],
        columns=predictions.columns.take(rows),
        outputs={name: values[rows] for name, values in predictions.outputs.items()},
        sources=None if sources is None else [*compress(sources, chosen)],
    )
