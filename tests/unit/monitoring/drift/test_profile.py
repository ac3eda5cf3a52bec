"""Sketches add up, survive being sent, and drift from them is the drift of the rows."""

import datetime

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.columns import Columns
from fairway.core.contract import Category, Contract, DType, Field, Output
from fairway.core.errors import MalformedInput, NewerFormat, PayloadTooLarge
from fairway.core.settings import DriftSettings
from fairway.monitoring.drift import profile as profiles
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.drift.compare_profiles import compare_profiles
from fairway.monitoring.drift.profile import Profile, kinds_of
from fairway.monitoring.drift.sketches import DIRECTIONS, ColumnSketch
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.tables import open_table
from fairway.packaging.profile import make_profile

QUICK = DriftSettings(resamples=400)
START = datetime.datetime(2026, 1, 1)


def window(rows: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    gaps = np.where(rng.random(rows) < 0.05, np.nan, rng.standard_normal(rows))
    return {
        "x": gaps,
        "n": rng.poisson(4, rows),
        "inf": np.where(rng.random(rows) < 0.01, np.inf, rng.standard_normal(rows)),
        "c": rng.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2]).tolist(),
        "b": rng.random(rows) < 0.4,
        "t": [
            " ".join(rng.choice(["late", "order", "refund", "card", "thanks", "where", "is"], 9))
            for _ in range(rows)
        ],
        "e": rng.standard_normal((rows, 80)).astype("f4"),
        "when": [START + datetime.timedelta(minutes=int(i)) for i in range(rows)],
    }


def table(columns: dict) -> pa.Table:
    return open_table(columns)._table  # the columns as Arrow has them


def exact_parts(profile: Profile) -> dict:
    return {
        name: (s.kind, s.rows, s.missing, s.above, s.below, s.count, s.categories(), s.earliest, s.latest, s.texts and s.word_counts())
        for name, s in profile.columns.items()
    }  # fmt: skip


@given(st.lists(st.integers(1, 120), min_size=2, max_size=6), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_the_profile_of_the_whole_is_the_sum_of_the_parts(sizes: list[int], seed: int) -> None:
    """Counts, gaps, categories, words and times to the row; moments to rounding; quantiles within the sketch's error."""
    rows = table(window(sum(sizes), seed))
    kinds = {name: sketch.kind for name, sketch in Profile.of(rows).columns.items()}
    whole, parts, at = Profile.of(rows, kinds), Profile(kinds), 0
    for size in sizes:
        part = Profile.of(rows.slice(at, size), kinds)
        parts.merge(Profile.from_bytes(part.to_bytes()))
        at += size
    assert parts.rows == whole.rows
    assert exact_parts(parts) == exact_parts(whole)
    for name, sketch in whole.columns.items():
        other = parts.columns[name]
        assert other.mean == pytest.approx(sketch.mean, abs=1e-9)
        assert other.deviation == pytest.approx(sketch.deviation, abs=1e-9)
        assert other.sums == pytest.approx(sketch.sums, abs=1e-6)
        if sketch.count:
            assert other.quantiles.get_quantile(0.5) == sketch.quantiles.get_quantile(
                0.5
            )  # below a thousand rows: exact


def test_quantiles_of_many_parts_are_within_the_stated_error() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.standard_normal(200_000))
    merged = Profile({"x": Kind.number})
    for part in np.array_split(values, 40):
        merged.merge(Profile.of({"x": part}))
    shares = np.linspace(0.01, 0.99, 50)
    found = merged.columns["x"].quantiles.get_quantiles(shares.tolist())
    ranks = np.searchsorted(np.sort(values), found) / len(values)
    assert np.abs(ranks - shares).max() < 0.0054  # twice the 99% error of one quantile
    assert merged.columns["x"].mean == pytest.approx(values.mean())
    assert merged.columns["x"].deviation == pytest.approx(values.std())


def test_distinct_values_and_frequent_ones_of_many() -> None:
    profile = Profile({"c": Kind.category})
    for part in range(5):
        profile.merge(
            Profile.of(
                {"c": np.array(["top"] * 5000 + [f"v{part}-{i}" for i in range(4000)], object)},
                {"c": Kind.category},
            )
        )
    sketch = profile.columns["c"]
    assert sketch.distinct.get_estimate() == pytest.approx(20_001, rel=0.05)
    assert sketch.categories()["top"] == pytest.approx(25_000, rel=0.01)
    assert len(profile.to_bytes()) < 200_000


