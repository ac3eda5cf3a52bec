"""Two tables in, a report out."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from fairway.core.errors import InvalidInput, MalformedInput
from fairway.core.settings import DriftSettings
from fairway.monitoring.drift import compare as compare_module
from fairway.monitoring.drift import resample
from fairway.monitoring.drift.compare import compare_tables
from fairway.monitoring.drift.values import DriftReport, Kind
from fairway.monitoring.tables import open_table

QUICK = DriftSettings(resamples=400)


def compare(before: dict, after: dict, settings: DriftSettings = QUICK, **options) -> DriftReport:
    return compare_tables(open_table(before), open_table(after), settings, **options)


def normal(rows: int, seed: int, columns: int = 4) -> dict:
    rng = np.random.default_rng(seed)
    return {f"x{i}": rng.standard_normal(rows) for i in range(columns)}


def test_the_column_that_moved_is_named_with_its_size() -> None:
    after = normal(500, 1)
    after["x2"] += 0.5
    report = compare(normal(3000, 0), after)
    assert report.drifted
    assert [column.name for column in report.drifted_columns] == ["x2"]
    moved = report.column("x2")
    assert moved.measure == "wasserstein"
    assert moved.effect == pytest.approx(0.5, abs=0.1)
    assert moved.effects["mean_shift"] == pytest.approx(0.5, abs=0.15)
    assert moved.p_value < 1e-10
    assert moved.p_adjusted < 0.01
    assert moved.statistic > 5
    assert (report.reference_rows, report.current_rows) == (3000, 500)


@pytest.mark.parametrize(
    ("change", "test"),
    [
        (lambda x, rng: x * 1.6, {"scale", "shape"}),
        (lambda x, rng: np.where(rng.random(len(x)) < 0.03, 6.0, x), {"upper tail"}),
        (lambda x, rng: np.where(rng.random(len(x)) < 0.03, -6.0, x), {"lower tail"}),
        (lambda x, rng: np.where(rng.random(len(x)) < 0.05, np.nan, x), {"missing"}),
        (lambda x, rng: np.where(rng.random(len(x)) < 0.05, np.inf, x), {"infinite"}),
        (lambda x, rng: np.where(rng.random(len(x)) < 0.05, -np.inf, x), {"infinite"}),
        (lambda x, rng: np.sign(x) * np.abs(x) ** 0.3, {"shape", "scale"}),
    ],
)
def test_every_way_to_change_is_seen_by_the_test_made_for_it(change, test: set[str]) -> None:
    after = normal(1000, 3)
    after["x0"] = change(after["x0"], np.random.default_rng(5))
    column = compare(normal(3000, 2), after).column("x0")
    assert column.drifted
    assert column.test in test


def test_categories_booleans_and_new_ones() -> None:
    rng = np.random.default_rng(0)
    before = {
        "c": rng.choice(["a", "b", "c"], 2000, p=[0.6, 0.3, 0.1]),
        "b": rng.random(2000) < 0.3,
        "d": rng.choice(["u", "v"], 2000),
    }
    after = {
        "c": rng.choice(["a", "b", "z"], 600, p=[0.6, 0.3, 0.1]),
        "b": rng.random(600) < 0.5,
        "d": rng.choice(["u", "v"], 600),
    }
    report = compare(before, after)
    assert [column.drifted for column in report.columns] == [True, True, False]
    assert [column.kind for column in report.columns] == [Kind.category, Kind.boolean, Kind.category]
    assert report.columns[0].new_categories == ("z",)
    assert report.columns[0].effects["new_category_rate"] == pytest.approx(0.1, abs=0.04)
    assert report.columns[1].measure == "total variation"
    assert report.columns[1].effect == pytest.approx(0.2, abs=0.06)


def test_a_correlation_that_no_column_shows() -> None:
    rng = np.random.default_rng(1)
    before, after = normal(3000, 4), normal(800, 5)
    before["x1"] = 0.7 * before["x0"] + np.sqrt(0.51) * rng.standard_normal(3000)
    report = compare(before, after)
    assert report.drifted
    assert not any(column.drifted for column in report.columns)
    assert report.multivariate is not None
    assert report.multivariate.drifted
    assert "x0 x x1" in report.multivariate.notes[0]
    alone = compare(before, after, DriftSettings(resamples=400, multivariate=False))
    assert not alone.drifted
    assert alone.multivariate is None


def test_texts_by_length_and_by_words() -> None:
    rng = np.random.default_rng(2)
    words = ["card", "late", "refund", "order", "thanks", "broken", "where", "account"]

    def texts(rows: int, chosen: list[str], length: int = 12) -> list[str]:
        return [" ".join(rng.choice(chosen, length)) for _ in range(rows)]

    before = {"t": texts(1500, words)}
    assert not compare(before, {"t": texts(500, words)}).drifted
    longer = compare(before, {"t": texts(500, words, 18)}).column("t")
    assert longer.drifted
    assert longer.kind is Kind.text
    other = compare(before, {"t": texts(500, [*words[:-1], "invoice"])}).column("t")
    assert other.drifted
    assert other.effects["unknown_words"] > 0.05
    assert other.effects["word_change"] > 0.5


def test_identifiers_are_compared_by_length_alone() -> None:
    before = {"id": [f"u{i:05}" for i in range(1000)]}
    after = {"id": [f"u{i:05}" for i in range(5000, 5500)]}
    report = compare(before, after)
    assert report.column("id").kind is Kind.identifier
    assert not report.drifted


def test_embeddings_and_lists() -> None:
    rng = np.random.default_rng(3)
    direction = rng.standard_normal(96) / 8
    before = {
        "e": rng.standard_normal((1500, 96)).astype("f4"),
        "v": [[float(a), 1.0] for a in rng.random(1500)],
    }
    after = {
        "e": rng.standard_normal((500, 96)).astype("f4"),
        "v": [[float(a), 1.0] for a in rng.random(500)],
    }
    assert not compare(before, after).drifted
    after["e"] = after["e"] + direction.astype("f4")
    report = compare(before, after)
    assert report.column("e").drifted
    assert report.column("e").kind is Kind.tensor
    assert not report.column("v").drifted
    other = compare(before, {**after, "e": rng.standard_normal((500, 50))})
    assert other.column("e").drifted
    assert "shape" in other.column("e").status


def test_what_says_nothing_is_said() -> None:
    rows = {
        "constant": np.ones(400),
        "empty": pa.nulls(400),
        "gone": np.full(400, np.nan),
        "one": ["a"] * 400,
        "when": [datetime.datetime(2026, 1, 1)] * 400,
        "bytes": [b"x"] * 400,
    }
    report = compare(rows, rows)
    assert not report.drifted
    statuses = {column.name: column.status for column in report.columns}
    assert statuses["constant"] == statuses["empty"] == statuses["gone"] == statuses["one"] == "constant"
    assert statuses["when"].startswith("not compared")
    assert statuses["bytes"].startswith("not compared")


def test_a_constant_that_is_another_one_has_drifted() -> None:
    report = compare({"x": np.ones(300), "c": ["a"] * 300}, {"x": np.full(100, 2.0), "c": ["b"] * 100})
    assert [column.drifted for column in report.columns] == [True, True]


def test_a_column_that_lost_its_values_has_drifted() -> None:
    for empty in (np.full(200, np.nan), pa.nulls(200)):
        column = compare(normal(600, 0), {**normal(200, 1), "x1": empty}).column("x1")
        assert column.drifted
        assert column.measure == "missing rate change"
        assert column.effect == 1


def test_absent_new_and_retyped_columns() -> None:
    after = normal(200, 1)
    del after["x0"]
    after["x1"] = [str(value) for value in after["x1"]]
    after["more"] = np.ones(200)
    report = compare(normal(600, 0), after)
    assert report.column("x0").status == "absent from the current window"
    assert report.column("x0").drifted
    assert "of another type: number before" in report.column("x1").status
    assert report.notes == ("Column 'more' is new: the reference has none.",)
    with pytest.raises(KeyError):
        report.column("more")


def test_whole_numbers_booleans_and_dictionaries_are_what_they_hold() -> None:
    rng = np.random.default_rng(0)
    number, flag = rng.integers(0, 5, 400), rng.random(400) < 0.5
    before = {"n": number, "b": flag, "d": pa.array(rng.choice(["a", "b"], 400)).dictionary_encode()}
    after = {
        "n": pa.array(number[:200].tolist() + [None] * 0),
        "b": flag[:200].astype(int),
        "d": list(rng.choice(["a", "b"], 200)),
    }
    assert not compare(before, after).drifted


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(1000, 29, "judged from 30"), (49, 100, "judges from 50"), (1000, 0, "0 rows")],
)
def test_too_few_rows_are_not_judged(before: int, after: int, said: str) -> None:
    shifted = {name: values + 5 for name, values in normal(after, 1).items()}
    report = compare(normal(before, 0), shifted)
    assert not report.drifted
    assert said in report.notes[0]
    assert {column.status for column in report.columns} == {"too few rows"}


def test_drift_below_the_floor_is_no_alarm_however_sure() -> None:
    rng = np.random.default_rng(0)
    before, after = {"x": rng.standard_normal(200_000)}, {"x": rng.standard_normal(200_000) + 0.02}
    report = compare(before, after)
    assert report.column("x").p_adjusted < 0.01
    assert not report.drifted
    assert compare(before, after, DriftSettings(resamples=400, spread_floor=0.01)).drifted


def test_columns_and_kinds_may_be_named() -> None:
    before = {**normal(400, 0), "code": np.random.default_rng(0).integers(0, 4, 400)}
    after = {**normal(200, 1), "code": np.random.default_rng(1).integers(0, 4, 200)}
    report = compare(before, after, columns=("x1", "nope"))
    assert [column.name for column in report.columns] == ["x1", "nope"]
    assert report.column("nope").status == "absent from the reference"
    report = compare(before, after, kinds={"code": Kind.category})
    assert report.column("code").kind is Kind.category or report.column("code").measure == "total variation"


def test_hundreds_of_columns_are_compared_without_holding_their_rows() -> None:
    after = normal(300, 1, 150)
    after["x77"] += 0.6
    report = compare(normal(1000, 0, 150), after)
    assert [column.name for column in report.drifted_columns] == ["x77"]
    assert len(report.columns) == 150


def test_many_features_are_drawn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "MOST_FEATURES", 10)
    after = normal(300, 1)
    assert not compare(normal(1000, 0), after).drifted
    after["x1"] += 0.6
    assert [column.name for column in compare(normal(1000, 0), after).drifted_columns] == ["x1"]


def test_more_columns_than_are_compared_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "MOST_COLUMNS", 2)
    report = compare(normal(1000, 0), normal(300, 1))
    assert len(report.columns) == 2
    assert "2 columns beyond the first 2 were not compared." in report.notes


def test_a_kind_that_a_column_cannot_be_is_an_error() -> None:
    rows = {"e": np.zeros((60, 3)), "x": np.arange(60.0)}
    with pytest.raises(MalformedInput, match="column 'e' cannot be compared as category"):
        compare(rows, rows, kinds={"e": Kind.category})


def test_the_same_data_gives_the_same_report() -> None:
    assert compare(normal(700, 0), normal(200, 1)) == compare(normal(700, 0), normal(200, 1))


def test_false_alarms_and_power_over_many_windows() -> None:
    """120 windows without drift and 20 with: at alpha 0.03 more than 11 alarms come once in a thousand."""
    settings = DriftSettings(resamples=600, sample_rows=2000)
    alarms = seen = 0
    for repetition in range(120):
        rng = np.random.default_rng(repetition)
        rows = {
            f"x{i}": rng.standard_normal(2200) if i % 2 else rng.poisson(2, 2200).astype(float)
            for i in range(6)
        }
        rows["c"] = rng.choice(list("abcd"), 2200, p=[0.7, 0.2, 0.07, 0.03])
        before = {name: values[:2000] for name, values in rows.items()}
        after = {name: values[2000:] for name, values in rows.items()}
        alarms += compare(before, after, settings).drifted
        if repetition < 20:
            after["x1"] = after["x1"] + 0.5
            seen += compare(before, after, settings).column("x1").drifted
    assert alarms <= 11
    assert seen >= 19


def test_a_new_category_is_drift_however_small_beside_the_others() -> None:
    """Two rows in a hundred: less than shares may move, and yet nothing that a model has seen."""
    before = np.repeat(["phone", "desktop", "tablet"], [6000, 3000, 1000])
    after = np.repeat(["phone", "desktop", "tablet", "watch"], [588, 294, 98, 20])
    [column] = compare({"device": before}, {"device": after}).columns
    assert column.drifted
    assert column.effects["total_variation"] == pytest.approx(0.02)
    assert column.new_categories == ("watch",)


def test_a_table_without_columns_is_said() -> None:
    empty = open_table(pa.table({}))
    with pytest.raises(InvalidInput, match="no column to compare"):
        compare_tables(empty, empty)


@pytest.mark.filterwarnings("error")
def test_numbers_at_the_end_of_what_floats_hold() -> None:
    random = np.random.default_rng(3)
    sides = [
        open_table(pa.table({"a": np.clip(random.normal(size=300), -1.7, 1.7) * 1e308})) for _ in range(2)
    ]
    [column] = compare_tables(*sides).columns
    assert not column.drifted
    assert np.isfinite(column.effect)
