"""The answers that were computed ahead for one model, as a worker holds them: looked up, judged, counted."""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import (
    AnswerNotFound,
    AnswersUnavailable,
    FairwayError,
    InvalidInput,
    NewerFormat,
    Overloaded,
    SettingsError,
)
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.entries import (
    HEAD_BYTES,
    computed_at,
    decode_entry,
    decode_rows,
    features_of,
    read_head,
)
from fairway.inference.freshness import (
    Known,
    Policy,
    Reason,
    Source,
    Verdict,
    contract_signature,
    decide,
    default_row,
    together,
)
from fairway.stores.answers import AnswerStore, Generation, Stored, open_answers
from fairway.stores.counters import Counters

logger = logging.getLogger("fairway.answers")

AGES = (60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0)
"""Upper bounds of the histogram of answers' ages, seconds."""
_WARN_SECONDS = 30.0
_STORED, _FRESH = Source.precomputed, Reason.fresh
_FROM_STORE = frozenset([Source.precomputed, Source.stale])


class Version(Protocol):
    """What is asked of a live version here."""

    digest: str
    contract: Contract


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One request: its keys (`entries.key_bytes`), one a row, in order, and its validated features, None when it has
    none. `overloaded`: the model cannot be run now."""

    keys: Sequence[bytes]
    columns: Columns | None = None
    overloaded: bool = False


class Found(msgspec.Struct, frozen=True, gc=False):
    """Who answers a request. `outputs` are there unless the source is `live`; `age` is in seconds, the oldest row's,
    0 for `live` and `default`; `overloaded` says that it was asked for instead of a 503."""

    source: Source
    reason: Reason
    age: float = 0.0
    outputs: Outputs | None = None
    overloaded: bool = False


UNKEYED = Found(Source.live, Reason.unkeyed)
"""A request that cannot be looked up."""


class Looked(msgspec.Struct, frozen=True, gc=False):
    """What was found for several requests: a result each, in order. The fresh answers to requests of one key and no
    features are decoded at once: `together` are their places, `outputs` has a row for each, and their Found has none."""

    results: list[Found | FairwayError]
    together: list[int]
    outputs: Outputs


class Precomputed:
    """The precomputed answers of one model, as a worker asks for them. Safe to use from several threads.

    A store that is away is asked again after `retry_seconds`; meanwhile it has no answers. Counts
    `fairway_answers_total` by model and source, `fairway_answers_missed_total` by model and reason,
    `fairway_answers_overload_total`, the ages of what was given, and the gauge `fairway_answers_store_up`.
    """

    def __init__(
        self,
        model: str,
        store: AnswerStore,
        policy: Policy,
        counters: Counters,
        *,
        key_name: str,
        default: Mapping[str, Any] | None = None,
        retry_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.policy = policy
        self.key_name = key_name
        """What a request calls its key."""
        self.may_block = store.may_block
        """Whether `find` may wait for a network: then never in an event loop."""
        self._store = store
        self._default = default
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._ask_again = 0.0
        self._warned = {"away": -math.inf, "overload": -math.inf}
        self._version: tuple[str, str, Outputs] | None = None
        labels = (("model", model),)
        slot = counters.slot
        self._counters = counters
        self._sources = {
            source: slot("fairway_answers_total", (*labels, ("source", source.value))) for source in Source
        }
        self._reasons = {
            reason: slot("fairway_answers_missed_total", (*labels, ("reason", reason.value)))
            for reason in Reason
            if reason is not Reason.fresh
        }
        bounds = [*(f"{age:g}" for age in AGES), "+Inf"]
        self._ages = [
            slot("fairway_answers_age_seconds_bucket", (*labels, ("le", bound))) for bound in bounds
        ]
        self._age_sum = slot("fairway_answers_age_seconds_sum", labels)
        self._overloads = slot("fairway_answers_overload_total", labels)
        self._up = slot("fairway_answers_store_up", labels)
        counters.values[self._up] = 1.0

    def find(
        self, keys: Sequence[bytes], version: Version, columns: Columns | None, *, overloaded: bool = False
    ) -> Found:
        """Who answers one request; see `Ask`.

        After `live` the caller runs the model; if that is Overloaded, it asks again with `overloaded`, for what may be
        given instead. Raises AnswerNotFound when there are no features and nothing else to answer with,
        AnswersUnavailable when that is because the store is away, Overloaded, and InvalidInput when there is not one key
        a row. Call `answered` with what was in the end answered.
        """
        (found,) = self.find_all([Ask(keys, columns, overloaded)], version).results
        if isinstance(found, FairwayError):
            raise found
        return found

    def find_all(self, asked: Sequence[Ask], version: Version) -> Looked:
        """As `find` for several requests of one version, with one question to the store."""
        about = self._about(version)
        stored, away = self._stored([key for ask in asked for key in ask.keys])
        results: list[Found | FairwayError] = []
        together: list[int] = []
        kept: list[Stored] = []
        now = self._clock()
        lives: dict[int, float] = {}
        several = len(asked) > 1
        begin = 0
        for place, ask in enumerate(asked):
            end = begin + len(ask.keys)
            if several and end - begin == 1 and ask.columns is None:
                one = stored[begin]
                if one is not None:
                    generation = one.generation
                    life = lives.get(id(generation))
                    if life is None:
                        life = lives[id(generation)] = self._life(about, generation, now)
                    if len(one.entry) > HEAD_BYTES:
                        age = now - computed_at(one.entry)
                        if age < life:
                            together.append(place)
                            kept.append(one)
                            results.append(Found(_STORED, _FRESH, max(0.0, age), None, ask.overloaded))
                            begin = end
                            continue
            mine = stored[begin:end]
            begin = end
            try:
                results.append(self._found(about, ask, mine, away=away))
            except FairwayError as error:
                results.append(error)
        outputs = _decoded_together(kept) if kept else {}
        if outputs is not None:
            return Looked(results, together, outputs)
        for place, one in zip(together, kept, strict=True):  # not all of one shape: each is read for itself
            try:
                results[place] = self._found(about, asked[place], [one], away=False)
            except FairwayError as error:
                results[place] = error
        return Looked(results, [], {})

    def _life(self, about: tuple[str, str, Outputs], generation: Generation, now: float) -> float:
        """How young an answer of this generation has to be to be given to a request without features, seconds: only the
        time that it was computed at tells its answers apart."""
        digest, signature, _ = about
        ttl = generation.ttl_seconds
        known = Known(generation.digest, generation.signature, now, ttl, b"")
        verdict = decide(
            known, now=now, digest=digest, signature=signature, features=None, policy=self.policy
        )
        if verdict.source is not Source.precomputed:
            return -math.inf
        return ttl or math.inf

    def _found(
        self, about: tuple[str, str, Outputs], ask: Ask, stored: Sequence[Stored | None], *, away: bool
    ) -> Found:
        """Who answers a request of which this is stored."""
        keys, columns = ask.keys, ask.columns
        if not keys or (columns is not None and columns.rows != len(keys)):
            rows = "no rows" if columns is None else f"{columns.rows} rows"
            raise InvalidInput(
                f"the request has {len(keys)} keys ({self.key_name}) and {rows}.", hint="Give one a row."
            )
        hashes: Sequence[bytes | None] = [None] * len(keys) if columns is None else features_of(columns)
        overloaded = ask.overloaded
        try:
            verdicts, outputs = self._judge(about, stored, hashes, overloaded=overloaded, away=away)
        except AnswersUnavailable as error:  # what is stored is damaged
            self._went_away(error)
            nothing: list[Stored | None] = [None] * len(keys)
            verdicts, outputs = self._judge(about, nothing, hashes, overloaded=overloaded, away=True)
        verdict = verdicts[0] if len(verdicts) == 1 else together(verdicts)
        if verdict.source is Source.nobody:
            with self._counters.lock:
                self._add(verdict.reason, Source.nobody)
            raise self._refusal(keys, verdicts, columns is not None and overloaded)
        return Found(verdict.source, verdict.reason, verdict.age, outputs, overloaded)

    def answered(self, *given: Found) -> None:
        """Counts answers that were given."""
        values = self._counters.values
        overloaded = 0
        with self._counters.lock:
            for found in given:
                self._add(found.reason, found.source)
                if found.source in _FROM_STORE:
                    values[self._ages[bisect_left(AGES, found.age)]] += 1.0
                    values[self._age_sum] += found.age
                overloaded += found.overloaded
            values[self._overloads] += overloaded
        if overloaded:
            self._warn("overload", "%s is overloaded: requests are answered from the store", self.model)

    def close(self) -> None:
        self._store.close()

    def _stored(self, keys: Sequence[bytes]) -> tuple[list[Stored | None], bool]:
        """What the store has, and whether it is away."""
        nothing: list[Stored | None] = [None] * len(keys)
        if not keys:
            return nothing, False
        if self._ask_again and self._monotonic() < self._ask_again:
            return nothing, True
        try:
            found = [self._store.get(keys[0])] if len(keys) == 1 else self._store.get_many(keys)
        except (AnswersUnavailable, NewerFormat) as error:
            self._went_away(error)
            return nothing, True
        if self._ask_again:
            self._ask_again = 0.0
            self._counters.values[self._up] = 1.0
            logger.warning("the precomputed answers of %s can be used again", self.model)
        return found, False

    def _went_away(self, error: Exception) -> None:
        self._ask_again = self._monotonic() + self._retry_seconds
        self._counters.values[self._up] = 0.0
        self._warn("away", "the precomputed answers of %s cannot be used: %s", self.model, error)

    def _judge(
        self,
        about: tuple[str, str, Outputs],
        stored: Sequence[Stored | None],
        hashes: Sequence[bytes | None],
        *,
        overloaded: bool,
        away: bool,
    ) -> tuple[list[Verdict], Outputs | None]:
        """A verdict a row, and the outputs of all, unless the model or nobody answers."""
        digest, signature, default = about
        now, policy = self._clock(), self.policy
        verdicts: list[Verdict] = []
        rows: list[Outputs] = []
        for one, features in zip(stored, hashes, strict=True):
            verdict = decide(
                None if one is None else _known(one),
                now=now,
                digest=digest,
                signature=signature,
                features=features,
                policy=policy,
                overloaded=overloaded,
                away=away,
            )
            verdicts.append(verdict)
            if verdict.source in _FROM_STORE and one is not None:
                rows.append(_outputs(one))
            elif verdict.source is Source.default:
                rows.append(default)
        return verdicts, _stacked(rows) if len(rows) == len(verdicts) else None

    def _about(self, version: Version) -> tuple[str, str, Outputs]:
        """Digest, signature and default of a version; worked out when it is another one than the last time."""
        known = self._version
        if known is None or known[0] != version.digest:
            contract = version.contract
            default = {} if self._default is None else default_row(contract.outputs, self._default)
            known = self._version = version.digest, contract_signature(contract), default
        return known

    def _refusal(
        self, keys: Sequence[bytes], verdicts: Sequence[Verdict], overloaded: bool
    ) -> AnswerNotFound | AnswersUnavailable | Overloaded:
        if overloaded:
            return Overloaded(
                f"{self.model} has more requests than it can answer, and no precomputed answer may stand in.",
                hint="Try again in a second.",
            )
        why = [verdict for verdict in verdicts if verdict.source is Source.nobody]
        if any(verdict.reason is Reason.away for verdict in why):
            return AnswersUnavailable(
                f"the precomputed answers of {self.model} cannot be read now, and the request has no features.",
                hint="Try again in a second, or send the features.",
            )
        key = next(
            key for key, verdict in zip(keys, verdicts, strict=True) if verdict.source is Source.nobody
        )
        what = _WHY.get(why[0].reason, "there is no fresh answer")
        more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
        return AnswerNotFound(
            f"{self.model} has no answer for {self.key_name} {key.decode(errors='replace')[:80]!r}{more}: {what}.",
            hint="Send the features and the model answers.",
        )

    def _add(self, reason: Reason, source: Source) -> None:
        """Under the counters' lock."""
        values = self._counters.values
        values[self._sources[source]] += 1.0
        if reason is not Reason.fresh:
            values[self._reasons[reason]] += 1.0

    def _warn(self, about: str, message: str, *values: object) -> None:
        """At most twice a minute: under overload there are thousands."""
        now = self._monotonic()
        if now - self._warned[about] >= _WARN_SECONDS:
            self._warned[about] = now
            logger.error(message, *values)


