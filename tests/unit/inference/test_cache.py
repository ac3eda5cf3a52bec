"""The same bytes to the same version get the same answer; anything else gets none."""

import threading
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.columns import Array, Columns, Outputs
from fairway.core.conform import to_columns
from fairway.core.contract import Contract, DType, Field
from fairway.core.errors import SettingsError
from fairway.core.settings import CacheSettings, ModelSettings, Settings
from fairway.inference.cache import LARGEST, Key, ResponseCache, cache_of
from fairway.stores.counters import Counters


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A cache, its clock and what it counts."""

    def __init__(self, max_bytes: int = 1 << 20, ttl_seconds: float = 60.0) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.cache = ResponseCache("m", max_bytes, ttl_seconds, self.counters, self.clock)

    def key(self, *values: float, digest: str = "sha256:1") -> Key:
        key = self.cache.key(digest, matrix(*values))
        assert key is not None
        return key

    def counted(self, name: str) -> float:
        return self.counters.totals()[f"fairway_cache_{name}", (("model", "m"),)]


def matrix(*values: float, dtype: str = "float64") -> Columns:
    packed = np.array([values], dtype=dtype)
    return Columns(tuple(f"f{i}" for i in range(len(values))), 1, packed=packed)


def objects(*values: Any) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def answer(value: float = 1.0) -> Outputs:
    return {"label": objects("yes"), "score": np.array([value])}


def test_the_same_request_gets_the_same_answer() -> None:
    kept = Kept()
    assert kept.cache.find(kept.key(1.0, 2.0)) is None
    kept.cache.keep(kept.key(1.0, 2.0), answer(0.5))
    found = kept.cache.find(kept.key(1.0, 2.0))
    assert found is not None
    assert found["score"].tolist() == [0.5]
    assert found["label"].tolist() == ["yes"]
    assert (kept.counted("hits_total"), kept.counted("misses_total")) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        matrix(0.0, 2.5),
        matrix(-0.0, 2.0),
        matrix(0.0, 2.0, dtype="float32"),
        matrix(0.0, np.nan),
        matrix(0.0, 2.0, 0.0),
        Columns(("f0", "f1"), 1, arrays=[np.array([0.0]), np.array([2.0])]),
        Columns(("f0", "f1"), 2, packed=np.array([[0.0, 2.0], [0.0, 2.0]])),
    ],
    ids=["value", "sign of zero", "dtype", "null", "fields", "form", "rows"],
)
def test_what_differs_in_any_way_is_another_request(other: Columns) -> None:
    kept = Kept()
    kept.cache.keep(kept.key(0.0, 2.0), answer())
    key = kept.cache.key("sha256:1", other)
    assert key is not None
    assert kept.cache.find(key) is None


def test_another_version_has_its_own_answers() -> None:
    kept = Kept()
    kept.cache.keep(kept.key(1.0), answer(1.0))
    assert kept.cache.find(kept.key(1.0, digest="sha256:2")) is None


def test_text_that_runs_together_is_told_apart() -> None:
    kept = Kept()
    columns = [
        Columns(("a", "b"), 2, arrays=[objects(*a), objects(*b)])
        for a, b in [
            (("x", "yz"), ("", None)),
            (("xy", "z"), ("", None)),
            (("x", "yz"), (None, "")),
            (("x", "yz"), ("None", "")),
        ]
    ]
    for i, one in enumerate(columns):
        kept.cache.keep(_key(kept, one), answer(i))
    for i, one in enumerate(columns):
        found = kept.cache.find(_key(kept, one))
        assert found is not None
        assert found["score"].tolist() == [i]


def test_the_same_text_is_found_whichever_objects_hold_it() -> None:
    """marshal writes references to objects it has seen, unless told not to."""
    kept = Kept()
    one = "".join(["interned", "?"])
    kept.cache.keep(_key(kept, Columns(("a",), 2, arrays=[objects(one, one)])), answer())
    apart = Columns(("a",), 2, arrays=[objects("".join(["interned", "?"]), "".join(["interned", "?"]))])
    assert kept.cache.find(_key(kept, apart)) is not None


def _key(kept: Kept, columns: Columns) -> Key:
    key = kept.cache.key("sha256:1", columns)
    assert key is not None
    return key


MIXED = Contract(
    inputs=(
        Field(name="n", dtype=DType.float64, nullable=True),
        Field(name="s", dtype=DType.string, nullable=True),
        Field(name="t", dtype=DType.timestamp, nullable=True),
    ),
    outputs=(),
)


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(width=16, allow_nan=False),  # NaNs of other bits are other requests
            st.none() | st.text(max_size=3),
            st.none() | st.datetimes().map(str),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_law_rows_share_an_answer_exactly_when_their_columns_are_equal(rows: list[tuple[Any, ...]]) -> None:
    kept = Kept()
    for i, row in enumerate(rows):
        columns = to_columns(MIXED, {name: [value] for name, value in zip("nst", row, strict=True)})
        key = kept.cache.key("sha256:1", columns)
        assert key is not None
        same = [j for j in range(i) if _form(rows[j]) == _form(row)]
        found = kept.cache.find(key)
        assert (found is not None) == bool(same)
        if found is not None:
            assert found["score"].tolist() == [same[0]]
        else:
            kept.cache.keep(key, answer(i))


def _form(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as the contract sees it: NaN is null, and a zero has a sign."""
    number = row[0]
    shown = None if number is None or np.isnan(number) else (number, str(number)[0] == "-")
    return shown, row[1], row[2]


