"""Notes of shards: one suite for folders, an object store, SQLite and PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fairway.batch.notes import LocalNotes, Notes, SqlNotes, StoreNotes
from fairway.batch.sql import read_place
from fairway.core.errors import Unavailable
from tests.services import S3, Postgres, until_one_waits

Open = Callable[[str], Notes]


@pytest.fixture(params=["folder", "s3", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Notes of a run by its name."""
    if request.param == "folder":
        return lambda run: LocalNotes(tmp_path / run)
    if request.param == "s3":
        import s3fs

        s3: S3 = request.getfixturevalue("s3")
        bucket = s3.new_bucket().removeprefix("s3://")
        fs = s3fs.S3FileSystem(**s3.options, use_listings_cache=False, skip_instance_cache=True)
        return lambda run: StoreNotes(fs, f"{bucket}/{run}")
    if request.param == "sqlite":
        return lambda run: SqlNotes(read_place(f"sqlite:///{tmp_path}/x.db?table=t"), run)
    url = request.getfixturevalue("postgres").new_database()
    return lambda run: SqlNotes(read_place(f"{url}/t"), run)


def test_notes_are_kept_by_name(opened: Open) -> None:
    notes = opened("run")
    assert (notes.read("a"), notes.all("")) == (None, {})
    notes.put("done-1", b"one")
    notes.put("done-2", b"\x00two")
    notes.put("done-1", b"another")
    notes.put("other", b"")
    assert notes.read("done-1") == b"another"
    assert notes.all("done-") == {"done-1": b"another", "done-2": b"\x00two"}
    notes.close()
    others = opened("other run")
    assert others.all("") == {}
    others.close()


def test_the_first_of_many_writers_wins_and_all_are_told(opened: Open) -> None:
    places: list[Any] = [opened("run") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda i: places[i].create("plan", b"%d" % i * 1000), range(4)))
    assert len(set(told)) == 1
    assert places[0].read("plan") == told[0]
    assert places[1].create("plan", b"late") == told[0]
    for notes in places:
        notes.close()


def test_a_place_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(endpoint_url="http://127.0.0.1:9", key="k", secret="s", skip_instance_cache=True, config_kwargs={"retries": {"max_attempts": 0}})  # fmt: skip
    notes = StoreNotes(fs, "bucket/run")
    with pytest.raises(Unavailable, match="notes in bucket/run"):
        notes.read("plan")
    with pytest.raises(Unavailable):
        SqlNotes(read_place(f"sqlite:///{tmp_path}/no/folder/x.db?table=t"), "run")


@pytest.mark.postgres
def test_two_that_put_the_same_note_in_one_moment_both_have(postgres: Postgres) -> None:
    """A task of an array job that was started twice."""
    notes = SqlNotes(read_place(f"{postgres.new_database()}/t"), "run")
    with ThreadPoolExecutor(1) as pool:
        with notes._engine.begin() as other:
            other.execute(notes._table.insert().values(run="run", name="done-1", content=b"theirs"))
            putting = pool.submit(notes.put, "done-1", b"mine")
            until_one_waits(notes._engine)
        putting.result()
    assert notes.read("done-1") == b"mine"
    notes.close()
