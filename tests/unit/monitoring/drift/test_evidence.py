"""Scores, tests and their p-values against scipy."""

import numpy as np
import pytest
from scipy import special, stats

from fairway.monitoring.drift import category, numeric, scores
from fairway.monitoring.drift.evidence import (
    Form,
    ScoreTest,
    combined,
    keep_varying,
    log_p,
    matched_moments,
    normalised,
)
from fairway.monitoring.drift.levels import Side, codes_of, count, cuts
from fairway.monitoring.drift.resample import adjusted


def sides(before: np.ndarray, after: np.ndarray) -> tuple[Side, Side, np.ndarray]:
    edges = cuts(np.concatenate([before, after]), 0.05)
    codes = [codes_of(values, edges) for values in (before, after)]
    made = [count(values, code, len(edges) + 1) for values, code in zip((before, after), codes, strict=True)]
    return made[0], made[1], np.concatenate(codes)


def evidence(before: np.ndarray, after: np.ndarray):
    reference, current, codes = sides(before, after)
    table, tests = numeric.number_scores(reference, current)
    return numeric.evidence_of("x", table, tests, reference, current, codes=codes)


def test_normal_scores_are_the_means_over_each_part_of_a_normal() -> None:
    location, scale = scores.normal_scores(np.array([1.0, 3.0, 1.0]))
    draws = special.ndtri((np.arange(1_000_000) + 0.5) / 1_000_000)
    for i, part in enumerate(
        (draws < special.ndtri(0.2), abs(draws) < special.ndtri(0.8), draws > special.ndtri(0.8))
    ):
        assert location[i] == pytest.approx(draws[part].mean(), abs=1e-4)
        assert scale[i] == pytest.approx(np.square(draws[part]).mean(), abs=1e-4)


def test_an_empty_level_has_no_weight() -> None:
    location, scale = scores.normal_scores(np.array([2.0, 0.0, 2.0]))
    assert location[1] == 0
    assert np.isfinite(location).all()
    assert np.isfinite(scale).all()


def test_the_first_polynomial_is_the_rank_sum_test() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 30, 120).astype(float), rng.integers(3, 33, 60).astype(float)
    found = evidence(before, after)
    p = 2 * special.ndtr(-abs(found.z[2]))
    assert p == pytest.approx(
        stats.mannwhitneyu(after, before, use_continuity=False, method="asymptotic").pvalue, rel=1e-6
    )


def test_polynomials_have_unit_variance_and_are_uncorrelated() -> None:
    ranks = (np.arange(10_000) + 0.5) / 10_000
    table = scores.legendre(ranks)
    assert np.allclose(table.T @ table / len(ranks), np.eye(scores.LEGENDRE), atol=1e-3)


def test_the_spectral_form_is_anderson_and_darlings_statistic() -> None:
    """Against the integral form for many terms' worth of ranks: what six terms leave out has mean 1/7."""
    rng = np.random.default_rng(2)
    before, after = rng.standard_normal(90), rng.standard_normal(90) + 0.5
    found = evidence(before, after)
    ours = float(np.square(found.z[2:8]) @ scores.ANDERSON_DARLING)
    pooled = np.sort(np.concatenate([before, after]))
    n, total = len(after), len(pooled)
    i = np.arange(1, total)
    below = np.searchsorted(np.sort(after), pooled[:-1], side="right")
    pettitt = np.sum(np.square(below * total - n * i) / (i * (total - i))) / (n * len(before))
    assert ours == pytest.approx(pettitt, abs=0.35)
    assert ours > 3


def test_the_mix_of_categories_is_pearsons_chi_square() -> None:
    before, after = Side(np.array([50.0, 30, 20]), np.zeros(3)), Side(np.array([30.0, 40, 10]), np.zeros(3))
    table, tests = category.category_scores(before, after)
    found = numeric.evidence_of("c", table, tests, before, after, codes=None)
    expected = stats.chi2_contingency([before.known, after.known], correction=False)
    total = 180
    square = float(np.square(found.z[:3]) @ np.array(found.tests[0].weights))
    assert square == pytest.approx(expected.statistic * (total - 1) / total, rel=1e-9)
    p = np.exp(log_p(found.tests, found.z, found.skew))[0]
    assert p == pytest.approx(stats.chi2.sf(square, 2), rel=1e-3)


