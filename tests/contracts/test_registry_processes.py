"""Several processes at one registry, and processes that are killed."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fairway.core.settings import RegistrySettings
from fairway.registry.registry import open_registry
from tests.contracts.writers import Job, assert_whole

_ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite, folder", "postgresql, folder", "postgresql, s3"])
def settings(request: pytest.FixtureRequest) -> RegistrySettings:
    database, _, blobs = request.param.partition(", ")
    values: dict[str, object] = {}
    if database == "postgresql":
        values["database_url"] = request.getfixturevalue("postgres").new_database()
    if blobs == "s3":
        s3 = request.getfixturevalue("s3")
        values |= {"blobs_url": s3.new_bucket(), "blobs_options": s3.options}
    return msgspec.convert({"lock_timeout_seconds": 60, **values}, RegistrySettings)


def test_processes_that_write_at_once_lose_nothing(settings: RegistrySettings, tmp_path: Path) -> None:
    """They start on a registry that is not there yet, so they also race to make it."""
    workers, each = 3, 4
    processes = []
    for worker in range(workers):
        job = Job(
            home=str(tmp_path / "home"),
            scratch=str(tmp_path / "scratch"),
            settings=settings,
            worker=worker,
            each=each,
        )
        command = [sys.executable, "-m", "tests.contracts.writers", msgspec.json.encode(job).decode()]
        processes.append(subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True))
    failures = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * workers, failures
    with open_registry(tmp_path / "home", settings) as registry:
        assert_whole(registry, versions=workers * each + each, moves=workers * each)
        assert len(list((tmp_path / "home" / "bundles").iterdir())) == each


@pytest.mark.parametrize("settings", ["sqlite, folder", "postgresql, folder"], indirect=True)
def test_a_process_killed_at_any_point_leaves_the_registry_consistent(
    settings: RegistrySettings, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.contracts.killed",
        str(tmp_path / "home"),
        str(tmp_path / "scratch"),
    ]
    done = subprocess.run(
        [*command, msgspec.json.encode(settings).decode()],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = msgspec.json.decode(done.stdout, type=dict[str, int])
    assert counts["at lines"] >= 20
    assert counts["while made"] >= 5
    assert counts["at random"] >= 10
    assert counts["versions"] >= 2
