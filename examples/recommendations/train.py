"""Factorises simulated viewing into tastes, and writes a model that ranks films for what somebody has just watched.

    python -m examples.recommendations.train --out .run/recommendations

Each film has a few hidden traits and each user a taste for them. The matrix of who watched what is factorised (a
truncated singular value decomposition), which gives each film a place in a space of tastes; a user is at the mean of the
last films watched, and the ten nearest films (by dot product) that are not among these are recommended. That is one small
ONNX graph, so the same file ranks a million users at night and one user within a request.

Writes `model.onnx`, `sample.parquet` (rows for the contract) and `users.parquet`: the last films of each user, under the
key `user_id`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from sklearn.utils.extmath import randomized_svd

FILMS, TRAITS, WATCHED, RECENT, TOP = 400, 12, 40, 5, 10
FIELDS = tuple(f"watched_{place}" for place in range(1, RECENT + 1))
"""The films that a user watched last, the latest first."""

Array = np.ndarray[Any, np.dtype[Any]]


def simulate(users: int, seed: int) -> Array:
    """`[users, WATCHED]` of films in the order in which they were watched: by taste, and by how well known they are."""
    chance = np.random.default_rng(seed)
    traits = chance.normal(size=(FILMS, 4))
    fame = chance.gumbel(size=FILMS)
    tastes = chance.normal(size=(users, 4))
    wish = 2.0 * tastes @ traits.T + fame + chance.gumbel(size=(users, FILMS))
    chosen = np.argpartition(-wish, WATCHED, axis=1)[:, :WATCHED]
    return chance.permuted(chosen, axis=1)


def factorise(watched: Array, seed: int) -> Array:
    """`[FILMS, TRAITS]`: where each film is in the space of tastes."""
    matrix = np.zeros((len(watched), FILMS), dtype=np.float32)
    np.put_along_axis(matrix, watched, 1.0, axis=1)
    matrix -= matrix.mean(axis=0)
    _, strengths, films = randomized_svd(matrix, TRAITS, random_state=seed)
    places: Array = (films.T * np.sqrt(strengths)).astype(np.float32)
    return places


def graph(places: Array) -> onnx.ModelProto:
    """`recent` `[n, RECENT]` of films -> `films` and `scores` `[n, TOP]`, best first."""
    node = helper.make_node
    columns = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", 1]) for name in FIELDS]
    low = numpy_helper.from_array(np.array([-1e9], dtype=np.float32), "low")
    nodes = [
        node("Concat", FIELDS, ["recent"], axis=1),
        node("Gather", ["places", "recent"], ["seen"]),
        node("ReduceMean", ["seen", "middle"], ["taste"], keepdims=0),
        node("MatMul", ["taste", "places_across"], ["fit"]),
        # What was just watched gets a very low score, so that it is not among the best.
        node("Shape", ["recent"], ["recent_shape"]),
        node("ConstantOfShape", ["recent_shape"], ["never"], value=low),
        node("ScatterElements", ["fit", "recent", "never"], ["left"], axis=1),
        node("TopK", ["left", "top"], ["scores", "films"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(places, "places"),
        numpy_helper.from_array(np.ascontiguousarray(places.T), "places_across"),
        numpy_helper.from_array(np.array([1]), "middle"),
        numpy_helper.from_array(np.array([TOP]), "top"),
    ]
    outputs = [
        helper.make_tensor_value_info("films", TensorProto.INT64, ["n", TOP]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", TOP]),
    ]
    made = helper.make_graph(nodes, "recommendations", columns, outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    return model


def recommend(places: Array, recent: Array) -> Array:
    """As the graph, in numpy: `[n, TOP]` films for `[n, RECENT]`."""
    fit = places[recent].mean(axis=1) @ places.T
    np.put_along_axis(fit, recent, -np.inf, axis=1)
    return np.argsort(-fit, axis=1, kind="stable")[:, :TOP]


def hit_rate(recommended: Array, later: Array) -> float:
    """Which share of the recommended films was watched later."""
    hits = [np.isin(row, wanted).mean() for row, wanted in zip(recommended, later, strict=True)]
    return float(np.mean(hits))


def train(out: Path, *, users: int = 5000, seed: int = 7) -> tuple[float, float]:
    """Writes the files. Returns the hit rates on what users watched later: of the model, and of the ten best-known
    films for everybody."""
    watched = simulate(users, seed)
    before, later = watched[:, : WATCHED // 2], watched[:, WATCHED // 2 :]
    places = factorise(before, seed)
    recent = before[:, -RECENT:][:, ::-1]
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(graph(places), str(out / "model.onnx"))
    frame = pd.DataFrame(recent, columns=list(FIELDS))
    ends = pd.DataFrame([[0] * RECENT, [FILMS - 1] * RECENT], columns=list(FIELDS))
    sample = pd.concat([frame.head(500), ends])  # the contract has to know the first film and the last
    sample.to_parquet(out / "sample.parquet", index=False)
    frame.insert(0, "user_id", [f"u{number}" for number in range(users)])
    frame.to_parquet(out / "users.parquet", index=False)
    known = np.bincount(before.reshape(-1), minlength=FILMS).argsort()[::-1][:TOP]
    return hit_rate(recommend(places, recent), later), hit_rate(np.tile(known, (users, 1)), later)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a model that recommends films, on simulated viewing.")
    parser.add_argument("--out", type=Path, default=Path(".run/recommendations"))
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    ours, best_known = train(given.out, users=given.users, seed=given.seed)
    print(
        f"of ten recommended films {10 * ours:.1f} are watched later, of the ten best known {10 * best_known:.1f}"
    )
    print(f"wrote model.onnx, sample.parquet and users.parquet below {given.out}")


if __name__ == "__main__":
    main()
