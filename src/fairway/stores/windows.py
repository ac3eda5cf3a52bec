"""The port of what monitors saw: one row a version and window of time, and the marks up to which they have looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

MOST_WINDOWS = 20_000
"""Most windows that are given at once."""


class WindowKey(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A version's window; `start` is text as `core.clock` writes it."""

    model: str
    version: int
    digest: str
    start: str


class WatchedWindow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A window of `rows` predictions with `key.start <= time < end`. `summary` is small and read for many windows at
    once; `report` is all that was seen; `profile` are its rows as sketches. Their forms are the monitor's."""

    key: WindowKey
    end: str
    rows: int
    summary: bytes
    report: bytes = b""
    profile: bytes = b""


class WindowStore(Protocol):
    """Errors of all: as `RegistryDatabase`."""

    @property
    def where(self) -> str:
        """For messages: a path or URL without secrets."""

    def put(self, windows: Sequence[WatchedWindow]) -> None:
        """Adds them, or replaces those of their keys. All or none."""

    def summaries(
        self,
        model: str,
        *,
        version: int | None = None,
        since: str = "",
        until: str = "",
        limit: int = MOST_WINDOWS,
    ) -> tuple[WatchedWindow, ...]:
        """Without reports and profiles; those with `since <= start < until`, the latest `limit`, the oldest first."""

    def window(self, key: WindowKey) -> WatchedWindow | None: ...

    def latest(self, model: str, version: int | None = None) -> WatchedWindow | None:
        """The whole of the one that begins last."""

    def profiles(
        self, model: str, *, version: int, since: str, until: str, limit: int = MOST_WINDOWS
    ) -> tuple[tuple[str, bytes], ...]:
        """Start and profile of windows that have one, the oldest first."""

    def watched(self, *, until: str = "") -> tuple[WindowKey, ...]:
        """The last window of each version of each model; of those with `start < until`."""

    def mark(self, name: str) -> str:
        """Empty at first."""

    def put_mark(self, name: str, value: str) -> None: ...

    def prune(self, before: str) -> int:
        """Forgets windows that begin earlier; returns how many."""

    def close(self) -> None: ...
