"""What every store of precomputed answers does: on LMDB, a real Redis, and memory."""

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.errors import AnswersUnavailable, FairwayError, SettingsError
from fairway.stores.answers import (
    KEY_BYTES,
    AnswerStore,
    AnswerWriter,
    Generation,
    open_answers,
)
from tests.generations import generation


class Case:
    """A store; `open` opens it again, as another worker would."""

    def __init__(self, open_store: Callable[[str], AnswerStore]) -> None:
        self._open = open_store
        self._opened: list[AnswerStore] = []
        self.store = self.open()

    def open(self, model: str = "m") -> AnswerStore:
        store = self._open(model)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture(params=["lmdb", "redis", "memory"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    unique = uuid.uuid4().hex
    url = {"lmdb": f"lmdb://{tmp_path}/answers", "memory": f"memory://{unique}"}.get(request.param)
    if url is None:
        url = request.getfixturevalue("redis_server").url
    made = Case(lambda model: open_answers(url, f"{model}-{unique}", home=tmp_path, timeout_seconds=5.0))
    yield made
    made.close()


def begin(case: Case, entries: dict[bytes, bytes], digest: str = "sha256:1") -> AnswerWriter:
    writer = case.store.begin(generation(digest))
    writer.write(entries.items(), b"mark")
    return writer


def publish(case: Case, entries: dict[bytes, bytes], digest: str = "sha256:1") -> Generation:
    writer = begin(case, entries, digest)
    writer.publish()
    return writer.generation


def found(store: AnswerStore, *keys: bytes) -> list[bytes | None]:
    return [None if stored is None else stored.entry for stored in store.get_many(keys)]


def test_an_empty_store_has_nothing(case: Case) -> None:
    assert case.store.current() is None
    assert case.store.get(b"a") is None
    assert case.store.get_many([b"a", b"b"]) == [None, None]
    assert case.store.get_many([]) == []
    assert case.store.resume() is None
    assert case.store.delete() == 0


def test_nothing_is_seen_before_it_is_published_and_then_all_of_it(case: Case) -> None:
    reader = case.open()
    writer = begin(case, {b"a": b"1", b"b": b"2"})
    assert reader.current() is None
    assert found(reader, b"a", b"b") == [None, None]
    assert writer.keys() == 2
    writer.publish()
    assert reader.current() == writer.generation
    assert found(reader, b"a", b"none", b"b") == [b"1", None, b"2"]
    stored = reader.get(b"a")
    assert stored is not None
    assert (stored.generation, stored.entry) == (writer.generation, b"1")


def test_a_new_generation_takes_the_place_of_the_old_at_once(case: Case) -> None:
    reader = case.open()
    publish(case, {b"a": b"1", b"b": b"1"})
    assert found(reader, b"a", b"b") == [b"1", b"1"]
    writer = begin(case, {b"a": b"2", b"c": b"2"}, "sha256:2")
    assert found(reader, b"a", b"b", b"c") == [b"1", b"1", None]
    writer.publish()
    assert found(reader, b"a", b"b", b"c") == [b"2", None, b"2"]
    current = reader.current()
    assert current is not None
    assert current.digest == "sha256:2"


def test_writing_the_same_keys_again_changes_nothing_and_the_later_entry_stays(case: Case) -> None:
    writer = case.store.begin(generation())
    for _ in range(2):
        writer.write([(b"a", b"1"), (b"b", b"1"), (b"a", b"2")], b"x")
    assert writer.keys() == 2
    writer.write([(b"b", b"3")], b"y")
    writer.publish()
    assert found(case.store, b"a", b"b") == [b"2", b"3"]


def test_what_was_left_is_resumed_with_its_mark(case: Case) -> None:
    publish(case, {b"old": b"0"})
    writer = begin(case, {b"a": b"1"})
    writer.close()
    other = case.open()
    again = other.resume()
    assert again is not None
    assert again.generation == writer.generation
    assert again.mark == b"mark"
    assert again.keys() == 1
    assert found(other, b"old", b"a") == [b"0", None]
    again.write([(b"b", b"2")], b"later")
    assert again.mark == b"later"
    again.publish()
    assert found(other, b"old", b"a", b"b") == [None, b"1", b"2"]
    assert other.resume() is None


def test_entries_and_mark_are_written_together_or_not_at_all(case: Case) -> None:
    writer = begin(case, {b"a": b"1"})

    def half() -> Iterator[tuple[bytes, bytes]]:
        yield b"b", b"2"
        raise ValueError("the rest cannot be made")

    with pytest.raises(ValueError, match="the rest"):
        writer.write(half(), b"never")
    writer.close()
    again = case.store.resume()
    assert again is not None
    assert again.mark == b"mark"
    assert again.keys() == 1
    again.close()


def test_generations_of_a_digest_are_deleted(case: Case) -> None:
    reader = case.open()
    publish(case, {b"a": b"1"}, "sha256:1")
    begin(case, {b"a": b"2"}, "sha256:2").close()
    assert found(reader, b"a") == [b"1"]
    assert case.store.delete("sha256:3") == 0
    assert case.store.delete("sha256:2") == 1
    assert case.store.resume() is None
    assert found(reader, b"a") == [b"1"]
    assert case.store.delete("sha256:1") == 1
    assert found(reader, b"a") == [None]
    publish(case, {b"a": b"3"})
    begin(case, {b"a": b"4"}).close()
    assert case.store.delete() == 2
    assert reader.current() is None


def test_models_do_not_see_each_other(case: Case) -> None:
    publish(case, {b"a": b"1"})
    other = case.open("other")
    assert other.get(b"a") is None
    assert other.delete() == 0
    assert found(case.store, b"a") == [b"1"]


def test_an_empty_generation_can_be_published(case: Case) -> None:
    publish(case, {b"a": b"1"})
    publish(case, {})
    assert found(case.store, b"a") == [None]
    assert case.store.current() is not None


@pytest.mark.parametrize("key", [b"", b"\x00", b"x" * (KEY_BYTES + 1), b"x" * 5000])
def test_keys_that_nobody_wrote_are_not_found(case: Case, key: bytes) -> None:
    publish(case, {b"a": b"1"})
    assert case.store.get(key) is None
    assert found(case.store, key, b"a") == [None, b"1"]


def test_long_keys_and_large_entries_are_kept(case: Case) -> None:
    entries = {b"k" * KEY_BYTES: b"x" * 3_000_000, b"\x00\xff": b"", b"small": b"\x00"}
    publish(case, entries)
    assert found(case.store, *entries) == list(entries.values())


def test_many_entries_are_kept(case: Case) -> None:
    """More than the first map of LMDB holds, in several writes."""
    writer = case.store.begin(generation())
    for part in range(5):
        writer.write(
            ((b"%d" % n, b"%d" % n * 2000) for n in range(part * 3000, (part + 1) * 3000)), b"%d" % part
        )
    assert writer.keys() == 15_000
    writer.publish()
    assert found(case.store, b"0", b"14999", b"15000") == [b"0" * 2000, b"14999" * 2000, None]


def test_readers_never_see_a_mix(case: Case) -> None:
    """While generations are published, every look-up gives answers of one of them, and never an older one again."""
    keys = [b"%d" % n for n in range(20)]
    publish(case, dict.fromkeys(keys, b"0"))
    over = threading.Event()
    wrong: list[object] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        store = case.open()
        seen = 0
        while not over.is_set():
            try:
                answers = store.get_many(keys)
            except FairwayError as error:
                wrong.append(error)
                return
            values = {
                None if answer is None else (answer.generation.version, int(answer.entry))
                for answer in answers
            }
            (value,) = values if len(values) == 1 else (None,)
            if value is None or value[0] != max(value[1], 1) or value[1] < seen:
                wrong.append((seen, values))
                return
            seen = value[1]
            reads += 1

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 40):
        writer = case.store.begin(generation(version=number))
        writer.write(((key, b"%d" % number) for key in keys), b"")
        writer.publish()
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert reads


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
    deadline=None,
)
@given(
    runs=st.lists(
        st.tuples(
            st.lists(st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3)), max_size=3),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_a_store_is_what_its_last_published_run_wrote(
    case: Case, runs: list[tuple[list[dict[bytes, bytes]], bool]]
) -> None:
    case.store.delete()
    expected: dict[bytes, bytes] = {}
    written: set[bytes] = set()
    for chunks, whole in runs:
        writer = case.store.begin(generation())
        entries: dict[bytes, bytes] = {}
        for chunk in chunks:
            writer.write(chunk.items(), b"")
            entries |= chunk
        written |= set(entries)
        if whole:
            writer.publish()
            expected = entries
        else:
            writer.close()
    keys = sorted(written)
    assert found(case.store, *keys) == [expected.get(key) for key in keys]


@pytest.mark.parametrize(
    "url", ["sqlite:///x", "ftp://x", "nothing", "lmdb://host/x", "lmdb:///", "redis://h:port"]
)
def test_a_url_of_something_else_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        open_answers(url, "m", home=tmp_path, timeout_seconds=1.0)


def test_the_default_is_below_the_home(tmp_path: Path) -> None:
    store = open_answers("", "m", home=tmp_path, timeout_seconds=1.0)
    store.begin(generation()).publish()
    assert (tmp_path / "answers" / "m" / "current.lmdb").is_file()


def test_keys_are_counted_and_removed_from_what_readers_see(case: Case) -> None:
    reader = case.open()
    assert (reader.count(), reader.remove([b"a"]), reader.remove([])) == (0, 0, 0)
    published = publish(case, {b"k%d" % i: b"%d" % i * 50 for i in range(300)})
    assert reader.count() == 300
    assert found(reader, b"k7") == [b"7" * 50]
    assert case.store.remove([b"k7", b"none", b"k9", b"k7", b"x" * (KEY_BYTES + 20)]) == 2
    assert found(reader, b"k7", b"k8", b"k9") == [None, b"8" * 50, None]
    assert reader.count() == case.store.count() == 298
    assert reader.current() == published
    assert reader.remove([]) == 0


def test_what_is_removed_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    store = open_answers("", "m", home=tmp_path, timeout_seconds=1.0)
    writer = store.begin(generation())
    writer.write([(b"%d" % i, b"secret of %d." % i) for i in range(200)], b"")
    writer.publish()
    file = tmp_path / "answers" / "m" / "current.lmdb"
    assert b"secret of 7." in file.read_bytes()
    assert store.remove([b"7"]) == 1
    assert b"secret of 7." not in file.read_bytes()
    assert b"secret of 8." in file.read_bytes()
    assert {path.name for path in file.parent.iterdir()} == {"current.lmdb", "writer.lock"}


def test_answers_that_are_being_written_are_not_touched(tmp_path: Path) -> None:
    store = open_answers("", "m", home=tmp_path, timeout_seconds=1.0)
    first = store.begin(generation())
    first.write([(b"a", b"1")], b"")
    first.publish()
    writer = store.begin(generation())
    with pytest.raises(AnswersUnavailable, match="Another process is writing"):
        store.remove([b"a"])
    writer.close()
    assert store.remove([b"a"]) == 1
    left = store.resume()
    assert left is not None
    left.close()
