"""Rows in, answers by key out: once, whole, and the same as a request would get."""

import json
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairway.batch import answered
from fairway.batch import precompute as module
from fairway.batch.answered import Source
from fairway.batch.precompute import Mark, Precomputation, precompute
from fairway.batch.source import find_files
from fairway.core.columns import Columns, Outputs
from fairway.core.errors import AnswersUnavailable, Conflict, InvalidInput, ModelFailed, StorageFull
from fairway.core.settings import HybridSettings
from fairway.inference.entries import decode_entry
from fairway.inference.freshness import Policy
from fairway.inference.live import LiveVersion
from fairway.inference.precomputed import Precomputed
from fairway.inference.precomputed import Source as Who
from fairway.stores.answers import AnswerStore, AnswerWriter, Generation, open_answers
from fairway.stores.counters import Counters
from tests.planes import Adding, live_version

FS = fsspec.filesystem("file")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answered, "_CHUNK_ROWS", 10)
    monkeypatch.setattr(answered, "_CHUNK_BYTES", 200)
    monkeypatch.setattr(module, "_WRITE_ROWS", 1)


class Place:
    """A store, a folder with files, and runs over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"memory://{uuid.uuid4().hex}"
        self.store = self.open()
        self.told: list[tuple[str, float]] = []

    def open(self) -> AnswerStore:
        return open_answers(self.url, "m", home=self.folder, timeout_seconds=1.0)

    def write(self, rows: list[dict[str, Any]], name: str = "rows.parquet") -> None:
        path = self.folder / "in" / name
        path.parent.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows)
        if name.endswith(".parquet"):
            pq.write_table(table, path, row_group_size=25)
        elif name.endswith(".csv"):
            lines = [",".join(table.column_names)]
            lines += [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
            path.write_text("\n".join(lines) + "\n")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, live: LiveVersion | None = None, **options: Any) -> Precomputation:
        values: dict[str, Any] = {"limits": HybridSettings(), "ttl_seconds": 60.0, **options}
        files = tuple(find_files(FS, str(self.folder / "in")))
        return precompute(
            live or live_version(1, floor=1),
            values.pop("store", self.store),
            Source(FS, files, values.pop("key", "id")),
            rejects=self.folder / "rejects.jsonl",
            tell=lambda what, fraction: self.told.append((what, fraction)),
            **values,
        )

    def sums(self, *keys: str) -> list[float | None]:
        found = self.store.get_many([key.encode() for key in keys])
        return [
            None if one is None else float(decode_entry(one.entry, one.generation.layout).outputs["sum"][0])
            for one in found
        ]

    def rejects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "rejects.jsonl").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def customers(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"id": n, "a": n / 7, "b": float(n % 10), **changes} for n in range(count)]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
def test_every_row_is_stored_with_what_a_request_gets(place: Place, name: str) -> None:
    rows = customers(57)
    place.write(rows, name)
    live = live_version(1, floor=1)
    done = place.run(live)
    assert (done.rows, done.keys, done.duplicates, done.rejected) == (57, 57, 0, 0)
    assert not done.resumed
    held = Precomputed("m", place.store, Policy(), Counters(), key_name="id")
    for row in rows:
        columns = live.validate({"a": [row["a"]], "b": [row["b"]]})
        expected = live.run(columns)
        found = held.find([str(row["id"]).encode()], live, columns)
        assert found.source is Who.precomputed
        assert found.outputs is not None
        assert all(found.outputs[n].tobytes() == expected[n].tobytes() for n in expected)
    columns = live.validate({"a": [0.5], "b": [0.0]})
    assert held.find([b"0"], live, columns).source is Who.live


def test_bad_rows_are_told_and_the_others_are_stored(place: Place) -> None:
    rows = customers(30)
    rows[3]["id"] = None
    rows[12]["a"] = None
    rows[25]["b"] = None
    rows[25]["id"] = ""
    for row in rows:
        row["id"] = row["id"] if row["id"] in (None, "") else f"c{row['id']}"
    place.write(rows)
    done = place.run()
    assert (done.rows, done.keys, done.rejected, done.duplicates) == (30, 27, 3, 0)
    told = [(reject["row"], reject.get("field"), reject["reason"]) for reject in place.rejects()]
    assert [(row, field) for row, field, _ in told] == [(3, "id"), (12, "a"), (25, "id"), (25, "b")]
    assert "not null" in told[0][2]
    assert "is null" in told[1][2]
    assert "empty" in told[2][2]
    assert place.rejects()[0]["file"].endswith("rows.parquet")
    assert place.sums("c3", "c12") == [None, None]
    assert done.rejects.endswith("rejects.jsonl")


def test_lines_that_are_none_are_rejected(place: Place) -> None:
    place.write(customers(12), "rows.jsonl")
    path = place.folder / "in" / "rows.jsonl"
    path.write_text(path.read_text().replace('{"id": 5', '{"id: 5'))
    done = place.run()
    assert (done.rows, done.keys, done.rejected) == (12, 11, 1)
    assert place.rejects()[0]["row"] == 5


def test_of_a_key_that_comes_again_the_last_row_counts(place: Place) -> None:
    place.write([*customers(25), {"id": 3, "a": 100.0, "b": 1.0}, {"id": 3, "a": 200.0, "b": 1.0}])
    done = place.run()
    assert (done.rows, done.keys, done.duplicates) == (27, 25, 2)
    assert place.sums("3") == [201.0]


def test_several_files_are_one_run(place: Place) -> None:
    place.write(customers(15), "a.csv")
    place.write([{"id": n + 100, "a": 1.0, "b": 1.0} for n in range(15)], "b.csv")
    done = place.run()
    assert (done.rows, done.keys) == (30, 30)
    assert place.sums("0", "114") == [0.0, 2.0]
    fractions = [fraction for _, fraction in place.told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_column_may_be_key_and_feature(place: Place) -> None:
    place.write([{"a": float(n), "b": 1.0} for n in range(5)])
    assert place.run(key="a").keys == 5
    assert place.sums("3") == [4.0]


def test_a_key_column_that_is_not_there_is_told(place: Place) -> None:
    place.write(customers(5))
    with pytest.raises(InvalidInput, match="nobody"):
        place.run(key="nobody")
    assert place.store.current() is None


class Breaking:
    """A store that goes away before its write number `at`."""

    where, may_block = "breaking", False

    def __init__(self, store: AnswerStore, at: int) -> None:
        self._store = store
        self.left = at

    def begin(self, generation: Generation) -> AnswerWriter:
        return _BreakingWriter(self, self._store.begin(generation))  # type: ignore[return-value]

    def resume(self) -> AnswerWriter | None:
        writer = self._store.resume()
        return None if writer is None else _BreakingWriter(self, writer)  # type: ignore[return-value]


class _BreakingWriter:
    def __init__(self, store: Breaking, writer: AnswerWriter) -> None:
        self._store, self._writer = store, writer

    def write(self, entries: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
        if self._store.left == 0:
            raise AnswersUnavailable("gone")
        self._store.left -= 1
        self._writer.write(entries, mark)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_run_that_was_broken_goes_on_to_the_same_store(place: Place, name: str, at: int) -> None:
    old = customers(3, a=1.0)
    place.write(old, name)
    place.run()
    rows = customers(60)
    rows[7]["a"] = rows[33]["a"] = None
    rows.append({"id": 5, "a": 50.0, "b": 1.0})
    place.write(rows, name)
    with pytest.raises(AnswersUnavailable):
        place.run(store=Breaking(place.store, at))
    assert place.sums("0", "50") == [1.0, None]
    with pytest.raises(AnswersUnavailable):  # and once more
        place.run(store=Breaking(place.store, 1), resume=True)
    done = place.run(resume=True)
    assert done.resumed
    assert (done.rows, done.keys, done.duplicates, done.rejected) == (61, 58, 1, 2)
    rejects = place.rejects()
    assert [reject["row"] for reject in rejects] == [7, 33]
    resumed = place.sums(*map(str, range(60)))
    again = Place(place.folder)
    whole = again.run()
    assert msgspec.structs.asdict(whole).keys() == msgspec.structs.asdict(done).keys()
    assert (whole.rows, whole.keys, whole.bytes) == (done.rows, done.keys, done.bytes)
    assert again.sums(*map(str, range(60))) == resumed
    assert again.rejects() == rejects
    assert place.run(resume=True).resumed is False  # nothing was left: a new run


def test_chunks_are_written_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRITE_ROWS", 25)
    place.write([*customers(40), *customers(3, a=1.0)])
    with pytest.raises(AnswersUnavailable):
        place.run(store=Breaking(place.store, 1))
    left = place.store.resume()
    assert left is not None
    assert left.keys() == 25  # row groups of 25 in chunks of 10, 10 and 5
    done = place.run(resume=True)
    assert (done.keys, done.rows, done.duplicates) == (40, 43, 3)
    assert place.sums("0", "1", "30") == [1.0, 2.0, 30 / 7]


def test_what_is_left_of_other_work_is_not_gone_on_with(place: Place) -> None:
    place.write(customers(30))
    with pytest.raises(AnswersUnavailable):
        place.run(store=Breaking(place.store, 1))
    with pytest.raises(Conflict, match="version 1 of m"):
        place.run(live_version(2, floor=1), resume=True)
    place.write(customers(31))
    with pytest.raises(Conflict, match="Begin anew"):
        place.run(resume=True)
    assert place.run().keys == 31


@pytest.mark.parametrize("rows", [[], customers(5, a=None)])
def test_an_empty_generation_is_not_published_unless_it_is_wanted(
    place: Place, rows: list[dict[str, Any]]
) -> None:
    place.write(customers(4))
    place.run()
    schema = pa.schema([("id", pa.int64()), ("a", pa.float64()), ("b", pa.float64())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), place.folder / "in" / "rows.parquet")
    with pytest.raises(InvalidInput, match=r"No row has an answer: .* Nothing is published"):
        place.run()
    assert place.sums("0") == [0.0]
    done = place.run(allow_empty=True)
    assert (done.keys, done.rejected) == (0, len(rows))
    assert place.sums("0") == [None]


def test_answers_that_are_too_large_are_rejected_and_too_many_end_the_run(place: Place) -> None:
    place.write(customers(40))
    with pytest.raises(InvalidInput, match="No row"):
        place.run(limits=HybridSettings(entry_bytes=30))
    assert "hybrid.entry_bytes" in place.rejects()[0]["reason"]
    with pytest.raises(StorageFull, match=r"hybrid\.store_bytes"):
        place.run(limits=HybridSettings(store_bytes=1000))
    assert place.store.current() is None
    assert place.run(resume=True).resumed


class Choosy:
    """Fails on calls with a row whose `a` is 13, and answers each call by how many rows it has."""

    def __init__(self, always: bool = False) -> None:
        self.always = always
        self.rows: list[int] = []

    def predict(self, columns: Columns) -> Outputs:
        if self.always or 13.0 in columns["a"]:
            raise ValueError("thirteen")
        self.rows.append(columns.rows)
        return {"sum": columns["a"] + columns["b"]}

    def unload(self) -> None:
        return


def test_a_row_that_the_model_fails_on_is_rejected_alone(place: Place) -> None:
    place.write([{"id": n, "a": float(n), "b": 1.0} for n in range(30)])
    done = place.run(live_version(1, Choosy(), floor=1))
    assert (done.keys, done.rejected) == (29, 1)
    assert place.rejects()[0]["row"] == 13
    assert "thirteen" in place.rejects()[0]["reason"]
    assert place.sums("12", "13", "14") == [13.0, None, 15.0]


def test_a_model_that_always_fails_ends_the_run(place: Place) -> None:
    place.write(customers(30))
    with pytest.raises(ModelFailed, match="thirteen"):
        place.run(live_version(1, Choosy(always=True), floor=1))
    assert place.store.current() is None


def test_rows_are_asked_alone_where_their_answers_depend_on_each_other(place: Place) -> None:
    place.write(customers(30))
    engine = Choosy()
    place.run(live_version(1, engine))
    assert set(engine.rows) == {1}


class Odd(Adding):
    """An answer that cannot be stored for one row."""

    def predict(self, columns: Columns) -> Outputs:
        outputs = super().predict(columns)
        extra = np.empty(columns.rows, dtype=object)
        extra[:] = [{1} if value == 1.0 else "text" for value in columns["a"]]
        return {**outputs, "extra": extra}


def test_an_answer_that_cannot_be_stored_is_rejected(place: Place) -> None:
    place.write([{"id": n, "a": float(n), "b": 1.0} for n in range(5)])
    done = place.run(live_version(1, Odd(), floor=1))
    assert (done.keys, done.rejected) == (4, 1)
    assert "cannot be stored" in place.rejects()[0]["reason"]


def test_a_mark_survives_its_encoding() -> None:
    mark = Mark(1, module.Position(5, 6), 7, 8, 9, 10, 11)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(mark), type=Mark) == mark


def test_rows_are_scored_while_others_are_stored(place: Place) -> None:
    """The store takes the first rows only when the model has seen later ones."""
    place.write([{**row, "a": 1000.0 + row["id"]} for row in customers(60)])
    later = threading.Event()

    class Watched(Adding):
        def predict(self, columns: Columns) -> Outputs:
            if columns.rows and columns["a"].max() >= 1015:
                later.set()
            return super().predict(columns)

    class Waiting:
        def __init__(self, writer: AnswerWriter) -> None:
            self.writer = writer

        def write(self, entries: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
            assert later.wait(20), "nothing is scored meanwhile"
            self.writer.write(entries, mark)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.writer, name)

    class Patient:
        where = ""

        def begin(self, generation: Generation) -> Any:
            return Waiting(place.store.begin(generation))

    assert place.run(live_version(1, Watched(), floor=1), store=Patient()).keys == 60


def test_what_is_wrong_with_a_file_is_told_with_its_name(place: Place) -> None:
    place.write(customers(5), "a.csv")
    for name, content, why in (
        ("b.csv", b"", "empty"),
        ("b.csv", b"id,a\n1,2\n", "b: missing"),
        ("b.parquet", b"PAR1 and then nothing", "cannot be read"),
    ):
        (place.folder / "in" / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=f"in/{name}: .*{why}.*Nothing is published"):
            place.run()
        (place.folder / "in" / name).unlink()
    assert place.store.current() is None
