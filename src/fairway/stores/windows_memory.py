"""Windows in this process's memory: for tests and for embedding without a disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from fairway.stores.windows import MOST_WINDOWS, WatchedWindow, WindowKey


class MemoryWindows:
    """Safe from any thread."""

    where = "memory"

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._windows: dict[WindowKey, WatchedWindow] = {}
        self._marks: dict[str, str] = {}

    def put(self, windows: Sequence[WatchedWindow]) -> None:
        with self._guard:
            self._windows |= {window.key: window for window in windows}

    def summaries(
        self,
        model: str,
        *,
        version: int | None = None,
        since: str = "",
        until: str = "",
        limit: int = MOST_WINDOWS,
    ) -> tuple[WatchedWindow, ...]:
        found = self._of(model, version, since, until)[-limit:] if limit else []
        return tuple(msgspec.structs.replace(window, report=b"", profile=b"") for window in found)

    def window(self, key: WindowKey) -> WatchedWindow | None:
        return self._windows.get(key)

    def latest(self, model: str, version: int | None = None) -> WatchedWindow | None:
        found = self._of(model, version)
        return found[-1] if found else None

    def profiles(
        self, model: str, *, version: int, since: str, until: str, limit: int = MOST_WINDOWS
    ) -> tuple[tuple[str, bytes], ...]:
        found = [window for window in self._of(model, version, since, until) if window.profile]
        return tuple((window.key.start, window.profile) for window in found[-limit:])

    def watched(self, *, until: str = "") -> tuple[WindowKey, ...]:
        last: dict[tuple[str, int, str], WindowKey] = {}
        with self._guard:
            keys = sorted(self._windows, key=lambda key: (key.model, key.version, key.digest, key.start))
        for key in keys:
            if not until or key.start < until:
                last[key.model, key.version, key.digest] = key
        return tuple(last.values())

    def mark(self, name: str) -> str:
        return self._marks.get(name, "")

    def put_mark(self, name: str, value: str) -> None:
        self._marks[name] = value

    def prune(self, before: str) -> int:
        with self._guard:
            old = [key for key in self._windows if key.start < before]
            for key in old:
                del self._windows[key]
        return len(old)

    def close(self) -> None:
        return

    def _of(self, model: str, version: int | None, since: str = "", until: str = "") -> list[WatchedWindow]:
        with self._guard:
            windows = [*self._windows.values()]
        found = [
            window
            for window in windows
            if window.key.model == model
            and version in (None, window.key.version)
            and since <= window.key.start
            and (not until or window.key.start < until)
        ]
        return sorted(found, key=lambda window: (window.key.start, window.key.version, window.key.digest))
