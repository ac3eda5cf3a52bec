"""Which route a rollback brings back. Pure.

A rollback takes the version that came last out of live traffic: it restores the latest earlier route without
that version, so the steps of a gradual rollout (90/10, 50/50) are passed over, and a rollout that is under way
ends where it began. When several versions came last together, a route without any of them is looked for. Where
there is no such route, the previous route that differs is restored.

Rolling back again goes further back, as "undo" does in an editor: a rollback moves back along the routes that
were set, and a route set afterwards continues from the restored one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fairway.core.route import Route
from fairway.core.version import Change

Traffic = tuple[frozenset[tuple[int, float]], frozenset[int], str]


def traffic(route: Route) -> Traffic:
    """What a route does, without its revision and the order of its arms: equal for routes that do the same."""
    return frozenset((arm.version, arm.weight) for arm in route.arms), frozenset(route.shadows), route.salt


def trail(changes: Sequence[Change]) -> list[tuple[int, Route]]:
    """The routes one can go back along, the current one last, with the sequence of the change that set each.

    `changes` are all "route" changes of one model, oldest first.
    """
    way: list[tuple[int, Route]] = []
    for change in changes:
        if change.after is None:
            continue
        if change.restores is None:
            way.append((change.sequence, msgspec.json.decode(change.after, type=Route)))
        else:
            while way[-1][0] != change.restores:
                way.pop()
    return way


def rollback_target(changes: Sequence[Change]) -> tuple[int, Route] | None:
    """The sequence of the change to restore and its route; None when there is nothing to go back to."""
    way = trail(changes)
    if len(way) < 2:
        return None
    *earlier, (_, current) = way
    last_come = _last_come([route for _, route in way])
    for sequence, route in reversed(earlier):
        if not last_come & _live(route):
            return sequence, route
    for sequence, route in reversed(earlier):
        if traffic(route) != traffic(current):
            return sequence, route
    return None


def _live(route: Route) -> frozenset[int]:
    return frozenset(arm.version for arm in route.arms)


def _last_come(routes: Sequence[Route]) -> frozenset[int]:
    """Of the versions live in the last route, those that have been live without a break for the fewest routes."""
    staying = _live(routes[-1])
    for route in reversed(routes[:-1]):
        remaining = staying & _live(route)
        if not remaining:
            return staying
        if remaining != staying:
            return staying - remaining
    return staying
