"""What the audit sees on a pickle's stack: constants as they are, everything else as an inert stand-in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Global:
    """A name the pickle asked for; nothing was imported."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Object:
    """What calling or instantiating a global would have made.

    `maker` is the class, or the function where no class is known. `value` holds what the audit worked out
    about it (the dtype of a `numpy.dtype`). `built` tells that its state was set: a pickler does so once.
    """

    maker: Global
    arguments: tuple[Any, ...] = ()
    value: Any = None
    built: bool = False


@dataclass(eq=False)
class Mapping:
    """A dict: entries with a constant string key by that key, the rest in order. No key is ever hashed."""

    named: dict[str, Any] = field(default_factory=dict)
    others: list[tuple[Any, Any]] = field(default_factory=list)

    def set(self, key: Any, value: Any) -> None:
        if type(key) is str:
            self.named[key] = value
        else:
            self.others.append((key, value))


@dataclass(eq=False)
class Group:
    """A set or frozenset; its items are of no consequence to the audit."""

    items: list[Any] = field(default_factory=list)


Constant = (str, bytes, bytearray, int, float, complex, bool, type(None))


def is_plain(value: Any, budget: int = 1000) -> bool:
    """Whether a value is made of constants, tuples and lists alone; gives up on large ones."""
    pending = [value]
    while pending:
        budget -= 1
        if budget < 0:
            return False
        item = pending.pop()
        if isinstance(item, (tuple, list)):
            pending.extend(item)
        elif not isinstance(item, Constant):
            return False
    return True