def test_an_answer_is_kept_for_its_time_and_no_longer() -> None:
    kept = Kept(ttl_seconds=5)
    kept.cache.keep(kept.key(1.0), answer())
    kept.clock.now += 4.999
    assert kept.cache.find(kept.key(1.0)) is not None
    kept.clock.now += 0.001
    assert kept.cache.find(kept.key(1.0)) is None
    assert (len(kept.cache), kept.cache.bytes, kept.counted("bytes")) == (0, 0, 0)
    assert kept.counted("evicted_total") == 0  # time is no want of room


def test_the_least_recently_used_go_when_room_is_needed() -> None:
    size = _size_of_one()
    kept = Kept(max_bytes=size * 10)
    for i in range(10):
        kept.cache.keep(kept.key(float(i)), answer())
    assert kept.cache.find(kept.key(0.0)) is not None
    kept.cache.keep(kept.key(10.0), answer())
    assert kept.cache.find(kept.key(1.0)) is None
    assert kept.cache.find(kept.key(0.0)) is not None
    assert (len(kept.cache), kept.counted("evicted_total")) == (10, 1)
    assert kept.cache.bytes == size * 10 == kept.counted("bytes")


def _size_of_one() -> int:
    kept = Kept()
    kept.cache.keep(kept.key(1.0), answer())
    return kept.cache.bytes


def test_keeping_an_answer_again_renews_it_and_counts_it_once() -> None:
    kept = Kept(ttl_seconds=5)
    kept.cache.keep(kept.key(1.0), answer(1.0))
    kept.clock.now += 4
    kept.cache.keep(kept.key(1.0), answer(2.0))
    kept.clock.now += 4
    found = kept.cache.find(kept.key(1.0))
    assert found is not None
    assert found["score"].tolist() == [2.0]
    assert kept.cache.bytes == _size_of_one()


