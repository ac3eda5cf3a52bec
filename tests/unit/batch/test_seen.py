"""What a run's rows look like: counts that add up, and drift that is there or is not."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.batch.seen import Watch
from fairway.core.columns import Columns
from fairway.core.contract import Contract, DType, Field, Output
from fairway.packaging.profile import make_profile

MIXED = Contract(
    inputs=(
        Field(name="size", dtype=DType.float64),
        Field(name="colour", dtype=DType.string),
        Field(name="member", dtype=DType.bool),
        Field(name="visits", dtype=DType.int64),
    ),
    outputs=(Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),),
)
NUMBERS = Contract(
    inputs=tuple(Field(name=name, dtype=DType.float32) for name in "abc"),
    outputs=(Output(name="label", dtype=DType.int64),),
)


def mixed(rows: int, seed: int, *, shift: float = 0.0, colours: str = "rgb", members: float = 0.5) -> Columns:
    random = np.random.default_rng(seed)
    arrays = [
        random.normal(shift, 1, rows),
        np.array([*random.choice(list(colours), rows)], dtype=object),
        random.random(rows) < members,
        random.poisson(3, rows),
    ]
    return Columns(tuple(field.name for field in MIXED), rows, arrays=arrays)


def answers(rows: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    yes = np.random.default_rng(seed).beta(2 + shift, 2, rows).astype(np.float32)
    return {"probabilities": np.stack([1 - yes, yes], axis=1)}


def watch() -> Watch:
    return Watch(MIXED, make_profile(MIXED, mixed(5000, 0), answers(5000, 0)))


def numbers(values: np.ndarray) -> Columns:
    return Columns(("a", "b", "c"), len(values), packed=values.astype(np.float32))


def labels(rows: int) -> dict[str, np.ndarray]:
    return {"label": np.arange(rows) % 3}


def test_without_drift_none_is_seen() -> None:
    eye = watch()
    for seed in range(1, 60):
        columns = eye.summarise(eye.see(mixed(400, seed), answers(400, seed)))
        assert [c.name for c in columns if c.drifted] == []
    assert [c.name for c in columns] == [
        "size",
        "colour",
        "member",
        "visits",
        "probabilities[no]",
        "probabilities[yes]",
    ]
    assert [c.is_output for c in columns] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shift": 0.7}, {"size"}),
        ({"colours": "rrrrgb"}, {"colour"}),
        ({"members": 0.8}, {"member"}),
        ({"shift": 0.7, "members": 0.1, "colours": "rx"}, {"size", "member", "colour"}),
    ],
)
def test_drift_is_seen_where_it_is(change: dict[str, object], expected: set[str]) -> None:
    eye = watch()
    total = eye.see(mixed(500, 7, **change), answers(500, 7))  # type: ignore[arg-type]
    columns = {c.name: c for c in eye.summarise(total)}
    assert {name for name, c in columns.items() if c.drifted} == expected
    if "x" in str(change.get("colours", "")):
        assert columns["colour"].unknown == pytest.approx(0.5, abs=0.1)
    assert (columns["colour"].mean, columns["size"].training_mean is None) == (None, False)


def test_a_drift_of_the_answers_is_seen() -> None:
    eye = watch()
    columns = eye.summarise(eye.see(mixed(500, 3), answers(500, 3, shift=4)))
    assert [c.name for c in columns if c.drifted] == ["probabilities[no]", "probabilities[yes]"]


def test_that_time_has_passed_is_no_drift() -> None:
    contract = Contract(inputs=(Field(name="at", dtype=DType.timestamp),), outputs=NUMBERS.outputs)

    def hours(begin: str) -> Columns:
        at = np.datetime64(begin, "us") + np.arange(500) * np.timedelta64(1, "h")
        return Columns(("at",), 500, arrays=[at])

    eye = Watch(contract, make_profile(contract, hours("2026-01-01"), labels(500)))
    later = eye.summarise(eye.see(hours("2026-06-01"), labels(500)))[0]
    assert (later.name, later.rows, later.psi, later.drifted) == ("at", 500, None, False)


def test_few_rows_are_no_drift() -> None:
    eye = watch()
    columns = eye.summarise(eye.see(mixed(20, 7, shift=3), answers(20, 7)))
    assert not any(c.drifted for c in columns)
    assert eye.summarise(eye.nothing()) == ()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_counts_add_up_whatever_the_chunks(sizes: list[int]) -> None:
    values = np.random.default_rng(0).normal(size=(sum(sizes), 3)) * 3
    values[::7, 0], values[::11, 1], values[1::11, 1] = np.nan, np.inf, -np.inf
    reference = make_profile(NUMBERS, numbers(np.random.default_rng(1).normal(size=(300, 3))), labels(300))
    eye = Watch(NUMBERS, reference)
    chunks, begin = [], 0
    for size in sizes:
        some = {"label": labels(sum(sizes))["label"][begin : begin + size]}
        chunks.append(eye.see(numbers(values[begin : begin + size]), some))
        begin += size
    total = eye.total(chunk.tolist() for chunk in chunks)
    assert np.allclose(total, eye.see(numbers(values), labels(sum(sizes))))


def test_a_matrix_is_counted_as_its_columns_are() -> None:
    values = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    values[::7, 0], values[::11, 1] = np.nan, np.inf
    reference = make_profile(NUMBERS, numbers(np.random.default_rng(1).normal(size=(300, 3))), labels(300))
    eye = Watch(NUMBERS, reference)
    apart = Columns(("a", "b", "c"), 200, arrays=[values[:, i].copy() for i in range(3)])
    assert np.allclose(eye.see(numbers(values), labels(200)), eye.see(apart, labels(200)))
    a = eye.summarise(eye.see(numbers(values), labels(200)))[0]
    assert (a.rows, a.nulls, a.minimum) == (200, 29 / 200, float(np.nanmin(values[:, 0])))


def test_the_runs_profile_is_of_the_references_kind() -> None:
    eye = watch()
    columns = mixed(300, 5)
    profile = eye.profile(eye.see(columns, answers(300, 5)))
    direct = make_profile(MIXED, columns, answers(300, 5))
    assert profile.rows == 300
    size, same = profile.field("size"), direct.field("size")
    assert size is not None
    assert same is not None
    assert size.mean == pytest.approx(same.mean)
    assert size.deviation == pytest.approx(same.deviation)
    assert sum(size.counts) == 300
    colour = profile.field("colour")
    assert colour is not None
    assert dict(colour.categories) == dict(direct.field("colour").categories)  # type: ignore[union-attr]
    assert msgspec.json.decode(msgspec.json.encode(profile), type=type(profile)) == profile


def test_what_json_has_no_form_for_is_not_in_it() -> None:
    reference = make_profile(NUMBERS, numbers(np.ones((10, 3))), labels(10))
    eye = Watch(NUMBERS, reference)
    huge = numbers(np.full((50, 3), 3e38))
    total = eye.add(eye.see(huge, labels(50)), eye.see(huge, labels(50)))
    assert np.isfinite(total).all()
    assert eye.summarise(eye.total([[1.0, 2.0]])) == ()  # a part written by another version
