"""The port of precomputed answers: entries by key, written a generation at a time and read when it is whole.

A run writes one generation. Readers see the one before until `publish`, and from then on, at once, only the new one;
what a run that died has written is never read. What an entry holds is its writer's and reader's affair: here it is
bytes (`fairway.inference.entries` makes them).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from fairway.core.errors import AnswersUnavailable, NewerFormat, SettingsError

FORMAT = 1
KEY_BYTES = 480
"""Longest key. LMDB takes 511."""

BACKENDS = {
    "lmdb": "fairway.stores.answers_lmdb:LmdbAnswers",
    "redis": "fairway.stores.answers_redis:RedisAnswers",
    "rediss": "fairway.stores.answers_redis:RedisAnswers",
    "memory": "fairway.stores.answers_memory:MemoryAnswers",
}
"""URL scheme -> where the backend is."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every answer of one run.

    `digest` and `signature` are those of the version that answered (its bundle, its contract); `layout` is how the
    entries are laid out, made by `fairway.inference.entries`. `began` is in seconds since 1970, `ttl_seconds` how long
    an answer is fresh, 0 for ever. `source` says what was read, so that a run is resumed on the same data."""

    id: str
    model: str
    version: int
    digest: str
    signature: str
    layout: bytes
    began: float
    ttl_seconds: float
    key: str = ""
    source: str = ""
    format: int = FORMAT


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An entry as it was written, and the generation it belongs to."""

    generation: Generation
    entry: bytes


class AnswerWriter(Protocol):
    """One unfinished generation. Errors: `AnswersUnavailable`, `StorageFull`."""

    @property
    def generation(self) -> Generation: ...

    @property
    def mark(self) -> bytes:
        """What the last `write` said; empty before the first."""

    def write(self, entries: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
        """Adds or replaces entries, the later of one key last, and keeps `mark`: both or neither, whatever happens."""

    def keys(self) -> int:
        """How many keys there are."""

    def publish(self) -> None:
        """From now on readers see this generation; the one before is removed. The writer is closed."""

    def close(self) -> None:
        """Leaves what was written for `resume`."""


class AnswerStore(Protocol):
    """The precomputed answers of one model. Safe to use from several threads. Errors: `AnswersUnavailable`."""

    @property
    def where(self) -> str:
        """For messages: a path or URL without secrets."""

    @property
    def may_block(self) -> bool:
        """Whether reading may wait for a network: then never in an event loop."""

    def current(self) -> Generation | None:
        """The generation that readers see."""

    def get(self, key: bytes) -> Stored | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """One for each key, in order, all of the same generation."""

    def begin(self, generation: Generation) -> AnswerWriter:
        """A new generation. On a local store others that were not finished are removed."""

    def resume(self) -> AnswerWriter | None:
        """The unfinished generation that was begun last, if there is one."""

    def delete(self, digest: str | None = None) -> int:
        """Removes generations that a version of this digest has answered, or all; returns how many."""

    def count(self) -> int:
        """How many keys readers find."""

    def remove(self, keys: Sequence[bytes]) -> int:
        """Removes the answers under these keys from what readers see, and leaves nothing of them; returns how many there
        were. Answers that are being written are not touched."""

    def close(self) -> None: ...


def new_id() -> str:
    """A generation's name: later ones sort after earlier ones."""
    return f"{int(time.time() * 1000):012x}-{os.urandom(4).hex()}"


def open_answers(url: str, model: str, *, home: Path, timeout_seconds: float) -> AnswerStore:
    """The store at `url`: `lmdb:///folder`, `redis://host:port/db`, `rediss://...`, `memory://name`; empty means LMDB
    at `<home>/answers`. Nothing is connected to before it is used. Raises SettingsError or MissingExtra."""
    scheme, separator, _ = url.partition("://")
    if not url:
        return _backend("lmdb")(home / "answers", model)
    if not separator or scheme not in BACKENDS:
        raise SettingsError(
            f"{scheme if separator else url!r} is no store of precomputed answers.",
            hint=f"Give a URL that begins with {', '.join(f'{name}://' for name in BACKENDS if name != 'memory')}.",
        )
    if scheme == "lmdb":
        parts = urlsplit(url)
        if parts.netloc or not parts.path.strip("/"):
            raise SettingsError(
                f"{url!r} names no folder.", hint="Write lmdb:///a/folder, with three slashes."
            )
        return _backend("lmdb")(Path(unquote(parts.path)), model)
    if scheme == "memory":
        return _backend("memory")(url, model)
    return _backend(scheme)(url, model, timeout_seconds=timeout_seconds)


def read_generation(content: bytes, where: str) -> Generation:
    """A stored generation. Raises NewerFormat, or AnswersUnavailable when it is damaged."""
    try:
        version = msgspec.msgpack.decode(content, type=_Format).format
        if version > FORMAT:
            raise NewerFormat(
                f"{where} was written in format {version}; this Fairway reads up to {FORMAT}.",
                hint="Update Fairway here, or precompute again with this version.",
            )
        return msgspec.msgpack.decode(content, type=Generation)
    except msgspec.MsgspecError as error:
        raise AnswersUnavailable(
            f"{where} does not hold precomputed answers, or is damaged: {error}.",
            hint="Precompute them again.",
        ) from error


class _Format(msgspec.Struct):
    format: int = FORMAT


def _backend(scheme: str) -> Callable[..., AnswerStore]:
    module, _, attribute = BACKENDS[scheme].partition(":")
    backend: Callable[..., AnswerStore] = getattr(import_module(module), attribute)
    return backend
