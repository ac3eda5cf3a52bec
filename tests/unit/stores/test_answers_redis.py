"""What is particular to Redis: a server that is away, one that is full, what expires."""

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fairway.core.errors import AnswersUnavailable, NewerFormat, SettingsError, StorageFull
from fairway.stores.answers import FORMAT
from fairway.stores.answers_redis import UNFINISHED_SECONDS, RedisAnswers
from tests.generations import generation
from tests.services import Redis


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Redis]:
    """One that the test may stop."""
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


def open_model(server: Redis, model: str = "", timeout_seconds: float = 5.0) -> RedisAnswers:
    return RedisAnswers(server.url, model or uuid.uuid4().hex, timeout_seconds=timeout_seconds)


def put(store: RedisAnswers, entry: bytes) -> None:
    writer = store.begin(generation())
    writer.write([(b"a", entry)], b"")
    writer.publish()


def test_a_server_that_goes_away_is_told_and_found_again(own_server: Redis) -> None:
    store = open_model(own_server, "m")
    put(store, b"1")
    writer = store.begin(generation())
    writer.write([(b"a", b"2")], b"half")
    own_server.stop()
    for attempt in (lambda: store.get(b"a"), store.current, lambda: writer.write([], b""), writer.publish):
        with pytest.raises(AnswersUnavailable, match="does not answer"):
            attempt()
    own_server.start()
    found = store.get(b"a")
    assert found is not None
    assert found.entry == b"1"
    writer.write([(b"b", b"2")], b"whole")
    writer.publish()
    answers = store.get_many([b"a", b"b"])
    assert [answer and answer.entry for answer in answers] == [b"2", b"2"]
    store.close()


def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = RedisAnswers(f"redis://127.0.0.1:{silent.getsockname()[1]}", "m", timeout_seconds=0.05)
        with pytest.raises(AnswersUnavailable, match="does not answer"):
            store.get(b"a")
        store.close()


def test_a_full_server_is_told(own_server: Redis) -> None:
    store = open_model(own_server, "m")
    put(store, b"1")
    writer = store.begin(generation())
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(StorageFull, match="maxmemory"):
            writer.write([(b"a", b"2")], b"")
        client.config_set("maxmemory", "0")
    found = store.get(b"a")
    assert found is not None
    assert found.entry == b"1"
    assert writer.keys() == 0
    writer.close()
    store.close()


def test_what_is_unfinished_expires_and_what_is_published_does_not(redis_server: Redis) -> None:
    model = uuid.uuid4().hex
    store = open_model(redis_server, model)
    writer = store.begin(generation())
    writer.write([(b"a", b"1")], b"x")
    name = f"fairway:{{{model}}}:{writer.generation.id}"
    with redis.Redis.from_url(redis_server.url) as client:
        for part in ("answers", "generation", "mark"):
            assert 0 < client.ttl(f"{name}:{part}") <= UNFINISHED_SECONDS
        writer.publish()
        assert client.ttl(f"{name}:answers") == client.ttl(f"{name}:generation") == -1
        put(store, b"2")
        assert not client.exists(f"{name}:answers", f"{name}:generation", f"{name}:mark")
        unfinished = store.begin(generation())
        client.delete(f"fairway:{{{model}}}:{unfinished.generation.id}:generation")  # as if it had expired
        assert store.resume() is None
        assert client.scard(f"fairway:{{{model}}}:generations") == 0
        with pytest.raises(AnswersUnavailable, match="not there any more"):
            unfinished.publish()
    unfinished.close()
    store.close()


def test_runs_on_two_machines_do_not_disturb_each_other(redis_server: Redis) -> None:
    model = uuid.uuid4().hex
    one, two = open_model(redis_server, model), open_model(redis_server, model)
    first, second = one.begin(generation()), two.begin(generation())
    first.write([(b"a", b"1")], b"")
    second.write([(b"a", b"2")], b"")
    second.publish()
    first.publish()
    found = two.get(b"a")
    assert found is not None
    assert found.entry == b"1"
    one.close()
    two.close()


def test_of_two_that_resume_the_same_run_one_publishes_it(redis_server: Redis) -> None:
    """They write the same; and what is published does not expire because the other one writes on."""
    model = uuid.uuid4().hex
    one, two = open_model(redis_server, model), open_model(redis_server, model)
    first = one.begin(generation())
    first.write([(b"a", b"1")], b"x")
    second = two.resume()
    assert second is not None
    assert second.mark == b"x"
    second.write([(b"b", b"1")], b"y")
    first.write([(b"b", b"1")], b"y")
    second.publish()
    with pytest.raises(AnswersUnavailable, match="Another process has published"):
        first.write([(b"c", b"1")], b"z")
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.ttl(f"fairway:{{{model}}}:{first.generation.id}:answers") == -1
    assert [answer and answer.entry for answer in one.get_many([b"a", b"b", b"c"])] == [b"1", b"1", None]
    first.close()
    one.close()
    two.close()


@pytest.mark.parametrize("unfinished", [False, True])
def test_what_is_published_while_the_one_before_is_deleted_is_read(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch, unfinished: bool
) -> None:
    """Whoever deletes has looked which one is read; by the time that it deletes, it is another."""
    model = uuid.uuid4().hex
    store, other = open_model(redis_server, model), open_model(redis_server, model)
    put(store, b"old")
    writer = other.begin(generation(digest="sha256:new"))
    writer.write([(b"a", b"new")], b"")
    real = store._generation

    def late(name: str) -> object:
        found = real(name)
        if not published:
            published.append(name)
            writer.publish()
        return found

    published: list[str] = []
    monkeypatch.setattr(store, "_generation", late)
    deleted = store.delete("sha256:new" if unfinished else generation().digest)
    monkeypatch.undo()
    found = other.get(b"a")
    if unfinished and deleted:
        assert found is None
    else:
        assert found is not None
        assert found.entry == b"new"
    assert other.get(b"another key") is None
    store.close()
    other.close()


def test_a_newer_format_is_refused(redis_server: Redis) -> None:
    store = open_model(redis_server)
    store.begin(generation(format=FORMAT + 1)).publish()
    with pytest.raises(NewerFormat, match="Update Fairway"):
        store.get(b"a")
    store.close()


def test_a_wrong_password_is_told_without_repeating_it(redis_server: Redis) -> None:
    url = redis_server.url.replace("redis://", "redis://ann:hunter2@")
    store = RedisAnswers(url, "m", timeout_seconds=5.0)
    with pytest.raises(AnswersUnavailable) as caught:
        store.get(b"a")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in store.where
    store.close()


def test_without_the_package_the_extra_is_named() -> None:
    program = """
import sys
from pathlib import Path
sys.modules["redis"] = None
from fairway.core.errors import MissingExtra
from fairway.stores.answers import open_answers
try:
    open_answers("redis://localhost", "m", home=Path(), timeout_seconds=1.0)
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'fairway[redis]'" in done.stdout


def test_a_worker_that_has_no_redis_store_does_not_import_it() -> None:
    program = """
import sys, tempfile
from pathlib import Path
import fairway.inference.precomputed
from fairway.stores.answers import open_answers
assert "lmdb" not in sys.modules
open_answers("", "m", home=Path(tempfile.mkdtemp()), timeout_seconds=1.0).get(b"a")
print(*(name for name in ("redis", "pyarrow", "pandas", "sqlalchemy") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="Redis"):
        RedisAnswers("redis://host:port", "m", timeout_seconds=1.0)
