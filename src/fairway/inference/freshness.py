"""Whether what was computed ahead may be given: the decision, pure.

An answer is fresh while its time has not passed, the version that computed it (by digest) still takes the request, the
contract is the same, and the features, if the request has any, are those it was computed from. Then it is
`precomputed`. Otherwise the model answers `live` where the features are there. Where they are not, or the model is
overloaded, the model's policy says what may stand in: a `stale` answer, which is one that was fresh once and has the
same contract; or the `default`; or nothing.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from fairway.core.columns import Array, Outputs
from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import SettingsError


class Source(enum.StrEnum):
    """Who answers: the store; the model; an answer that is not fresh any more; the default; nobody."""

    precomputed = "precomputed"
    live = "live"
    stale = "stale"
    default = "default"
    nobody = "nobody"


class Reason(enum.StrEnum):
    """Why it is not simply the stored answer; `fresh` where it is."""

    fresh = "fresh"
    preferred = "preferred"  # fresh, but the model is to answer where it can
    unkeyed = "unkeyed"  # the request has no key
    missing = "missing"  # no answer was stored under the key
    expired = "expired"
    digest = "digest"  # another version computed it
    contract = "contract"  # for another contract: its outputs may mean something else
    features = "features"  # from other features than the request has
    away = "away"  # the store cannot be asked


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How one model uses its answers; see `ModelSettings.hybrid_*`."""

    prefer: Literal["store", "live"] = "store"
    missing: Literal["refuse", "stale", "default"] = "refuse"
    overload: Literal["refuse", "fresh", "stale", "default"] = "refuse"
    stale_seconds: float = math.inf


class Known(msgspec.Struct, frozen=True, gc=False):
    """What a decision has to know of a stored answer. `computed` is in seconds since 1970."""

    digest: str
    signature: str
    computed: float
    ttl_seconds: float
    features: bytes


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`age` is the stored answer's, in seconds, where one is given."""

    source: Source
    reason: Reason
    age: float = 0.0


_LADDER = {"refuse": 0, "fresh": 1, "stale": 2, "default": 3}


def decide(
    known: Known | None,
    *,
    now: float,
    digest: str,
    signature: str,
    features: bytes | None,
    policy: Policy,
    overloaded: bool = False,
    away: bool = False,
) -> Verdict:
    """Who answers one row. `digest` and `signature` are the live version's; `features` is the hash of the request's
    validated features, None when it has none; `overloaded`: the model cannot be run now; `away`: the store could not
    be asked, so `known` is None."""
    reason = _standing(known, now, digest, signature, features, away)
    age = 0.0 if known is None else max(0.0, now - known.computed)
    can_run = features is not None and not overloaded
    if reason is Reason.fresh:
        if policy.prefer == "live" and can_run:
            return Verdict(Source.live, Reason.preferred)
        if not overloaded or policy.prefer == "store" or _LADDER[policy.overload] >= 1:
            return Verdict(Source.precomputed, reason, age)
        return Verdict(Source.nobody, reason)
    if can_run:
        return Verdict(Source.live, reason)
    step = _LADDER[policy.overload if overloaded and features is not None else policy.missing]
    usable = known is not None and reason is not Reason.contract and age <= policy.stale_seconds
    if usable and step >= _LADDER["stale"]:
        return Verdict(Source.stale, reason, age)
    if step >= _LADDER["default"]:
        return Verdict(Source.default, reason)
    return Verdict(Source.nobody, reason)


def _standing(
    known: Known | None, now: float, digest: str, signature: str, features: bytes | None, away: bool
) -> Reason:
    """The first thing that keeps a stored answer from being fresh, the gravest first."""
    if known is None:
        return Reason.away if away else Reason.missing
    if known.signature != signature:
        return Reason.contract
    if features is not None and features != known.features:
        return Reason.features
    if known.digest != digest:
        return Reason.digest
    if known.ttl_seconds and now - known.computed >= known.ttl_seconds:
        return Reason.expired
    return Reason.fresh


_RANK = {
    Source.nobody: 0,
    Source.live: 1,
    Source.default: 2,
    Source.stale: 3,
    Source.precomputed: 4,
}


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for a request of several rows: it is answered as its worst row is, and is as old as its oldest.
    One row for which the model has to run has all of them run."""
    worst = min(verdicts, key=lambda verdict: _RANK[verdict.source])
    given = worst.source not in (Source.live, Source.nobody)
    return Verdict(worst.source, worst.reason, max(verdict.age for verdict in verdicts) if given else 0.0)


def contract_signature(contract: Contract) -> str:
    """Digest of what answers mean: names, types and shapes of inputs and outputs, and the outputs' labels."""
    outputs = [(o.name, o.dtype.value, o.shape, o.labels) for o in contract.outputs]
    return hashlib.sha256(msgspec.json.encode([contract.input_signature(), outputs])).hexdigest()


def default_row(outputs: Sequence[Output], values: Mapping[str, Any]) -> Outputs:
    """The configured default as one row. Raises SettingsError naming what is missing, too much or of another kind."""
    names = [output.name for output in outputs]
    wrong = [f"{name} is missing" for name in names if name not in values]
    wrong += [f"{name} is no output" for name in values if name not in names]
    row: Outputs = {}
    for output in outputs:
        if output.name in values:
            try:
                row[output.name] = _default_value(output, values[output.name])
            except (ValueError, TypeError, OverflowError) as error:
                wrong.append(f"{output.name}: {error}")
    if wrong:
        raise SettingsError(
            f"hybrid_default does not fit the model: {'; '.join(wrong)}.",
            hint=f"It gives a value for each of {', '.join(names)}.",
        )
    return row


def _default_value(output: Output, value: Any) -> Array:
    if output.dtype is DType.string:
        array = np.empty((1, *output.shape), dtype=object)
        filled = np.array(value, dtype=object)
        if not all(isinstance(text, str | None) for text in filled.reshape(-1).tolist()):
            raise ValueError("expected text")
        array[0] = filled
        return array
    dtype = "datetime64[us]" if output.dtype is DType.timestamp else output.dtype.value
    exact = np.array(value)
    if dtype != "datetime64[us]" and exact.dtype.kind not in ("b" if dtype == "bool" else "iuf"):
        raise ValueError(f"{value!r:.40} is not {'true or false' if dtype == 'bool' else 'a number'}")
    array = np.array(value, dtype=dtype)[None]
    open_shape = any(size < 0 for size in output.shape)
    if array.ndim != 1 + len(output.shape) or (not open_shape and array.shape[1:] != output.shape):
        raise ValueError(f"expected the shape {list(output.shape)}, got {list(array.shape[1:])}")
    if np.dtype(dtype).kind in "iu" and not np.array_equal(array[0], exact):
        raise ValueError(f"{value!r:.40} is no {output.dtype}")
    return array
