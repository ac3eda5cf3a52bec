"""What every store of watched windows does: SQLite, PostgreSQL, memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from fairway.core.settings import RegistrySettings
from fairway.stores.opening import open_windows
from fairway.stores.schema import monitor_marks, monitor_windows
from fairway.stores.windows import WatchedWindow, WindowKey, WindowStore
from fairway.stores.windows_sql import SqlWindows, _row
from tests.services import Postgres, until_one_waits

HOURS = [f"2026-01-01T{hour:02}:00:00.000000Z" for hour in range(24)]


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WindowStore]:
    url = {"sqlite": "", "memory": "memory://"}.get(request.param)
    if url is None:
        url = request.getfixturevalue("postgres").new_database()
    store = open_windows(tmp_path, RegistrySettings(database_url=url, lock_timeout_seconds=30))
    yield store
    store.close()


def window(
    hour: int, *, model: str = "m", version: int = 1, rows: int = 5, profile: bytes = b"p\x00"
) -> WatchedWindow:
    key = WindowKey(model=model, version=version, digest=f"sha256:{version}", start=HOURS[hour])
    end = HOURS[hour + 1]
    return WatchedWindow(
        key=key, end=end, rows=rows, summary=b"s\xff\x00", report='{"ü":1}'.encode(), profile=profile
    )


def small(window: WatchedWindow) -> WatchedWindow:
    return msgspec.structs.replace(window, report=b"", profile=b"")


def test_what_was_put_is_there_and_a_second_time_replaces_it(store: WindowStore) -> None:
    first, second = window(1), window(2)
    store.put([first, second])
    assert store.window(first.key) == first
    changed = msgspec.structs.replace(first, rows=9, end=HOURS[3])
    store.put([changed])
    assert store.window(first.key) == changed
    assert store.summaries("m") == (small(changed), small(second))
    assert store.window(msgspec.structs.replace(first.key, version=7)) is None


def test_summaries_by_version_and_time_the_latest_ones(store: WindowStore) -> None:
    ones = [window(hour) for hour in (3, 1, 2, 5)]
    twos = [window(hour, version=2) for hour in (2, 4)]
    store.put([*ones, *twos, window(1, model="other")])
    starts = [(w.key.start, w.key.version) for w in store.summaries("m")]
    assert starts == [(HOURS[h], v) for h, v in ((1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (5, 1))]
    assert [w.key.start for w in store.summaries("m", version=1, since=HOURS[2], until=HOURS[5])] == [
        HOURS[2],
        HOURS[3],
    ]
    assert [w.key.start for w in store.summaries("m", limit=2)] == [HOURS[4], HOURS[5]]
    assert store.summaries("nobody") == ()
    assert store.latest("m") == ones[-1]
    assert store.latest("m", 2) == twos[-1]
    assert store.latest("nobody") is None
    assert [key.start for key in store.watched()] == [HOURS[5], HOURS[4], HOURS[1]]
    assert [key.start for key in store.watched(until=HOURS[5])] == [HOURS[3], HOURS[4], HOURS[1]]
    assert store.watched(until=HOURS[1]) == ()


def test_profiles_of_windows_that_have_one(store: WindowStore) -> None:
    store.put(
        [window(1, profile=b"a"), window(2, profile=b""), window(3, profile=b"c"), window(4, profile=b"d")]
    )
    assert store.profiles("m", version=1, since=HOURS[0], until=HOURS[4]) == (
        (HOURS[1], b"a"),
        (HOURS[3], b"c"),
    )
    assert store.profiles("m", version=2, since=HOURS[0], until=HOURS[9]) == ()


def test_marks(store: WindowStore) -> None:
    assert store.mark("labels of m") == ""
    store.put_mark("labels of m", "17")
    store.put_mark("labels of m", "18")
    assert store.mark("labels of m") == "18"


def test_old_windows_are_forgotten(store: WindowStore) -> None:
    store.put([window(hour) for hour in range(5)])
    assert store.prune(HOURS[3]) == 3
    assert [w.key.start for w in store.summaries("m")] == [HOURS[3], HOURS[4]]
    assert store.prune(HOURS[3]) == 0


def test_two_that_put_the_same_in_one_moment_both_have(postgres: Postgres, tmp_path: Path) -> None:
    """`fairway monitor look` while the control process's monitor looks. SQLite has one writer anyway."""
    settings = RegistrySettings(database_url=postgres.new_database(), lock_timeout_seconds=60)
    store = open_windows(tmp_path, settings)
    assert isinstance(store, SqlWindows)
    engine = store._database._dialect.engine
    mine, theirs = window(1, rows=5), window(1, rows=6)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as other:
            other.execute(sa.insert(monitor_windows).values(_row(theirs)))
            putting = pool.submit(store.put, [mine])
            until_one_waits(engine)
        putting.result()
        with engine.begin() as other:
            other.execute(sa.insert(monitor_marks).values(name="m", value="theirs"))
            marking = pool.submit(store.put_mark, "m", "mine")
            until_one_waits(engine)
        marking.result()
    assert store.window(mine.key) == mine
    assert store.mark("m") == "mine"
    store.close()
