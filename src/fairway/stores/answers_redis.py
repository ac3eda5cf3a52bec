"""Precomputed answers in Redis, for servers on many machines.

A generation is one hash, `fairway:{MODEL}:<id>:answers`, so removing it is one command and all of a model lies on one
node of a cluster. `fairway:{MODEL}:current` says which one is read. A read asks for that and for the entries in one
transaction, so answers of two generations are never mixed. What a run that died has written goes after a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fairway.core.errors import AnswersUnavailable, MissingExtra, SettingsError, StorageFull
from fairway.stores.answers import Generation, Stored, read_generation

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:  # an optional package
    raise MissingExtra(
        "Precomputed answers in Redis need the package redis.", hint="Run: pip install 'fairway[redis]'"
    ) from error

UNFINISHED_SECONDS = 7 * 86_400
"""How long an unfinished generation stays after its last write."""
_WRITE_SECONDS = 30.0
"""Longest that one batch of writes may take."""
_PIPELINED = 2_000
"""Entries of one command."""
_ATTEMPTS = 5


class RedisAnswers:
    may_block = True

    def __init__(self, url: str, model: str, *, timeout_seconds: float) -> None:
        self.where = _without_secrets(url)
        self._url = url
        self._name = f"fairway:{{{model}}}"
        self._redis = self._connect(timeout_seconds)
        self._known: Generation | None = None

    def current(self) -> Generation | None:
        with self._errors():
            named: Any = self._redis.get(f"{self._name}:current")
            return None if named is None else self._generation(named.decode())

    def get(self, key: bytes) -> Stored | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        if not keys:
            return []
        with self._errors():
            known = self._known
            for _ in range(_ATTEMPTS):
                if known is None:
                    now: Any = self._redis.get(f"{self._name}:current")
                    if now is None:
                        self._known = None
                        return [None] * len(keys)
                    known = self._generation(now.decode())
                    if known is None:
                        continue  # replaced since
                pipe = self._redis.pipeline(transaction=True)
                pipe.get(f"{self._name}:current")
                pipe.hmget(self._part(known.id, "answers"), list(keys))
                named, found = pipe.execute()
                if named is not None and named.decode() == known.id:
                    self._known = known
                    return [None if entry is None else Stored(known, entry) for entry in found]
                known = None
        raise AnswersUnavailable(f"The answers in {self.where} are replaced all the time.")

    def begin(self, generation: Generation) -> RedisWriter:
        with self._errors():
            pipe = self._redis.pipeline(transaction=True)
            name = self._part(generation.id, "generation")
            pipe.set(name, msgspec.msgpack.encode(generation), ex=UNFINISHED_SECONDS)
            pipe.sadd(f"{self._name}:generations", generation.id)
            pipe.execute()
        return self._writer(generation, b"")

    def resume(self) -> RedisWriter | None:
        with self._errors():
            for name in self._unfinished():
                generation = self._generation(name)
                if generation is not None:
                    mark: Any = self._redis.get(self._part(name, "mark"))
                    return self._writer(generation, mark or b"")
        return None

    def delete(self, digest: str | None = None) -> int:
        gone = 0
        with self._errors():
            named: Any = self._redis.get(f"{self._name}:current")
            current = [] if named is None else [named.decode()]
            for name in [*current, *self._unfinished()]:
                generation = self._generation(name)
                if generation is None or digest not in (None, generation.digest):
                    continue
                self._delete(name)
                gone += 1
        return gone

    def _delete(self, name: str) -> None:
        """A generation, and the word that it is read, unless another has been published meanwhile."""
        current = f"{self._name}:current"

        def forget(pipe: Any) -> None:
            named = pipe.get(current)
            pipe.multi()
            if named is not None and named.decode() == name:
                pipe.delete(current)
            self._forget(pipe, name)

        self._redis.transaction(forget, current)  # again, as long as others change what it has read

    def count(self) -> int:
        with self._errors():
            named: Any = self._redis.get(f"{self._name}:current")
            there: Any = 0 if named is None else self._redis.hlen(self._part(named.decode(), "answers"))
            return int(there)

    def remove(self, keys: Sequence[bytes]) -> int:
        with self._errors():
            named: Any = self._redis.get(f"{self._name}:current")
            if named is None or not keys:
                return 0
            gone: Any = self._redis.hdel(self._part(named.decode(), "answers"), *keys)
            return int(gone)

    def close(self) -> None:
        self._redis.close()

    def _connect(self, timeout_seconds: float) -> redis.Redis:
        try:
            return redis.Redis.from_url(
                self._url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=min(timeout_seconds, 2.0),
                retry=Retry(NoBackoff(), 0),  # who waits for an answer has a live model to ask instead
                protocol=2,
            )
        except ValueError as error:
            raise SettingsError(f"{self.where} is not a URL of a Redis server: {error}.") from error

    def _writer(self, generation: Generation, mark: bytes) -> RedisWriter:
        return RedisWriter(self, self._connect(_WRITE_SECONDS), generation, mark)

    def _unfinished(self) -> list[str]:
        """Names, the latest first. Those that have expired are taken off the list."""
        members: Any = self._redis.smembers(f"{self._name}:generations")
        names = sorted((member.decode() for member in members), reverse=True)
        gone = [name for name in names if not self._redis.exists(self._part(name, "generation"))]
        if gone:
            self._redis.srem(f"{self._name}:generations", *gone)
        return [name for name in names if name not in gone]

    def _generation(self, name: str) -> Generation | None:
        """None when it was removed meanwhile."""
        stored: Any = self._redis.get(self._part(name, "generation"))
        return None if stored is None else read_generation(stored, self.where)

    def _part(self, name: str, part: str) -> str:
        return f"{self._name}:{name}:{part}"

    def _forget(self, pipe: Any, name: str) -> None:
        pipe.unlink(*(self._part(name, part) for part in ("answers", "mark", "generation")))
        pipe.srem(f"{self._name}:generations", name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Redis's errors by meaning."""
        try:
            yield
        except redis.OutOfMemoryError as error:
            raise StorageFull(
                f"{self.where} has no memory left ({error}).",
                hint="Raise its maxmemory, or shorten what it keeps.",
            ) from error
        except redis.AuthenticationError as error:
            raise AnswersUnavailable(
                f"{self.where} refuses the password ({error}).",
                hint="Put user and password in the store's URL.",
            ) from error
        except redis.RedisError as error:
            raise AnswersUnavailable(f"{self.where} does not answer: {str(error).rstrip('.')}.") from error


