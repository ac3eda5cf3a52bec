"""Which versions are in memory: what to load, keep and let go. Pure, so that its laws can be tested."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec


class Key(NamedTuple):
    """A version and what it is made of: the same number with another digest is another thing to load."""

    model: str
    version: int
    digest: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A version that may be in memory. `bytes` is what it took when it was last there, or the size of its files."""

    key: Key
    bytes: int
    eager: bool = False
    """To be loaded now if there is room beside what is there."""
    must: bool = False
    """Somebody waits for it, or it takes the place of one that serves: others make room for it."""
    pinned: bool = False
    """Never let go while it is wanted. Pinned and `eager` is `must`."""


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """A version in memory. `used` is when it last predicted; any clock will do."""

    key: Key
    bytes: int
    used: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`unload` goes first where room is needed. `refused` are those that must be loaded and do not fit."""

    keep: tuple[Key, ...]
    load: tuple[Key, ...]
    unload: tuple[Key, ...]
    refused: tuple[Key, ...]


def plan_residency(wanted: Sequence[Wanted], residents: Sequence[Resident], budget: int) -> Plan:
    """What to load and unload so that `budget` bytes are not exceeded; 0 is no limit.

    A resident that nobody wants any more goes. Of the rest, those used least recently go first, and only for a
    version that must come in; pinned ones and those that must be there stay. A version refused costs nobody its
    place. What is loaded beside others (`eager`) comes after what must be, each in the order given.
    """
    by_key = {want.key: want for want in wanted}
    stay = {resident.key: resident for resident in residents if resident.key in by_key}
    gone = [resident.key for resident in residents if resident.key not in by_key]
    total = sum(resident.bytes for resident in stay.values())
    loads: list[Key] = []
    refused: list[Key] = []
    for want in sorted((w for w in wanted if w.key not in stay), key=lambda w: not _must(w)):
        if not (want.eager or want.must):
            continue
        if not budget or total + want.bytes <= budget:
            out: list[Resident] | None = []
        elif _must(want):
            movable = [stay[key] for key in stay if not (by_key[key].pinned or by_key[key].must)]
            out = _make_room(movable, total + want.bytes - budget)
            if out is None:
                refused.append(want.key)
        else:
            out = None
        if out is None:
            continue
        for resident in out:
            del stay[resident.key]
            gone.append(resident.key)
        total += want.bytes - sum(resident.bytes for resident in out)
        loads.append(want.key)
    return Plan(keep=tuple(stay), load=tuple(loads), unload=tuple(gone), refused=tuple(refused))


def over_budget(residents: Sequence[Resident], stay: Collection[Key], budget: int) -> list[Key] | None:
    """Which have to go, least recently used first, so that `budget` holds for what was measured; none when it does.
    None when it would not hold with `stay` alone."""
    excess = sum(resident.bytes for resident in residents) - budget
    if not budget or excess <= 0:
        return []
    out = _make_room([resident for resident in residents if resident.key not in stay], excess)
    return None if out is None else [resident.key for resident in out]


def _must(want: Wanted) -> bool:
    return want.must or (want.pinned and want.eager)


def _make_room(residents: Sequence[Resident], needed: int) -> list[Resident] | None:
    """The least recently used that free `needed` bytes together; None when all of them do not."""
    out: list[Resident] = []
    for resident in sorted(residents, key=lambda r: r.used):
        if needed <= 0:
            break
        out.append(resident)
        needed -= resident.bytes
    return out if needed <= 0 else None
