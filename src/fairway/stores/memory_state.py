"""Transactions on state that lives in this process's memory: many read, one writes, a failed write leaves nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, Self, TypeVar

from fairway.core.errors import RegistryUnavailable


class Copied(Protocol):
    def copy(self) -> Self: ...


State = TypeVar("State", bound=Copied)
Rows = TypeVar("Rows")


class MemoryState(Generic[State, Rows]):
    """`rows` shows a state to its reader or writer; `what` is what messages call it. A writer works on a copy, so what
    readers hold stays as it is, and the copy takes the state's place when the block ends well."""

    def __init__(
        self, state: State, rows: Callable[[State], Rows], what: str, *, lock_timeout_seconds: float
    ) -> None:
        self._state = state
        self._rows = rows
        self._what = what
        self._writer = threading.Lock()
        self._timeout = lock_timeout_seconds

    @property
    def where(self) -> str:
        return "memory"

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        yield self._rows(self._state)

    @contextmanager
    def writing(self) -> Iterator[Rows]:
        """Raises RegistryUnavailable when another thread writes for longer than the timeout."""
        if not self._writer.acquire(timeout=self._timeout):
            raise RegistryUnavailable(
                f"Another thread has held {self._what} in memory for {self._timeout:g} s.", hint="Try again."
            )
        try:
            state = self._state.copy()
            yield self._rows(state)
            self._state = state
        finally:
            self._writer.release()

    def close(self) -> None:
        return
