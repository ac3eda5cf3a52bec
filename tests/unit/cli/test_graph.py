"""A pipeline as lines of a table."""

from pathlib import Path

import pytest

from fairway.cli.graph import graph_rows, read_graph
from fairway.core.errors import CorruptBundle
from fairway.core.pipeline import Case, EnsembleNode, Pipeline, RouterNode, Source
from tests.graphs import FLOAT, X, Y, function, model

NODES = (
    RouterNode(
        name="r",
        inputs=(Source("out", "both"),),
        cases=(Case(to="a", below=0.5), Case(to="f", equals=1)),
        default="both",
        outputs=(FLOAT,),
    ),
    model("a", X, Y),
    function("f", *[X] * 6),
    EnsembleNode(
        name="both",
        rule="mean",
        inputs=(Source("out", "a"), Source("out", "f")),
        weights=(1.0, 2.5),
        outputs=(FLOAT,),
    ),
)


def test_every_node_has_a_line_in_the_order_they_run() -> None:
    rows = graph_rows(Pipeline(nodes=NODES, outputs={"answer": Source("out", "r")}))
    assert rows == [
        ("a", "a-model:3 (onnx)", "x, y", "out"),
        ("f", "f.py:f", "x, x, x and 3 more", "out"),
        ("both", "mean of 2, weights 1, 2.5", "a.out, f.out", "out"),
        ("r", "router", "both.out: below 0.5 -> a; is 1 -> f; else -> both", "out"),
        ("(answer)", "", "r.out", "answer"),
    ]


def test_a_graph_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text("{}")
    with pytest.raises(CorruptBundle, match=r"pipeline\.json cannot be read"):
        read_graph(tmp_path / "pipeline.json")