def test_sums_of_squares_are_chi_square_far_out_too() -> None:
    test = matched_moments(ScoreTest("t", (0, 1, 2), Form.squares, 1.0), np.eye(3))
    for size in (0.1, 2.0, 4.0, 8.0):
        z = np.full(3, size)
        assert log_p([test], z, np.zeros(3))[0] == pytest.approx(stats.chi2.logsf(3 * size**2, 3), rel=1e-6)
    assert np.isfinite(log_p([test], np.full(3, 100.0), np.zeros(3))[0])


def test_skewness_is_taken_out_as_of_a_gamma() -> None:
    shape = 4.0
    for x in (1.0, 4.0, 12.0):
        z = normalised(np.array((x - shape) / np.sqrt(shape)), np.array(2 / np.sqrt(shape)))
        assert float(z) == pytest.approx(stats.norm.isf(stats.gamma.sf(x, shape)), abs=0.05)
    assert float(normalised(np.array(-2.0), np.array(-1.0))) == -float(
        normalised(np.array(2.0), np.array(1.0))
    )


def test_shares_add_up_to_one_when_features_do_not_vary() -> None:
    tests, kept = keep_varying(
        (ScoreTest("a", (0,), Form.linear, 0.5), ScoreTest("b", (1, 2), Form.squares, 0.5, (1.0, 2.0))),
        np.array([False, True, False]),
    )
    assert kept.tolist() == [1]
    assert [(test.name, test.features, test.share, test.weights) for test in tests] == [
        ("b", (0,), 1.0, (1.0,))
    ]


def test_a_single_test_is_adjusted_to_its_exact_p_value() -> None:
    """Dealing out anew gives what counting all ways to deal gives."""
    rng = np.random.default_rng(3)
    before, after = rng.standard_normal(60), rng.standard_normal(20) + 0.8
    found = evidence(before, after)
    alone = keep_varying((ScoreTest("rank sum", (2,), Form.linear, 1.0),), np.ones(len(found.z), bool))[0]
    only = type(found)("x", alone, found.z, found.skew, found.correlation, found.rows)
    _, corrected = adjusted([only], 20, resamples=20_000, seed=0)
    expected = stats.mannwhitneyu(after, before, method="exact")
    assert corrected[0] == pytest.approx(expected.pvalue, abs=0.01)


def test_many_columns_are_corrected_and_columns_that_are_one_are_not() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.standard_normal((400, 10)), rng.standard_normal((100, 10))
    after[:, 0] += 0.25
    apart = [evidence(before[:, i], after[:, i]) for i in range(10)]
    apart = [
        type(e)(f"x{i}", *[getattr(e, n) for n in ("tests", "z", "skew", "correlation", "rows")])
        for i, e in enumerate(apart)
    ]
    _, corrected = adjusted(apart, 100, resamples=4000, seed=0)
    same = [
        type(apart[0])(
            f"y{i}", *[getattr(apart[0], n) for n in ("tests", "z", "skew", "correlation", "rows")]
        )
        for i in range(10)
    ]
    _, together = adjusted(same, 100, resamples=4000, seed=0)
    assert together.max() < corrected[0] < corrected[1:].min()


def test_without_rows_counts_are_drawn_from() -> None:
    rng = np.random.default_rng(5)
    reference, current, codes = sides(rng.standard_normal(500), rng.standard_normal(100) + 0.5)
    table, tests = numeric.number_scores(reference, current)
    with_rows = numeric.evidence_of("x", table, tests, reference, current, codes=codes)
    without = numeric.evidence_of("x", table, tests, reference, current, codes=None)
    p = [adjusted([e], 100, resamples=4000, seed=0)[1][0] for e in (with_rows, without)]
    assert p[0] == pytest.approx(p[1], abs=0.01)


def test_nothing_to_test_is_nothing() -> None:
    own, corrected = adjusted([], 10, resamples=200, seed=0)
    assert own.size == corrected.size == 0


def test_noise_of_a_sketch_shrinks_what_is_seen() -> None:
    rng = np.random.default_rng(6)
    reference, current, _ = sides(rng.standard_normal(500), rng.standard_normal(100) + 0.3)
    table, tests = numeric.number_scores(reference, current)
    plain = numeric.evidence_of("x", table, tests, reference, current, codes=None)
    noisy = numeric.evidence_of(
        "x", table, tests, reference, current, codes=None, noise=np.full(table.shape[1], 0.01)
    )
    assert combined(noisy.tests, log_p(noisy.tests, noisy.z, noisy.skew)) > combined(
        plain.tests, log_p(plain.tests, plain.z, plain.skew)
    )
