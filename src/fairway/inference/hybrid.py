"""The precomputed answers of every model that has any: which request is looked up, and where that may be waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairway.core.columns import Columns
from fairway.core.errors import Overloaded
from fairway.core.request import Request
from fairway.core.settings import Settings
from fairway.inference.entries import key_bytes
from fairway.inference.freshness import Reason, Source
from fairway.inference.lookups import LookUps, Question
from fairway.inference.precomputed import Ask, Found, Looked, Precomputed, Version, open_precomputed
from fairway.stores.counters import Counters

MOST_AT_ONCE = 64
"""Keys of one request that are looked up in an event loop; a look-up takes some 5 us."""
_ONE_ROW = Columns((), 1, arrays=())
_AWAY = Found(Source.live, Reason.away)


class Hybrid:
    """Safe to use from several threads. Raises SettingsError or MissingExtra for a store that cannot be opened; none is
    asked yet."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._held: dict[str, Precomputed] = {}
        for model in settings.models:
            held = open_precomputed(settings, model, counters)
            if held is not None:
                self._held[model] = held
        self._look_ups = {model: LookUps(held, settings.serving.queue) for model, held in self._held.items()}

    def waits(self, model: str, ask: Ask) -> bool:
        """Whether a look-up would hold up an event loop: its store is across a network, or it is of many keys."""
        return self._held[model].may_block or len(ask.keys) > MOST_AT_ONCE

    def find_all(self, model: str, asked: Sequence[Ask], version: Version) -> Looked:
        """See `Precomputed.find_all`."""
        return self._held[model].find_all(asked, version)

    def find(self, model: str, ask: Ask, version: Version) -> Found:
        """See `Precomputed.find`."""
        return self._held[model].find(ask.keys, version, ask.columns, overloaded=ask.overloaded)

    def begin(
        self,
        model: str,
        ask: Ask,
        version: Version,
        done: Callable[[Found | Exception], None],
        cancelled: Callable[[], bool],
    ) -> None:
        """Has it looked up in a thread, which then calls `done`. When too many wait for that, the model answers what has
        features; the rest is refused: Overloaded."""
        try:
            self._look_ups[model].put(Question(ask, version, done, cancelled))
        except Overloaded:
            if ask.columns is None or ask.overloaded:
                raise
            done(_AWAY)

    def answered(self, model: str, given: Sequence[Found]) -> None:
        """Counts answers that were given."""
        self._held[model].answered(*given)

    def close(self) -> None:
        for look_ups in self._look_ups.values():
            look_ups.close()
        for held in self._held.values():
            held.close()


def ask_of(request: Request, columns: Columns, *, overloaded: bool) -> Ask | None:
    """What to look up for a request; None when it has no key. The key that decides the arm of a split is the key of its
    row, where it has one row and no other key. Raises InvalidInput."""
    keys = request.keys
    if keys is None:
        if not request.key or columns.rows != 1:
            return None
        keys = [key_bytes(request.key)]
    return Ask(keys, columns if columns.names else None, overloaded)


def only_keys(request: Request) -> Columns | None:
    """Columns of a request that has keys and nothing else: rows without fields. None for every other request."""
    if request.inputs or not (request.keys or request.key):
        return None
    rows = 1 if request.keys is None else len(request.keys)
    return _ONE_ROW if rows == 1 else Columns((), rows, arrays=())