_WHY = {
    Reason.missing: "nothing was precomputed for it",
    Reason.expired: "what was precomputed has expired",
    Reason.digest: "what was precomputed is another version's",
    Reason.contract: "what was precomputed is of another contract",
}


def _known(stored: Stored) -> Known:
    computed, features = read_head(stored.entry)
    generation: Generation = stored.generation
    return Known(generation.digest, generation.signature, computed, generation.ttl_seconds, features)


def _outputs(stored: Stored) -> Outputs:
    return decode_entry(stored.entry, stored.generation.layout).outputs


def _decoded_together(stored: Sequence[Stored]) -> Outputs | None:
    """The outputs of entries of one layout, a row each; None where they have to be read one by one."""
    layout = stored[0].generation.layout
    if any(one.generation.layout != layout for one in stored):
        return None
    return decode_rows([one.entry for one in stored], layout)


def _stacked(rows: Sequence[Outputs]) -> Outputs:
    if len(rows) == 1:
        return rows[0]
    try:
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    except (KeyError, ValueError) as error:
        raise AnswersUnavailable(f"the answers to these keys do not fit together: {error}.") from error


def policy_of(model: str, own: ModelSettings) -> Policy:
    """What the settings say of a model. Raises SettingsError when a default is to be given and there is none."""
    if own.hybrid_default is None and "default" in (own.hybrid_missing, own.hybrid_overload):
        raise SettingsError(
            f"[models.{model}] gives a default answer and has none.",
            hint="Set hybrid_default, such as { prediction = 0.0 }.",
        )
    return Policy(
        prefer=own.hybrid_prefer,
        missing=own.hybrid_missing,
        overload=own.hybrid_overload,
        stale_seconds=own.hybrid_stale_seconds,
    )