def test_what_takes_too_large_a_share_is_not_kept() -> None:
    kept = Kept(max_bytes=8192)
    large = np.zeros((1, 8192 // LARGEST // 8 + 1))
    assert kept.cache.key("sha256:1", Columns(("f",), 1, packed=large)) is None
    arrays = [np.zeros((1, 10_000))]
    assert kept.cache.key("sha256:1", Columns(("f",), 1, arrays=arrays)) is None
    kept.cache.keep(kept.key(1.0), {"embedding": np.zeros((1, 1000))})
    assert len(kept.cache) == 0


def test_what_one_caller_does_with_an_answer_no_other_sees() -> None:
    kept = Kept()
    given_out = answer(1.0)
    kept.cache.keep(kept.key(1.0), given_out)
    given_out["score"][0] = 99.0
    first = kept.cache.find(kept.key(1.0))
    assert first is not None
    with pytest.raises(ValueError, match="read-only"):
        first["score"][0] = 99.0
    del first["score"]
    second = kept.cache.find(kept.key(1.0))
    assert second is not None
    assert second["score"].tolist() == [1.0]


def test_a_part_of_a_batch_does_not_hold_the_batch() -> None:
    kept = Kept()
    batch = np.arange(1_000_000.0)
    kept.cache.keep(kept.key(1.0), {"score": batch[5:6]})
    found = kept.cache.find(kept.key(1.0))
    assert found is not None
    assert found["score"].base is None
    assert found["score"].flags.owndata


def test_answers_that_could_change_are_not_kept() -> None:
    kept = Kept()
    kept.cache.keep(kept.key(1.0), {"boxes": objects([1, 2])})
    assert len(kept.cache) == 0


@pytest.mark.parametrize("kind", ["matrix", "columns", "text"])
def test_bytes_are_what_memory_says(kind: str) -> None:
    kept, rng, many = Kept(max_bytes=1 << 28), np.random.default_rng(0), 2000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(many):
        outputs: Outputs = {"score": np.array([float(i)]), "probabilities": rng.random((1, 2))}
        if kind == "matrix":
            columns = Columns(("f",) * 30, 1, packed=rng.random((1, 30)))
        elif kind == "columns":
            columns = Columns(("a", "b"), 1, arrays=[objects(f"name {i}"), rng.random(1)])
        else:
            columns, outputs = matrix(float(i)), {"text": objects(f"an answer of some length, {i}" * 20)}
        key = kept.cache.key("sha256:" + "0" * 64, columns)
        assert key is not None
        kept.cache.keep(key, outputs)
        del key, outputs, columns
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(kept.cache) == many
    assert 0.75 * taken < kept.cache.bytes < 1.5 * taken


def test_threads_may_share_a_cache() -> None:
    kept = Kept(max_bytes=_size_of_one() * 20)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 40, 400).tolist():
            found = kept.cache.find(kept.key(float(i)))
            if found is None:
                kept.cache.keep(kept.key(float(i)), answer(i))
            elif found["score"].tolist() != [i]:
                wrong.append(f"{i}: {found}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kept.cache.bytes <= _size_of_one() * 20
    assert kept.counted("hits_total") + kept.counted("misses_total") == 1600


def test_a_cleared_cache_is_empty() -> None:
    kept = Kept()
    kept.cache.keep(kept.key(1.0), answer())
    kept.cache.clear()
    assert kept.cache.find(kept.key(1.0)) is None
    assert (len(kept.cache), kept.cache.bytes, kept.counted("bytes")) == (0, 0, 0)


def test_models_have_a_cache_only_where_settings_say_so() -> None:
    assert cache_of(Settings(), "m", Counters()) is None
    everywhere = Settings(cache=CacheSettings(max_bytes=1000))
    assert cache_of(everywhere, "m", Counters()) is not None
    own = Settings(
        cache=CacheSettings(max_bytes=1000),
        models={"off": ModelSettings(cache_bytes=0), "none": ModelSettings(cache_seconds=0)},
    )
    assert cache_of(own, "off", Counters()) is None
    assert cache_of(own, "none", Counters()) is None
    one = Settings(models={"m": ModelSettings(cache_bytes=1000, cache_seconds=5)})
    assert cache_of(one, "m", Counters()) is not None
    assert cache_of(one, "other", Counters()) is None


def test_a_time_without_room_is_told() -> None:
    settings = Settings(models={"m": ModelSettings(cache_seconds=5)})
    with pytest.raises(SettingsError, match=r"\[models.m\] has cache_seconds = 5 .* Set cache_bytes"):
        cache_of(settings, "m", Counters())


def test_sizes_and_times_are_not_negative() -> None:
    for wrong in ({"cache": {"max_bytes": -1}}, {"models": {"m": {"cache_seconds": -1}}}):
        with pytest.raises(msgspec.ValidationError, match=">= 0"):
            msgspec.convert(wrong, Settings)
