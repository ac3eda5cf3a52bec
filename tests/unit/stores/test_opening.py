"""Which backend the settings name."""

import subprocess
import sys
from pathlib import Path

import pytest

from fairway.core.settings import RegistrySettings
from fairway.stores.blobs_fsspec import FsspecBlobs
from fairway.stores.blobs_local import LocalBlobs
from fairway.stores.blobs_memory import MemoryBlobs
from fairway.stores.memory import MemoryDatabase
from fairway.stores.opening import open_blobs, open_database
from fairway.stores.sql import SqlDatabase


@pytest.mark.parametrize(
    ("url", "kind", "where"),
    [
        ("", LocalBlobs, "{home}/blobs"),
        ("/srv/blobs", LocalBlobs, "/srv/blobs"),
        ("file:///srv/my%20blobs", LocalBlobs, "/srv/my blobs"),
        ("memory://", MemoryBlobs, "memory"),
        ("s3://bucket/models", FsspecBlobs, "s3://bucket/models"),
    ],
)
def test_blobs_by_url(tmp_path: Path, url: str, kind: type, where: str) -> None:
    blobs = open_blobs(tmp_path, RegistrySettings(blobs_url=url))
    assert type(blobs) is kind
    assert blobs.where == where.format(home=tmp_path)


def test_databases_by_url(tmp_path: Path) -> None:
    for url, kind, where in [
        ("", SqlDatabase, tmp_path / "home" / "registry.db"),
        (f"sqlite:///{tmp_path}/other.db", SqlDatabase, tmp_path / "other.db"),
        ("memory://", MemoryDatabase, "memory"),
    ]:
        database = open_database(tmp_path / "home", RegistrySettings(database_url=url))
        assert type(database) is kind
        assert database.where == str(where)
        database.close()


def test_only_the_backends_in_use_are_imported(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from fairway.core.settings import RegistrySettings\n"
        "from fairway.registry.registry import open_registry\n"
        "slow = lambda: sorted({'sqlalchemy', 'alembic', 'fsspec'} & set(sys.modules))\n"
        "home, memory = pathlib.Path(sys.argv[1]), RegistrySettings(database_url='memory://')\n"
        "open_registry(home, memory); print(slow())\n"
        "open_registry(home, RegistrySettings()); print(slow())\n"
    )
    first = [sys.executable, "-c", program, str(tmp_path)]
    made = subprocess.run(first, capture_output=True, text=True, check=True).stdout.splitlines()
    again = subprocess.run(first, capture_output=True, text=True, check=True).stdout.splitlines()
    assert made == ["[]", "['alembic', 'sqlalchemy']"]
    assert again == ["[]", "['sqlalchemy']"]  # alembic only where a migration is needed