def check_default(settings: Settings, model: str, contract: Contract) -> None:
    """For who loads a version: raises SettingsError when the model's default does not fit what the version gives."""
    own = settings.models.get(model)
    if own is not None and own.hybrid_key and own.hybrid_default is not None:
        default_row(contract.outputs, own.hybrid_default)


def store_url(settings: Settings, model: str) -> str:
    """Where the answers of a model are; empty for LMDB at home."""
    own = settings.models.get(model)
    return settings.hybrid.store if own is None or own.hybrid_store is None else own.hybrid_store


def open_precomputed(settings: Settings, model: str, counters: Counters) -> Precomputed | None:
    """What a worker holds for a model, or None for one that has no `hybrid_key`. The store is not asked yet. Raises
    SettingsError or MissingExtra."""
    own = settings.models.get(model)
    if own is None or not own.hybrid_key:
        return None
    policy = policy_of(model, own)
    hybrid = settings.hybrid
    url, home = store_url(settings, model), Path(settings.home)
    store = open_answers(url, model, home=home, timeout_seconds=hybrid.timeout_seconds)
    return Precomputed(
        model,
        store,
        policy,
        counters,
        key_name=own.hybrid_key,
        default=own.hybrid_default,
        retry_seconds=hybrid.retry_seconds,
    )