def test_a_profile_is_small_and_survives_being_sent() -> None:
    profile = Profile.of(table(window(500, 0)), start="2026-01-01T00:00:00Z", end="2026-01-01T01:00:00Z")
    content = profile.to_bytes()
    again = Profile.from_bytes(content)
    assert exact_parts(again) == exact_parts(profile)
    assert (again.start, again.end, again.rows) == (profile.start, profile.end, 500)
    assert len(content) < 100_000
    assert (
        again.columns["when"].latest
        == int(START.replace(tzinfo=datetime.UTC).timestamp() * 1e6) + 499 * 60_000_000
    )
    again.merge(Profile(start="2025-12-31T23:00:00Z", end="2026-01-01T00:00:00Z"))
    assert again.start == "2025-12-31T23:00:00Z"


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\x80", msgspec.msgpack.encode({"format": 1, "rows": "x", "k": 1})]
)
def test_what_is_no_profile_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedInput):
        Profile.from_bytes(content)


def test_damaged_newer_and_oversized_profiles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile.of({"x": np.arange(5000.0)})
    state = msgspec.msgpack.decode(profile.to_bytes())
    state["columns"]["x"]["quantiles"] = state["columns"]["x"]["quantiles"][:50]
    with pytest.raises(MalformedInput, match="damaged"):
        Profile.from_bytes(msgspec.msgpack.encode(state))
    with pytest.raises(NewerFormat):
        Profile.from_bytes(msgspec.msgpack.encode({**state, "format": 99}))
    monkeypatch.setattr(profiles, "MOST_BYTES", 10)
    with pytest.raises(PayloadTooLarge):
        Profile.from_bytes(profile.to_bytes())


def test_columns_of_other_kinds_or_shapes_do_not_add_up() -> None:
    number, text = Profile.of({"x": np.arange(5.0)}), Profile.of({"x": np.array(["a"] * 5, object)})
    with pytest.raises(MalformedInput, match="number cannot take one of category"):
        number.merge(text)
    three, four = Profile.of({"e": np.zeros((5, 3))}), Profile.of({"e": np.zeros((5, 4))})
    with pytest.raises(MalformedInput):
        three.merge(four)
    with pytest.raises(MalformedInput):
        three.update({"e": np.zeros((5, 4))})
    with pytest.raises(MalformedInput, match="is no number"):
        number.update(pa.table({"x": ["text"]}))


def test_known_kinds_pass_other_columns_over() -> None:
    profile = Profile({"x": Kind.number})
    profile.update(pa.table({"x": [1, None], "other": ["a", "b"]}))
    assert list(profile.columns) == ["x"]
    assert profile.columns["x"].missing == 1
    assert profile.rows == 2


def test_many_elements_are_projected_alike_everywhere() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 300))
    one, two = ColumnSketch(Kind.tensor), ColumnSketch(Kind.tensor)
    one.update_tensors(values)
    two.update_tensors(values.reshape(100, 30, 10))
    assert len(one.sums) == DIRECTIONS
    assert np.allclose(one.sums, two.sums)
    values[0, 0], values[1, 0] = np.nan, np.inf
    one.update_tensors(values)
    assert (one.missing, one.above, one.count) == (1, 1, 198)


def test_drift_from_profiles_is_the_drift_of_the_rows() -> None:
    before, same, after = window(4000, 0), window(800, 1), window(800, 2)
    after["x"] = after["x"] + 0.4
    after["c"] = ["b" if c == "a" and i % 3 == 0 else c for i, c in enumerate(after["c"])]
    after["b"] = np.random.default_rng(9).random(800) < 0.6
    after["e"] = after["e"] + 0.15
    after["t"] = [text.replace("refund", "invoice") for text in after["t"]]
    report = compare_profiles(Profile.of(table(before)), Profile.of(table(after)), QUICK)
    rows = compare_tables(open_table(before), open_table(after), QUICK)
    assert (
        {c.name for c in report.drifted_columns}
        == {c.name for c in rows.drifted_columns}
        == {"x", "c", "b", "e", "t"}
    )
    assert report.column("x").effect == pytest.approx(rows.column("x").effect, rel=0.1)
    assert report.column("c").effect == pytest.approx(rows.column("c").effect)
    assert not compare_profiles(Profile.of(table(before)), Profile.of(table(same)), QUICK).drifted


