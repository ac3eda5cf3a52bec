"""Writers that get in each other's way, and the check that they lost nothing.

Run as a program it is one such writer: `python -m tests.contracts.writers SETTINGS_JSON`.
"""

import sys
from pathlib import Path

import msgspec

from fairway.core.errors import RouteConflict
from fairway.core.route import Arm, Route
from fairway.core.settings import RegistrySettings
from fairway.registry.registry import Registry, open_registry
from tests.bundles import register


class Job(msgspec.Struct):
    """One writer's work: `each` versions of its own, as many that all writers share, and a route change each."""

    home: str
    scratch: str
    settings: RegistrySettings
    worker: int
    each: int


def write(job: Job) -> None:
    scratch, who = Path(job.scratch), f"writer {job.worker}"
    with open_registry(Path(job.home), job.settings) as registry:
        for number in range(job.each):
            own = f"{job.worker}-{number}"
            register(registry, scratch / own, own.encode(), who=who)
            shared = register(registry, scratch / f"{own}-shared", f"shared {number}".encode(), who=who)
            assert (registry.fetch(shared) / "engine/model.onnx").read_bytes() == f"shared {number}".encode()
            move_on(registry, who=who)
            registry.set_alias("payments", "champion", number + 1, who=who, why="")


def move_on(registry: Registry, *, who: str) -> None:
    """Makes a new route by compare-and-set, trying until it is its turn."""
    while True:
        now = registry.route("payments")
        revision = 0 if now is None else now.revision
        salt = f"{revision} {who}"  # so that no two routes are the same
        try:
            registry.set_route(
                Route(model="payments", arms=(Arm(1),), salt=salt),
                expected_revision=revision,
                who=who,
                why="my turn",
            )
        except RouteConflict:
            continue
        return


def assert_whole(registry: Registry, *, versions: int, moves: int) -> None:
    """Versions are 1..N, every bundle is whole, and the history is one unbroken chain."""
    found = registry.versions("payments")
    assert [version.version for version in found] == list(range(1, versions + 1))
    assert len({version.digest for version in found}) == versions
    history = registry.history("payments", limit=None)[::-1]
    assert [change.sequence for change in history] == list(range(1, registry.revision() + 1))
    assert [change.what for change in history].count("version") == versions
    routes = [change for change in history if change.what == "route"]
    assert [change.before for change in routes] == [None, *(change.after for change in routes[:-1])]
    assert len(routes) == moves
    assert msgspec.json.decode(routes[-1].after or "", type=Route) == registry.route("payments")


if __name__ == "__main__":
    write(msgspec.json.decode(sys.argv[1], type=Job))
