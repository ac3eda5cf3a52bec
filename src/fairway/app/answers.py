"""Precomputed answers that are stored: what there is, what a key would be answered with, and how to get rid of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from fairway.app.home import Home, open_home
from fairway.core.columns import Array
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput, ModelNotFound
from fairway.core.version import ModelVersion, check_model_name, parse_reference
from fairway.inference.entries import decode_entry, key_bytes
from fairway.inference.freshness import Known, Policy, contract_signature, decide
from fairway.inference.precomputed import store_url
from fairway.packaging.bundle import read_bundle
from fairway.stores.answers import AnswerStore, Generation, Stored, open_answers

_STORE_SECONDS = 5.0
"""Longest that one question to a store on another machine may take here, where nobody waits for an answer."""


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored under a key. `standing` is `fresh`, or why a request without features would not get it: `missing`,
    `expired`, `digest` (another version computed it) or `contract`. `outputs` are the values by output."""

    key: str
    standing: str
    version: int | None = None
    digest: str = ""
    age_seconds: float = 0.0
    fresh_seconds: float | None = None
    """How long it stays fresh, None for ever."""
    outputs: dict[str, Any] = {}


class StoredAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of a model that readers see; without any, `keys` is 0 and there is no `generation`."""

    model: str
    store: str
    keys: int
    generation: str = ""
    version: int | None = None
    digest: str = ""
    key_name: str = ""
    """The column that the keys were read from."""
    age_seconds: float = 0.0
    """Since the run that computed them began."""
    ttl_seconds: float = 0.0
    live_version: int | None = None
    """The version with the most traffic; answers of another one are not fresh."""


def stored_answers(
    model: str, *, store: str | None = None, home: str | os.PathLike[str] | None = None
) -> StoredAnswers:
    """What is stored of a model. Raises AnswersUnavailable, SettingsError or MissingExtra."""
    with open_home(home) as place, _opened(place, model, store) as answers:
        live = _live(place, model)
        found = answers.current()
        told = StoredAnswers(
            model=model, store=answers.where, keys=0, live_version=None if live is None else live.version
        )
        if found is None:
            return told
        return msgspec.structs.replace(
            told,
            keys=answers.count(),
            generation=found.id,
            version=found.version,
            digest=found.digest,
            key_name=found.key,
            age_seconds=max(0.0, time.time() - found.began),
            ttl_seconds=found.ttl_seconds,
        )


def look_up(
    model: str,
    keys: Sequence[str],
    *,
    store: str | None = None,
    home: str | os.PathLike[str] | None = None,
) -> list[StoredAnswer]:
    """What is stored under each key, in order. Raises as `stored_answers`, and InvalidInput for what is no key."""
    asked = [key_bytes(key) for key in keys]
    with open_home(home) as place, _opened(place, model, store) as answers:
        live = _live(place, model)
        about = None if live is None else (live.digest, contract_signature(_contract(place, live)))
        found = answers.get_many(asked)
        return [_told(key, stored, about) for key, stored in zip(keys, found, strict=True)]


def delete_answers(
    model: str,
    keys: Sequence[str] = (),
    *,
    version: int | None = None,
    everything: bool = False,
    store: str | None = None,
    home: str | os.PathLike[str] | None = None,
) -> int:
    """Deletes the answers under `keys`, and returns how many there were; or the generations that `version` has answered,
    or with `everything` all of them, and returns how many generations there were. Raises as `look_up`."""
    if (bool(keys), version is not None, everything).count(True) != 1:
        raise InvalidInput(
            "Nothing says what to delete.", hint="Give keys, a version, or say that it is all."
        )
    asked = [key_bytes(key) for key in keys]
    with open_home(home) as place, _opened(place, model, store) as answers:
        if asked:
            return answers.remove(asked)
        digest = None
        if version is not None:
            digest = place.registry.resolve(parse_reference(f"{model}:{version}")).digest
        return answers.delete(digest)


@contextmanager
def _opened(place: Home, model: str, store: str | None) -> Iterator[AnswerStore]:
    check_model_name(model)
    url = store_url(place.settings, model) if store is None else store
    answers = open_answers(url, model, home=place.path, timeout_seconds=_STORE_SECONDS)
    try:
        yield answers
    finally:
        answers.close()


def _live(place: Home, model: str) -> ModelVersion | None:
    """The version with the most traffic; None for a model that has none."""
    try:
        return place.find(model)
    except ModelNotFound:
        return None


def _contract(place: Home, version: ModelVersion) -> Contract:
    return read_bundle(place.registry.fetch(version), check_files=False).contract


def _told(key: str, stored: Stored | None, live: tuple[str, str] | None) -> StoredAnswer:
    """`live` is the digest of the live version and the signature of its contract."""
    if stored is None:
        return StoredAnswer(key=key, standing="missing")
    generation: Generation = stored.generation
    entry = decode_entry(stored.entry, generation.layout)
    now, ttl = time.time(), generation.ttl_seconds
    known = Known(generation.digest, generation.signature, entry.computed, ttl, entry.features)
    digest, signature = live or ("", "")
    verdict = decide(
        known, now=now, digest=digest, signature=signature, features=None, policy=Policy(missing="stale")
    )
    age = max(0.0, now - entry.computed)
    return StoredAnswer(
        key=key,
        standing=verdict.reason.value,
        version=generation.version,
        digest=generation.digest,
        age_seconds=age,
        fresh_seconds=max(0.0, ttl - age) if ttl else None,
        outputs={name: _plain(values) for name, values in entry.outputs.items()},
    )


def _plain(values: Array) -> Any:
    """The one row of an output, as JSON knows it."""
    row = values[0]
    if values.dtype.kind == "M":
        return row.astype(str).tolist() if values.ndim > 1 else str(row)
    return row.tolist() if hasattr(row, "tolist") else row
