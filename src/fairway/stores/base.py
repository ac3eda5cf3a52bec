"""The ports of the registry: content-addressed blobs, and rows read and written in transactions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from fairway.core.bundle import File
from fairway.core.route import Route
from fairway.core.version import Change, ModelVersion
from fairway.security.keys import AccessKey


class BlobStore(Protocol):
    """Immutable files named by the sha256 of their content, 64 hexadecimal digits.

    A blob is there whole or not at all, whatever happens to the process that stores it. Storing the same
    content twice, also from two processes at once, is one blob. Errors: `StorageFull`, `RegistryUnavailable`.
    """

    @property
    def where(self) -> str:
        """For messages: a path or URL without secrets."""

    def put(self, source: Path) -> str:
        """Stores the file and returns its digest."""

    def fetch(self, digest: str, destination: Path) -> None:
        """Makes the blob a file at `destination`, whose folder exists. The content is checked against the
        digest; `CorruptBundle` when it differs or the blob is missing."""

    def exists(self, digest: str) -> bool: ...

    def size(self, digest: str) -> int:
        """Bytes; `CorruptBundle` when there is no such blob."""

    def digests(self) -> Iterator[str]:
        """Every blob, in no order."""

    def sweep(self, keep: Collection[str], *, older_than_seconds: float) -> int:
        """Removes blobs not in `keep` and abandoned uploads, when older than that. Returns how many."""


class Rows(Protocol):
    """The registry's rows inside one transaction. Verbs only; the rules are the registry's."""

    def revision(self) -> int:
        """Counts up by one with every change; 0 at first."""

    def models(self) -> dict[str, tuple[int, int]]:
        """Model name -> (how many versions, the latest)."""

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Ascending, with their aliases; empty for an unknown model."""

    def version(self, model: str, number: int) -> ModelVersion | None: ...

    def version_with(self, model: str, digest: str) -> ModelVersion | None: ...

    def latest(self, model: str) -> int:
        """The highest version; 0 for an unknown model."""

    def files(self, model: str, number: int) -> dict[str, File]:
        """Relative path -> digest and size of every file of the version's bundle."""

    def kept(self) -> set[str]:
        """The digest of every file of every version."""

    def aliases(self, model: str | None = None) -> dict[str, dict[str, int]]:
        """Model name -> alias -> version; of one model, or of all."""

    def routes(self, model: str | None = None) -> dict[str, Route]: ...

    def changes(self, model: str, *, what: str | None = None, limit: int | None = None) -> tuple[Change, ...]:
        """The newest first."""

    def add_version(self, version: ModelVersion, contents: Mapping[str, File]) -> None:
        """Adds a row that is never changed; `aliases` of the value are not stored."""

    def put_alias(self, model: str, alias: str, number: int | None) -> None:
        """Sets the alias, or removes it when `number` is None."""

    def put_route(self, route: Route) -> None: ...

    def access_keys(self) -> tuple[AccessKey, ...]:
        """Every API key, the revoked ones too, by time of creation."""

    def put_access_key(self, key: AccessKey) -> None:
        """Adds the key, or replaces the one of its id, which must not be revoked. Of one name, one key may be there
        that is not revoked."""

    def append(self, change: Change) -> Change:
        """Adds to the history and counts the revision up; returns the change with its sequence, which is the
        new revision."""


class RegistryDatabase(Protocol):
    """Where the rows are. Both transactions see one consistent state; there is one writer at a time.

    Errors: `RegistryUnavailable` (away, or held by somebody else for longer than the lock timeout),
    `StorageFull`, `CorruptRegistry`, and `NewerFormat` when opened with an older Fairway than wrote it.
    """

    @property
    def where(self) -> str:
        """For messages: a path or URL without secrets."""

    def reading(self) -> AbstractContextManager[Rows]: ...

    def writing(self) -> AbstractContextManager[Rows]:
        """All of the block's writes or, when it raises or the process dies, none of them."""

    def revision(self) -> int: ...

    def close(self) -> None: ...


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