class RedisWriter:
    def __init__(self, store: RedisAnswers, client: redis.Redis, generation: Generation, mark: bytes) -> None:
        self._store = store
        self._redis = client
        self._generation = generation
        self._mark = mark
        self._current = f"{store._name}:current"

    @property
    def generation(self) -> Generation:
        return self._generation

    @property
    def mark(self) -> bytes:
        return self._mark

    def write(self, entries: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
        """All in one transaction: a run that is killed has written a chunk or nothing of it. Refused when another
        process has gone on with the same generation and published it."""
        latest = list(dict(entries).items())
        answers, mine = self._part("answers"), self._generation.id

        def add(pipe: Any) -> None:
            named = pipe.get(self._current)
            if named is not None and named.decode() == mine:
                raise AnswersUnavailable(f"Another process has published this run in {self._store.where}.")
            pipe.multi()
            for start in range(0, len(latest), _PIPELINED):
                pipe.hset(answers, mapping=dict(latest[start : start + _PIPELINED]))
            pipe.set(self._part("mark"), mark, ex=UNFINISHED_SECONDS)
            pipe.expire(answers, UNFINISHED_SECONDS)
            pipe.expire(self._part("generation"), UNFINISHED_SECONDS)

        with self._store._errors():
            self._redis.transaction(add, self._current)
        self._mark = mark

    def keys(self) -> int:
        with self._store._errors():
            count: Any = self._redis.hlen(self._part("answers"))
            return int(count)

    def publish(self) -> None:
        store, mine, current = self._store, self._generation.id, self._current

        def switch(pipe: Any) -> None:
            before = pipe.get(current)
            pipe.multi()
            pipe.set(current, mine)
            pipe.persist(self._part("answers"))
            pipe.persist(self._part("generation"))
            pipe.unlink(self._part("mark"))
            pipe.srem(f"{store._name}:generations", mine)
            if before is not None and before.decode() != mine:
                store._forget(pipe, before.decode())

        with store._errors():
            if not self._redis.exists(self._part("generation")):
                raise AnswersUnavailable(
                    f"What was written to {store.where} is not there any more.",
                    hint="Has it been deleted, or the server restarted without its data? Precompute again.",
                )
            self._redis.transaction(switch, current)  # again, as long as others change what it has read
        self.close()

    def close(self) -> None:
        self._redis.close()

    def _part(self, part: str) -> str:
        return self._store._part(self._generation.id, part)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
