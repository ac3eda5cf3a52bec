"""Windows of the log: what is chosen, in how much memory, from wherever it is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from fairway.core.errors import MissingExtra, SettingsError, StorageFull, Unavailable
from fairway.core.settings import LogSettings
from fairway.stores.log_archive import PREDICTIONS, Archive, Part, part_of
from fairway.stores.log_compaction import compact, forget
from fairway.stores.log_reading import BATCH_ROWS, log_id, micros, moment
from tests.logs import NOON, Row, ids, opened, prediction_batch, seconds, segment_log, write_predictions
from tests.services import S3

T = seconds(NOON)


def rows(prefix: str, count: int, start: float = T, step: float = 60.0) -> list[Row]:
    return [(f"{prefix}{i:04}", start + i * step) for i in range(count)]


@pytest.fixture(params=["segments", "archive", "both"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An hour of version 1 and an hour of version 2, 60 rows each; wherever they are."""
    where = tmp_path / "log"
    write_predictions(where, rows("a", 60))
    if request.param == "both":
        compact(opened(where), LogSettings(), everything=True)
    write_predictions(where, rows("b", 60, T + 3600), version=2, arm=None)
    if request.param == "archive":
        compact(opened(where), LogSettings(), everything=True)
    return where


def test_windows_choose_by_time_version_digest_and_arm(folder: Path) -> None:
    log = opened(folder)
    half = timedelta(minutes=30)
    assert len(ids(log.windows("m"))) == 120
    assert ids(log.windows("m", start=NOON + half, end=NOON + 2 * half)) == [n for n, _ in rows("a", 60)[30:]]
    assert ids(log.windows("m", start=NOON + half, end=NOON + half)) == []
    assert ids(log.windows("m", versions=[2])) == [n for n, _ in rows("b", 60)]
    assert len(ids(log.windows("m", digest="sha256:" + "1" * 64))) == 60
    assert len(ids(log.windows("m", digest="222"))) == 60
    assert ids(log.windows("m", digest="sha256:" + "3" * 64)) == []
    assert ids(log.windows("m", arm="v1")) == [n for n, _ in rows("a", 60)]
    assert ids(log.windows("m", arm="v2")) == []  # version 2 was asked for by name
    assert ids(log.windows("nobody")) == []


def test_windows_have_the_columns_that_are_asked_for(folder: Path) -> None:
    found = list(opened(folder).windows("m", columns=["output.label", "input.none", "version"]))
    assert {tuple(batch.schema.names) for batch in found} == {("output.label", "input.none", "version")}
    assert all(batch.column("input.none").null_count == batch.num_rows for batch in found)
    assert sorted(v for b in found for v in b.column("version").to_pylist()) == [1] * 60 + [2] * 60


def test_what_is_present(folder: Path) -> None:
    first, second = opened(folder).present("m")
    assert (first.version, first.digest, first.rows) == (1, "1" * 12, 60)
    assert (first.first, first.last) == (NOON, NOON + timedelta(minutes=59))
    assert (second.version, second.rows, second.first) == (2, 60, NOON + timedelta(hours=1))
    assert opened(folder).present("nobody") == []
    assert opened(folder).models() == ["m"]


def test_windows_of_a_large_log_take_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = segment_log(folder, segment_bytes=2**27)
    for i in range(10):
        log.append(prediction_batch(rows(f"{i}-", 30_000, T, 0.01)))
    log.close()
    compact(opened(folder), LogSettings(), everything=True)
    before = pa.total_allocated_bytes()
    most = found = 0
    for batch in opened(folder).windows("m", columns=["input.amount", "output.label"]):
        assert batch.num_rows <= BATCH_ROWS
        found += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert found == 300_000
    assert most < 48 * 2**20


def test_the_archive_in_an_object_store(s3: S3, tmp_path: Path) -> None:
    """Compacted to S3 by its real protocol, shared by two machines, read back, forgotten."""
    archive = Archive(f"{s3.new_bucket()}/predictions", s3.options)
    for machine in ("one", "two"):
        folder = tmp_path / machine / "log"
        write_predictions(folder, rows(machine, 20))
        log = opened(folder)
        log.archive = archive
        assert compact(log, LogSettings(), everything=True).errors == ()
        write_predictions(folder, rows(f"{machine}-open", 5))
        compact(log, LogSettings(), everything=True)
    assert ids(log.windows("m")) == sorted(
        n for m in ("one", "two") for n, _ in [*rows(m, 20), *rows(f"{m}-open", 5)]
    )
    assert sum(one.rows for one in log.present("m")) == 50
    write_predictions(folder, rows("late", 3))
    log.archive = Archive("s3://bucket/predictions", {**s3.options, "endpoint_url": "http://127.0.0.1:9"})
    assert compact(log, LogSettings(), everything=True).errors
    log.archive = archive
    assert len(list(folder.glob("m/v1/*.arrows"))) == 1
    assert compact(log, LogSettings(), everything=True).rows == 3
    assert forget(log, "m", request_ids=["late0000"]) == (1, 0)
    assert sum(batch.num_rows for batch in log.windows("m")) == 52


def test_a_name_of_a_part_is_read_back() -> None:
    part = Part(
        kind=PREDICTIONS, model="a.b-c_1", day="2026-01-31", stream="v12", digest="0" * 12, columns="1" * 8,
        rows=5, first=-1, last=10**18, log="2" * 8, written=7, serial="3" * 8, size=9,
    )  # fmt: skip
    assert part_of(f"bucket/root/{part.path}", 9) == part
    assert part_of("predictions/model=m/day=2026-01-31/somebody-elses.parquet") is None


def test_archives_that_cannot_be() -> None:
    with pytest.raises((SettingsError, MissingExtra)):
        Archive("nonsense://x")


def test_a_full_archive_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(str(tmp_path / "archive"))
    monkeypatch.setattr(
        archive._fs, "find", lambda *given, **told: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(StorageFull):
        archive.parts(PREDICTIONS)
    monkeypatch.setattr(archive._fs, "find", lambda *given, **told: (_ for _ in ()).throw(OSError(5, "io")))
    with pytest.raises(Unavailable, match=r"log\.archive_url"):
        archive.parts(PREDICTIONS)


def test_times_are_exact_and_never_fail() -> None:
    assert moment(micros(NOON)) == NOON
    assert micros(datetime(2026, 1, 31, 12)) == micros(NOON)
    assert moment(10**30) == datetime.max.replace(tzinfo=UTC)
    assert moment(-(10**30)) == datetime.min.replace(tzinfo=UTC)


def test_a_log_has_one_name(tmp_path: Path) -> None:
    assert log_id(tmp_path / "nowhere") == ""
    assert log_id(tmp_path) == log_id(tmp_path)
    assert len(log_id(tmp_path)) == 8
