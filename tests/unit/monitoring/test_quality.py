"""What is wrong with a window's data is found, and nothing else is."""

import datetime

import numpy as np
import pytest

from fairway.core.columns import Columns
from fairway.core.contract import Category, Contract, DType, Field
from fairway.core.settings import QualitySettings
from fairway.monitoring.drift.profile import Profile
from fairway.monitoring.drift.values import Kind
from fairway.monitoring.quality import check_quality
from fairway.monitoring.told import QualityReport
from fairway.packaging.profile import make_profile

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
KINDS = {"x": Kind.number, "c": Kind.category}


def profile(rows: int, seed: int, **changed: np.ndarray) -> Profile:
    rng = np.random.default_rng(seed)
    columns = {"x": rng.uniform(0, 100, rows), "c": np.array(rng.choice(["a", "b"], rows).tolist(), object)}
    return Profile.of({**columns, **changed}, {**KINDS, **({"when": Kind.time} if "when" in changed else {})})


def found(report: QualityReport) -> list[tuple[str, str]]:
    return [(finding.check, finding.field) for finding in report.findings]


def test_a_window_as_it_should_be_has_no_findings() -> None:
    reports = [
        check_quality(profile(500, seed), profile(3000, 99), now=NOW, past_rows=(480, 520, 500, 510, 490))
        for seed in range(40)
    ]
    assert sum(report.failed for report in reports) <= 2
    assert all(report.rows == 500 and report.checked > 4 for report in reports)


def test_gaps_infinities_ranges_and_new_categories() -> None:
    x = np.random.default_rng(1).uniform(0, 100, 500)
    x[:30], x[30:50], x[50:80] = np.nan, np.inf, 250.0
    c = np.array((["a"] * 440 + ["z"] * 50 + ["y"] * 10), object)
    report = check_quality(profile(500, 0, x=x, c=c), profile(3000, 99))
    assert found(report) == [("missing", "x"), ("infinite", "x"), ("range", "x"), ("new categories", "c")]
    missing, _, outside, new = report.findings
    assert missing.value == pytest.approx(0.06)
    assert missing.expected == 0
    assert missing.p_value is not None
    assert missing.p_value < 1e-6
    assert missing.text == "x is missing in 6.0% of rows; in the reference it was 0%."
    assert outside.text.startswith("x is outside the range of the reference, 0.0")
    assert new.examples == ("z", "y")
    assert new.text == "c has 2 values that the reference does not have, in 12% of rows: 'z' and 'y'."


def test_a_few_rows_beyond_the_reference_are_to_be_expected() -> None:
    x = np.random.default_rng(1).uniform(0, 100, 500)
    x[0] = 101.0
    assert not check_quality(profile(500, 0, x=x), profile(3000, 99)).failed


def test_the_contracts_range_comes_before_the_references() -> None:
    contract = Contract(
        inputs=(
            Field(name="x", dtype=DType.float64, minimum=0, maximum=50),
            Field(name="c", dtype=DType.string, categories=(Category("a", 1.0),)),
            Field(name="gone", dtype=DType.float64),
        ),
        outputs=(),
    )
    report = check_quality(profile(500, 0), contract=contract)
    assert found(report) == [("absent", "gone"), ("range", "x")]
    assert report.findings[1].value == pytest.approx(0.5, abs=0.07)


def test_breaches_of_the_contract_against_those_before() -> None:
    current, reference = profile(1000, 0), profile(3000, 1)
    report = check_quality(
        current,
        reference,
        violations={"x y on_range": 60, "c on_category": 11},
        violations_before={"x y on_range": 3, "c on_category": 30},
    )
    assert found(report) == [("violations", "x y")]
    assert (report.findings[0].rule, report.findings[0].text) == (
        "on_range", "x y is outside the range of its contract in 6.0% of rows; in the reference it was 0.10%."
    )  # fmt: skip
    report = check_quality(
        current, reference, violations={"x on_outlier": 60, "x on_other": 61, "{x} on_null": 62}
    )
    assert [(f.check, f.field, f.rule) for f in report.findings] == [
        ("violations", "x", "on_outlier"), ("violations", "x", "on_other"), ("violations", "{x}", "on_null"),
    ]  # fmt: skip
    assert report.findings[1].text == "x breaks its contract in 6.1% of rows."
    assert not check_quality(current, reference, violations={"x on_range": 4}).failed


def test_a_rule_of_the_contract_is_not_told_beside_the_check_that_asks_the_same() -> None:
    odd = profile(300, 3, x=np.full(300, np.nan), c=np.array(["q"] * 300, object))
    broken = {"x on_null": 300, "x on_range": 300, "c on_category": 300}
    report = check_quality(odd, profile(3000, 1), violations=broken)
    assert [(f.check, f.field, f.rule) for f in report.findings] == [
        ("missing", "x", ""), ("new categories", "c", ""), ("violations", "x", "on_range"),
    ]  # fmt: skip
    assert report.findings[1].text == (
        "c has a value that the reference does not have, in 100% of rows: 'q'."
    )


def test_freshness_by_the_clock_given() -> None:
    when = np.array([np.datetime64("2026-03-01T08:00:00", "us")] * 100)
    old = profile(100, 0, when=when)
    report = check_quality(old, now=NOW)
    assert found(report) == [("freshness", "")]
    assert report.findings[0].value == 4 * 3600
    assert not check_quality(old, now=NOW, settings=QualitySettings(stale_seconds=5 * 3600)).failed
    assert not check_quality(old, now=NOW, latest=NOW - datetime.timedelta(minutes=1)).failed
    assert not check_quality(old, now=NOW, settings=QualitySettings(stale_seconds=0)).failed
    future = check_quality(old, now=NOW, latest=NOW + datetime.timedelta(days=1))
    assert "in the future: a clock is wrong" in future.findings[0].text
    assert not check_quality(profile(100, 0), now=NOW).failed  # nothing says when


@pytest.mark.parametrize(("rows", "wrong"), [(500, False), (300, False), (100, True), (0, True), (900, True)])
def test_volume_against_earlier_windows(rows: int, wrong: bool) -> None:
    report = check_quality(profile(rows, 0), past_rows=(480, 520, 500, 510, 490, 505))
    assert [finding.check for finding in report.findings] == (["volume"] if wrong else [])


def test_volume_needs_a_history_and_rates_need_rows() -> None:
    assert not check_quality(profile(5, 0), past_rows=(500, 500)).failed
    assert not check_quality(profile(20, 0, x=np.full(20, np.nan)), profile(3000, 1)).failed


def test_the_reference_in_a_bundle_serves_too() -> None:
    contract = Contract(
        inputs=(Field(name="x", dtype=DType.float64), Field(name="c", dtype=DType.string)), outputs=()
    )
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0, 100, 2000), np.array(rng.choice(["a", "b"], 2000).tolist(), object)]
    packed = make_profile(contract, Columns(("x", "c"), 2000, arrays=arrays), {})
    assert not check_quality(profile(300, 3), packed).failed
    report = check_quality(profile(300, 3, x=np.full(300, -5.0), c=np.array(["q"] * 300, object)), packed)
    assert found(report) == [("range", "x"), ("new categories", "c")]