def test_a_sketchs_error_is_not_taken_for_drift() -> None:
    """Twelve columns of 300,000 rows on both sides, where sampling alone would see the sketch's error."""
    rng = np.random.default_rng(0)
    sides = [Profile.of({f"x{i}": rng.standard_normal(300_000) for i in range(12)}, k=200) for _ in range(2)]
    report = compare_profiles(
        sides[0], sides[1], DriftSettings(resamples=400, spread_floor=0, share_floor=0, rate_floor=0)
    )
    assert min(column.p_adjusted for column in report.columns) > 0.03


def test_absent_new_and_retyped_columns_of_profiles() -> None:
    before = Profile.of({"x": np.arange(100.0), "y": np.arange(100.0)})
    after = Profile.of({"y": np.array(["a", "b"] * 50, object), "z": np.arange(100.0)})
    report = compare_profiles(before, after, QUICK)
    assert report.column("x").status == "absent from the current window"
    assert report.column("y").status == "of another type: number before, category now"
    assert report.notes == ("Column 'z' is new: the reference has none.",)
    assert report.drifted


def test_the_reference_in_a_bundle_is_compared() -> None:
    rng = np.random.default_rng(0)
    contract = Contract(
        inputs=(
            Field(name="x", dtype=DType.float64, nullable=True),
            Field(name="n", dtype=DType.int64),
            Field(name="c", dtype=DType.string, categories=(Category("a", 0.7), Category("b", 0.3))),
            Field(name="flag", dtype=DType.bool),
            Field(name="t", dtype=DType.string),
            Field(name="e", dtype=DType.float32, shape=(3,)),
            Field(name="when", dtype=DType.timestamp),
        ),
        outputs=(Output(name="score", dtype=DType.float64),),
    )

    def rows(count: int, shift: float = 0.0) -> dict:
        return {
            "x": np.where(rng.random(count) < 0.02, np.nan, rng.standard_normal(count) + shift),
            "n": rng.integers(0, 40, count),
            "c": np.array(rng.choice(["a", "b"], count, p=[0.7, 0.3]).tolist(), object),
            "flag": rng.random(count) < 0.2,
            "t": np.array([f"word number {i} here" for i in range(count)], object),
            "e": rng.standard_normal((count, 3)).astype("f4"),
            "when": np.full(count, np.datetime64("2026-01-01T00:00:00", "us")),
            "score": rng.random(count),
        }

    sample = rows(5000)
    arrays = [sample[field.name] for field in contract]
    packed = make_profile(
        contract, Columns(tuple(f.name for f in contract), 5000, arrays=arrays), {"score": sample["score"]}
    )
    kinds = {**kinds_of(contract), "score": Kind.number}
    assert kinds == {"x": Kind.number, "n": Kind.number, "c": Kind.category, "flag": Kind.boolean, "t": Kind.text,
                     "e": Kind.tensor, "when": Kind.time, "score": Kind.number}  # fmt: skip
    alarms = sum(compare_profiles(packed, Profile.of(rows(500), kinds), QUICK).drifted for _ in range(10))
    assert alarms <= 2
    moved = rows(500, 0.4)
    moved["c"] = np.array(["z" if i % 8 == 0 else "a" for i in range(500)], object)
    moved["score"] = moved["score"] * 0.7
    report = compare_profiles(packed, Profile.of(moved, kinds), QUICK)
    assert {column.name for column in report.drifted_columns} == {"x", "c", "score"}
    assert report.column("c").new_categories == ("z",)
    assert report.column("e").status.startswith("not compared")
    gone = compare_profiles(packed, Profile.of({"x": moved["x"]}, {"x": Kind.number}), QUICK)
    assert gone.column("n").status == "absent from the current window"


@pytest.mark.parametrize("changed", [{"k": 2}, {"k": 10**9}, {"k": -1}])
def test_a_profile_of_impossible_accuracy_is_refused(changed: dict) -> None:
    state = msgspec.msgpack.decode(Profile.of({"x": np.arange(5.0)}).to_bytes())
    with pytest.raises(MalformedInput):
        Profile.from_bytes(msgspec.msgpack.encode({**state, **changed}))


def test_sums_of_a_tensor_that_do_not_belong_together_are_refused() -> None:
    state = msgspec.msgpack.decode(Profile.of({"e": np.ones((5, 3))}).to_bytes())
    state["columns"]["e"]["sums"] = [1.0]
    with pytest.raises(MalformedInput):
        Profile.from_bytes(msgspec.msgpack.encode(state))
