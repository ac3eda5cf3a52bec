"""Ranking metrics against scikit-learn, query by query."""

import numpy as np
import pytest
from sklearn import metrics as sk

from fairway.core.errors import InvalidInput
from fairway.monitoring.performance.ranking import measure_ranking
from fairway.monitoring.performance.values import Ranked


def lists(queries: int, seed: int = 0, *, ties: bool = False) -> Ranked:
    rng = np.random.default_rng(seed)
    relevance = rng.binomial(3, 0.2, queries * 8).astype(np.float64)
    score = relevance + rng.normal(0, 1.5, queries * 8)
    query = np.array([f"q{i}" for i in range(queries)])[rng.permutation(np.repeat(np.arange(queries), 8))]
    return Ranked(query, score.round() if ties else score, relevance)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("at", [None, 3])
def test_as_scikit_learn_has_them(ties: bool, at: int | None) -> None:
    window = lists(40, ties=ties)
    ndcg, precision = [], []
    for query in np.unique(window.query):
        own = window.query == query
        score, relevance = window.score[own], window.relevance[own]
        if relevance.any():
            ndcg.append(sk.ndcg_score([relevance], [score], k=at))
            precision.append(sk.average_precision_score(relevance > 0, score))
    found = {m.name: m for m in measure_ranking(window, at=at)}
    assert found["ndcg"].value == pytest.approx(np.mean(ndcg))
    assert found["ndcg"].rows == len(ndcg)
    if at is None:
        assert found["map"].value == pytest.approx(np.mean(precision))


def test_map_cut_off_by_hand() -> None:
    window = Ranked(np.zeros(4), np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 0.0, 1.0, 1.0]))
    (found,) = measure_ranking(window, ["map"], at=3)
    assert found.value == pytest.approx((1 / 1 + 2 / 3) / 3)


def test_exponential_gain_by_hand() -> None:
    window = Ranked(np.zeros(2), np.array([2.0, 1.0]), np.array([1.0, 2.0]))
    (found,) = measure_ranking(window, ["ndcg"], gain="exponential")
    second = 1 / np.log2(3)
    assert found.value == pytest.approx((1 + 3 * second) / (3 + 1 * second))


def test_intervals_cover_the_truth() -> None:
    truth = {m.name: m.value for m in measure_ranking(lists(20_000, 99))}
    held = dict.fromkeys(truth, 0)
    for seed in range(100):
        for m in measure_ranking(lists(100, seed)):
            assert m.lower is not None
            assert m.upper is not None
            held[m.name] += m.lower <= truth[m.name] <= m.upper
    assert all(hits / 100 >= 0.88 for hits in held.values()), held


def test_lists_without_anything_relevant() -> None:
    window = Ranked(np.array([1, 1, 2, 2]), np.arange(4.0), np.array([0.0, 1.0, 0.0, 0.0]))
    found = measure_ranking(window)
    assert {(m.rows, m.note) for m in found} == {(1, "1 of 2 queries left out: no relevant item")}
    nothing = measure_ranking(Ranked(np.zeros(0), np.zeros(0), np.zeros(0)))
    assert {m.value for m in nothing} == {None}


def test_what_is_asked_wrongly_is_told() -> None:
    window = lists(3)
    with pytest.raises(InvalidInput, match="no metric mrr"):
        measure_ranking(window, ["mrr"])
    with pytest.raises(InvalidInput, match="cut at 0"):
        measure_ranking(window, at=0)
    with pytest.raises(InvalidInput, match="no gain 'log'"):
        measure_ranking(window, gain="log")
    with pytest.raises(InvalidInput, match="must not be negative"):
        measure_ranking(Ranked(np.zeros(1), np.zeros(1), np.array([-1.0])))
