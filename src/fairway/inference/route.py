"""Which version answers: pure, and sticky by key."""

from __future__ import annotations

from hashlib import blake2b

from fairway.core.route import Route


def choose(route: Route, key: str) -> int:
    """The version that answers `key`: the same key gets the same arm as long as salt and weights stand.

    Keys spread evenly because the first 8 bytes of BLAKE2b are uniform on [0, 2**64).
    """
    if len(route.arms) == 1:
        return route.arms[0].version
    digest = blake2b(f"{route.salt}\x00{key}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest, "big") / 2**64
    reached = 0.0
    for arm in route.arms:
        reached += arm.weight
        if point < reached:
            return arm.version
    return route.arms[-1].version
