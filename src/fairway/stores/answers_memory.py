"""Precomputed answers in this process's memory, by URL: everything that opens `memory://x` sees the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from fairway.stores.answers import Generation, Stored


class _Held:
    """One generation."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.entries: dict[bytes, bytes] = {}
        self.mark = b""


class _Model:
    """All generations of one model at one URL."""

    def __init__(self) -> None:
        self.current: _Held | None = None
        self.unfinished: dict[str, _Held] = {}


_MODELS: dict[tuple[str, str], _Model] = {}
_LOCK = threading.Lock()


class MemoryAnswers:
    may_block = False

    def __init__(self, url: str, model: str) -> None:
        self.where = url
        with _LOCK:
            self._model = _MODELS.setdefault((url, model), _Model())

    def current(self) -> Generation | None:
        held = self._model.current
        return None if held is None else held.generation

    def get(self, key: bytes) -> Stored | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        held = self._model.current
        if held is None:
            return [None] * len(keys)
        found = [held.entries.get(key) for key in keys]
        return [None if entry is None else Stored(held.generation, entry) for entry in found]

    def begin(self, generation: Generation) -> MemoryWriter:
        held = _Held(generation)
        with _LOCK:
            self._model.unfinished.clear()
            self._model.unfinished[generation.id] = held
        return MemoryWriter(self._model, held)

    def resume(self) -> MemoryWriter | None:
        with _LOCK:
            latest = max(self._model.unfinished, default=None)
            return None if latest is None else MemoryWriter(self._model, self._model.unfinished[latest])

    def delete(self, digest: str | None = None) -> int:
        with _LOCK:
            model = self._model
            gone = [name for name, held in model.unfinished.items() if _is_of(held, digest)]
            for name in gone:
                del model.unfinished[name]
            if model.current is not None and _is_of(model.current, digest):
                model.current = None
                return len(gone) + 1
            return len(gone)

    def count(self) -> int:
        held = self._model.current
        return 0 if held is None else len(held.entries)

    def remove(self, keys: Sequence[bytes]) -> int:
        with _LOCK:
            held = self._model.current
            return 0 if held is None else sum(held.entries.pop(key, None) is not None for key in keys)

    def close(self) -> None:
        return


class MemoryWriter:
    def __init__(self, model: _Model, held: _Held) -> None:
        self._model = model
        self._held = held

    @property
    def generation(self) -> Generation:
        return self._held.generation

    @property
    def mark(self) -> bytes:
        return self._held.mark

    def write(self, entries: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
        added = dict(entries)  # what fails while it is made has written nothing
        with _LOCK:
            self._held.entries.update(added)
            self._held.mark = mark

    def keys(self) -> int:
        return len(self._held.entries)

    def publish(self) -> None:
        with _LOCK:
            self._model.current = self._held
            self._model.unfinished.pop(self._held.generation.id, None)

    def close(self) -> None:
        return


def _is_of(held: _Held, digest: str | None) -> bool:
    return digest is None or held.generation.digest == digest
