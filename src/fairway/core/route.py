"""`Route`: the single value that says which versions of a model answer live traffic.

Rollout writes it, the request path reads it. Changing it is a compare-and-set on `revision`.
"""

from __future__ import annotations

import math

import msgspec


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version and its share of live traffic, 0 < weight <= 1."""

    version: int
    weight: float = 1.0


class Route(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Live traffic of one model.

    `arms` share the traffic by weight (they add up to 1); `shadows` get a copy and never answer.
    `salt` decides which keys land where: the same key and salt give the same arm until the salt changes.
    `revision` counts up by one with every change.
    """

    model: str
    arms: tuple[Arm, ...]
    shadows: tuple[int, ...] = ()
    salt: str = ""
    revision: int = 0

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("a route needs at least one arm")
        if any(not 0 < arm.weight <= 1 for arm in self.arms):
            raise ValueError("arm weights must be above 0 and at most 1")
        if not math.isclose(sum(arm.weight for arm in self.arms), 1.0, abs_tol=1e-9):
            raise ValueError(f"arm weights must add up to 1, not {sum(arm.weight for arm in self.arms)}")
        if len({arm.version for arm in self.arms}) != len(self.arms):
            raise ValueError("a version may stand in one arm only")

    @property
    def main(self) -> int:
        """The version with the most traffic; of equals the first."""
        return max(self.arms, key=lambda arm: arm.weight).version

    @property
    def versions(self) -> tuple[int, ...]:
        """Every version the route needs loaded: arms first, then shadows."""
        return tuple(dict.fromkeys([*(arm.version for arm in self.arms), *self.shadows]))


def everything_to(model: str, version: int, *, revision: int = 0) -> Route:
    """The plain route: one version answers all traffic."""
    return Route(model=model, arms=(Arm(version),), revision=revision)
