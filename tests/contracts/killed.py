"""A driver that kills registry writers with SIGKILL and checks the registry after each. A program of its own,
because it forks: `python -m tests.contracts.killed HOME SCRATCH SETTINGS_JSON`. Prints what it did as JSON.

1. a writer is killed at its k-th executed line of Fairway's code, for many k, until one lives to its end;
2. the same while the registry is being made;
3. a writer is killed at a random moment, so also inside SQLite, the kernel or the network.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

import fairway.stores.migrate  # noqa: F401 - imported before forking, or every child would import it
from fairway.core.route import everything_to
from fairway.core.settings import RegistrySettings
from fairway.registry.contents import sealed_files
from fairway.registry.registry import Registry, open_registry
from fairway.stores.base import sha256_of
from tests.bundles import register

_STRIDE = 23  # lines between two kills: a prime, so that loops are met at different places
_STRIDE_MAKING = 11
_RANDOM_KILLS = 15
_CODE = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["fairway.registry"].__file__ or "")))


def main(home: Path, scratch: Path, settings: RegistrySettings) -> None:
    done = {"at lines": 0, "while made": 0, "at random": 0, "versions": 0}
    while not _survives(
        lambda: open_registry(home / "made", settings).close(), done["while made"] * _STRIDE_MAKING
    ):
        done["while made"] += 1
    while True:
        work = partial(_work, home, scratch, settings, done["at lines"])
        alive = _survives(work, done["at lines"] * _STRIDE)
        _check(home, settings)
        if alive:
            break
        done["at lines"] += 1
    chance = random.Random(7)
    for number in range(_RANDOM_KILLS):
        done["at random"] += 1
        child = os.fork()
        if child == 0:
            _run(partial(_work_on, home, scratch, settings, number))
        time.sleep(chance.uniform(0.02, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        _check(home, settings)
    done["versions"] = _check_cleaned(home, settings)
    print(msgspec.json.encode(done).decode())


def _work(home: Path, scratch: Path, settings: RegistrySettings, name: object) -> None:
    """Everything a deployment does."""
    with open_registry(home, settings) as registry:
        version = register(registry, scratch / f"{name}", f"model {name}".encode())
        registry.set_alias("payments", "champion", version.version, who="ann", why="")
        route = registry.route("payments")
        new = everything_to("payments", version.version)
        registry.set_route(new, expected_revision=0 if route is None else route.revision, who="ann", why="")
        registry.fetch(version)
        registry.clean(older_than_seconds=3600)


def _work_on(home: Path, scratch: Path, settings: RegistrySettings, name: object) -> None:
    for step in range(1000):
        _work(home, scratch, settings, f"{name} {step}")


def _check(home: Path, settings: RegistrySettings) -> int:
    """Whatever is listed is whole and the history tells of all of it; returns the number of versions."""
    with open_registry(home, settings) as registry:
        models = registry.models()
        if not models:
            assert registry.revision() == 0
            return 0
        versions = registry.versions("payments")
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        directory = registry.fetch(versions[-1])
        for path, file in sealed_files(directory, versions[-1].digest).items():
            assert sha256_of(directory / path) == file.sha256, path
        history = registry.history("payments", limit=None)
        assert [change.sequence for change in history] == list(range(registry.revision(), 0, -1))
        assert sum(change.what == "version" for change in history) == len(versions)
        routes = [change for change in history if change.what == "route"]
        assert [change.before for change in routes] == [*(change.after for change in routes[1:]), None][
            : len(routes)
        ]
        route = registry.route("payments")
        assert (None if route is None else msgspec.json.encode(route).decode()) == (
            routes[0].after if routes else None
        )
        return len(versions)


def _check_cleaned(home: Path, settings: RegistrySettings) -> int:
    """After a cleaning there is every file of every version, and no other."""
    with open_registry(home, settings) as registry:
        registry.clean(older_than_seconds=-60)
        assert not list((home / "bundles").glob(".*"))
        assert not list((home / "blobs" / "uploads").glob("*"))
        versions = registry.versions("payments")
        _check_blobs(registry)
        for version in versions:
            sealed = sealed_files(registry.fetch(version), version.digest)
            assert all(
                sha256_of(registry.fetch(version) / path) == file.sha256 for path, file in sealed.items()
            )
        return len(versions)


def _check_blobs(registry: Registry) -> None:
    with registry._database.reading() as rows:
        assert set(registry._blobs.digests()) == rows.kept()


def _survives(work: Callable[[], object], lines: int) -> bool:
    """Runs `work` in a child that is killed at its line number `lines`; True when it came to its end before."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(_CODE):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        _run(work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the writer failed by itself"
    return True


def _run(work: Callable[[], object]) -> None:
    """The whole life of a child."""
    code = 1
    try:
        work()
        code = 0
    except Exception:  # noqa: BLE001 - whatever it was, the parent must hear of it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=RegistrySettings))
