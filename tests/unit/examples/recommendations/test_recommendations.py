"""The films: the same every time, the graph does what numpy does, and taste beats fame."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest

from examples.recommendations.train import (
    FIELDS,
    FILMS,
    RECENT,
    TOP,
    WATCHED,
    hit_rate,
    recommend,
    simulate,
    train,
)
from examples.recommendations.watch import Page, visit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    ours, best_known = train(folder, users=800, seed=3)
    assert ours > 1.3 * best_known
    return folder


def test_viewing_is_the_same_for_a_seed_and_nobody_watches_a_film_twice() -> None:
    watched = simulate(50, 1)
    np.testing.assert_array_equal(watched, simulate(50, 1))
    assert not np.array_equal(watched, simulate(50, 2))
    assert watched.shape == (50, WATCHED)
    assert all(len(set(row)) == WATCHED for row in watched.tolist())
    assert 0 <= watched.min() <= watched.max() < FILMS


def test_the_graph_ranks_as_numpy_does_whatever_the_batch(made: Path) -> None:
    users = pd.read_parquet(made / "users.parquet")
    assert users.user_id.tolist() == [f"u{number}" for number in range(800)]
    session = ort.InferenceSession(made / "model.onnx")
    recent = users[list(FIELDS)].to_numpy()
    feeds = {name: recent[:, i : i + 1] for i, name in enumerate(FIELDS)}
    films, scores = session.run(["films", "scores"], feeds)
    assert films.shape == scores.shape == (800, TOP)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert not any(set(a) & set(b) for a, b in zip(films.tolist(), recent.tolist(), strict=True))
    model = {tensor.name: tensor for tensor in _onnx(made).graph.initializer}
    places = _array(model["places"])
    np.testing.assert_array_equal(np.sort(films[:50]), np.sort(recommend(places, recent[:50])))
    for row in range(0, 800, 97):
        alone = session.run(["films"], {name: values[row : row + 1] for name, values in feeds.items()})[0]
        np.testing.assert_array_equal(alone[0], films[row])


def test_hits_are_films_watched_later() -> None:
    recommended = np.array([[1, 2], [3, 4]])
    assert hit_rate(recommended, np.array([[1, 9], [3, 4]])) == 0.75


class Recorded(Page):
    """A page whose server recommends films that nobody has seen."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int] | None]] = []

    def films(self, user: str, recent: list[int] | None = None) -> list[int]:
        self.asked.append((user, recent))
        return [300 + len(self.asked) + place for place in range(TOP)]


def test_active_users_are_sent_with_what_they_watched() -> None:
    rows: dict[str, Any] = {name: [place, 10 + place] for place, name in enumerate(FIELDS)}
    users = pd.DataFrame({"user_id": ["u0", "u1"], **rows})
    page = Recorded()
    watched = visit(page, users, visits=40, seed=1)
    with_films = [recent for _, recent in page.asked if recent is not None]
    assert len(with_films) == watched > 0
    assert len(page.asked) == 40 + watched
    assert all(len(recent) == RECENT for recent in with_films)
    assert with_films[0][1:] in ([0, 1, 2, 3], [10, 11, 12, 13])


def _onnx(folder: Path) -> Any:
    import onnx  # takes a while, and only this test looks inside

    return onnx.load(str(folder / "model.onnx"))


def _array(tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
