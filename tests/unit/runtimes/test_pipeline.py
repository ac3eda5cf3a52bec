"""A pipeline gives every row what its nodes, followed by hand for that row alone, give it."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import CorruptBundle, ModelFailed, Overloaded
from fairway.core.pipeline import FILE, Case, EnsembleNode, Node, Pipeline, RouterNode, Source
from fairway.core.settings import IsolationSettings
from fairway.runtimes.base import Graph
from fairway.runtimes.pipeline import load
from tests.graphs import FLOAT, NUMBERS, Computes, X, Y, engine, function, model, table, total

ROWS = table((1, 2), (3, 4), (-5, 6))


def test_a_chain_feeds_each_model_from_the_one_before() -> None:
    first, second = Computes(total), Computes(total)
    chain = engine(
        (model("a", X, Y), model("b", Source("out", "a"), Y)),
        {"answer": Source("out", "b")},
        {"a": first, "b": second},
    )
    assert chain.predict(ROWS)["answer"].tolist() == [5, 11, 7]
    assert first.seen == second.seen == [3]


def test_a_diamond_runs_its_shared_node_once() -> None:
    shared = Computes(total)
    nodes = (
        model("a", X, Y),
        model("b", Source("out", "a")),
        model("c", Source("out", "a")),
        model("d", Source("out", "b"), Source("out", "c")),
    )
    diamond = engine(nodes, {"answer": Source("out", "d")}, {"a": shared})
    assert diamond.predict(ROWS)["answer"].tolist() == [6, 14, 2]
    assert shared.seen == [3]


def router(name: str, on: Source, *cases: Case, default: str) -> RouterNode:
    return RouterNode(name=name, inputs=(on,), cases=cases, default=default, outputs=(FLOAT,))


def test_a_router_runs_only_the_branch_a_row_takes_and_keeps_the_order() -> None:
    low, high = Computes(total), Computes(lambda columns: {"out": columns["f0"] * 100})
    nodes = (model("low", X), model("high", X), router("r", X, Case(to="low", below=2), default="high"))
    routed = engine(nodes, {"answer": Source("out", "r")}, {"low": low, "high": high})
    assert routed.predict(ROWS)["answer"].tolist() == [1, 300, -5]
    assert (low.seen, high.seen) == ([2], [1])
    routed.predict(ROWS.take(slice(0, 1)))
    assert (low.seen, high.seen) == ([2, 1], [1])


def test_what_stands_behind_a_branch_runs_only_for_its_rows() -> None:
    behind, branch = Computes(total), Computes(total)
    nodes = (
        model("behind", X),
        model("branch", Source("out", "behind")),
        model("other", X),
        router("r", Y, Case(to="branch", equals=4.0), default="other"),
    )
    routed = engine(nodes, {"answer": Source("out", "r")}, {"behind": behind, "branch": branch})
    assert routed.predict(ROWS)["answer"].tolist() == [1, 3, -5]
    assert behind.seen == branch.seen == [1]


def test_a_branch_that_is_an_output_too_runs_once_for_all_rows() -> None:
    low = Computes(total)
    nodes = (model("low", X), model("high", Y), router("r", X, Case(to="low", below=2), default="high"))
    both = engine(nodes, {"answer": Source("out", "r"), "low": Source("out", "low")}, {"low": low})
    assert both.predict(ROWS)["low"].tolist() == [1, 3, -5]
    assert low.seen == [3]


def test_elements_of_an_output_are_sources() -> None:
    def probabilities(columns: Columns) -> Outputs:
        return {"probabilities": np.stack([columns["f0"], columns["f0"] * 10], axis=1)}

    two = Output(name="probabilities", dtype=DType.float64, shape=(2,), labels=("no", "yes"))
    nodes = (model("a", X, outputs=(two,)), model("b", Source("probabilities", "a", 1)))
    chosen = engine(
        nodes,
        {"answer": Source("out", "b"), "no": Source("probabilities", "a", 0)},
        {"a": Computes(probabilities)},
    )
    given = chosen.predict(ROWS)
    assert given["answer"].tolist() == [10, 30, -50]
    assert given["no"].tolist() == [1, 3, -5]


MIXED = Contract(
    inputs=(
        Field(name="n", dtype=DType.int64),
        Field(name="s", dtype=DType.string, nullable=True),
        Field(name="t", dtype=DType.timestamp),
    ),
    outputs=(),
)


def test_text_and_moments_go_through_untouched() -> None:
    seen: dict[str, Any] = {}

    def keep(rows: dict) -> dict:  # type: ignore[type-arg]
        seen.update(rows)
        return {"text": rows["a0"], "when": rows["a1"]}

    text = np.empty(2, dtype=object)
    text[:] = ["a", None]
    moments = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[us]")
    columns = Columns(("n", "s", "t"), 2, arrays=[np.array([1, 2]), text, moments])
    outputs = (Output(name="text", dtype=DType.string), Output(name="when", dtype=DType.timestamp))
    node = function("f", Source("s"), Source("t"), outputs=outputs)
    kept = engine(
        (node,),
        {"text": Source("text", "f"), "when": Source("when", "f")},
        contract=MIXED,
        functions={"f": keep},
    )
    given = kept.predict(columns)
    assert given["text"].tolist() == ["a", None]
    assert given["when"].tolist() == moments.tolist()
    assert seen["a0"] is not text


def test_a_function_cannot_change_what_others_read() -> None:
    def spoil(rows: dict) -> dict:  # type: ignore[type-arg]
        rows["a0"][:] = 99.0
        return {"out": rows["a0"]}

    nodes = (function("bad", X), model("good", X))
    spoiled = engine(
        nodes, {"bad": Source("out", "bad"), "good": Source("out", "good")}, functions={"bad": spoil}
    )
    given = spoiled.predict(ROWS)
    assert given["good"].tolist() == [1, 3, -5]
    assert ROWS["x"].tolist() == [1, 3, -5]


def test_a_matrix_of_the_same_fields_is_passed_on_without_a_copy() -> None:
    same: list[Any] = []
    watched = Computes(lambda columns: (same.append(columns.packed), total(columns))[1])
    whole = engine((model("a", X, Y),), {"answer": Source("out", "a")}, {"a": watched})
    whole.predict(ROWS)
    assert same[0] is ROWS.packed


def test_a_model_of_narrow_floats_gets_them_narrow() -> None:
    dtypes: list[str] = []
    watched = Computes(lambda columns: (dtypes.append(str(columns["f0"].dtype)), total(columns))[1])
    narrow = engine((model("a", X, dtype=DType.float32),), {"answer": Source("out", "a")}, {"a": watched})
    narrow.predict(ROWS)
    assert dtypes == ["float32"]
    with pytest.raises(ModelFailed, match=r"node 'a' .* got a number that float32 cannot hold"):
        narrow.predict(table((1e300, 0)))


def boom(columns: Columns) -> Outputs:
    raise ZeroDivisionError("by zero")


def busy(columns: Columns) -> Outputs:
    raise Overloaded("the queue is full")


def test_a_failing_node_is_named() -> None:
    for fails, kind, told in [
        (boom, ModelFailed, r"node 'b' \(b-model:3\) failed on 3 rows: by zero"),
        (busy, Overloaded, r"node 'b' \(b-model:3\): the queue is full"),
    ]:
        failing = engine(
            (model("a", X), model("b", Source("out", "a"))),
            {"answer": Source("out", "b")},
            {"b": Computes(fails)},
        )
        with pytest.raises(kind, match=told):
            failing.predict(ROWS)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"other": np.zeros(3)}, "node 'a' .* gave no output 'out'; it gave other"),
        ({"out": np.zeros(2)}, r"gave 'out' of shape \[2\], not \[3\] as when packaged"),
        ({"out": np.zeros((3, 2))}, r"gave 'out' of shape \[3, 2\], not \[3\]"),
        ({"out": np.array(["a", "b", "c"], dtype=object)}, "gave 'out' as object, not float64"),
    ],
)
def test_a_node_that_gives_something_else_than_when_packaged_is_told(given: Outputs, told: str) -> None:
    wrong = engine((model("a", X),), {"answer": Source("out", "a")}, {"a": Computes(lambda columns: given)})
    with pytest.raises(ModelFailed, match=told):
        wrong.predict(ROWS)


def test_a_null_between_nodes_is_told_where_none_may_be() -> None:
    nodes = (model("a", X), model("b", Source("out", "a")))
    nulls = engine(
        nodes, {"answer": Source("out", "b")}, {"a": Computes(lambda columns: {"out": np.full(3, np.nan)})}
    )
    with pytest.raises(ModelFailed, match=r"node 'b' .* field 'f0' got a null from a.out"):
        nulls.predict(ROWS)


def test_nodes_are_timed_without_those_they_wait_for() -> None:
    told: list[tuple[str, int, float]] = []
    nodes = (
        model("low", X),
        model("high", X),
        router("r", X, Case(to="low", below=2), default="high"),
        function("f", Source("out", "r")),
    )
    timed = engine(nodes, {"answer": Source("out", "f")})
    assert isinstance(timed, Graph)
    timed.timings = lambda node, rows, seconds: told.append((node, rows, seconds))
    timed.predict(ROWS)
    assert [(node, rows) for node, rows, _ in told] == [("low", 2), ("high", 1), ("r", 3), ("f", 3)]
    assert all(seconds >= 0 for _, _, seconds in told)


def test_unloading_unloads_every_model() -> None:
    engines = {"a": Computes(total), "b": Computes(total)}
    engine((model("a", X), model("b", Y)), {"o": Source("out", "a")}, engines).unload()
    assert all(one.unloaded for one in engines.values())


# ------------------------------------------------------------------ the law


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Node, ...]:
    """A handful of nodes, each reading any of those before it."""
    nodes: list[Node] = []
    for i in range(draw(st.integers(1, 7))):
        sources = [X, Y, *(Source("out", node.name) for node in nodes)]
        one = st.sampled_from(sources)
        name = f"n{i}"
        kind = draw(st.sampled_from(["model", "function", "ensemble", "router"]))
        if kind == "model":
            nodes.append(model(name, *draw(st.lists(one, min_size=1, max_size=3))))
        elif kind == "function" or not nodes:
            nodes.append(function(name, *draw(st.lists(one, min_size=1, max_size=3))))
        elif kind == "ensemble":
            inputs = tuple(draw(st.lists(one, min_size=2, max_size=3)))
            rule = draw(st.sampled_from(["mean", "max"]))
            weights = tuple(float(i + 1) for i in range(len(inputs)))
            nodes.append(EnsembleNode(name=name, rule=rule, inputs=inputs, weights=weights, outputs=(FLOAT,)))
        else:
            names = st.sampled_from([node.name for node in nodes])
            limits = draw(st.lists(st.integers(-3, 3), max_size=2))
            cases = tuple(Case(to=draw(names), below=float(limit)) for limit in limits)
            nodes.append(router(name, draw(one), *cases, default=draw(names)))
    return tuple(nodes)


def by_hand(nodes: tuple[Node, ...], name: str, row: tuple[float, float], ran: set[str]) -> float:
    """What a node gives one row, worked out without arrays; `ran` collects the nodes that had to run."""
    ran.add(name)
    node = next(node for node in nodes if node.name == name)

    def value(source: Source) -> float:
        return by_hand(nodes, source.node, row, ran) if source.node else row["xy".index(source.name)]

    if isinstance(node, RouterNode):
        on = value(node.inputs[0])
        to = next(
            (case.to for case in node.cases if case.below is not None and on < case.below), node.default
        )
        return by_hand(nodes, to, row, ran)
    values = [value(source) for source in node.inputs]
    if isinstance(node, EnsembleNode):
        weighted = [weight * one for weight, one in zip(node.weights, values, strict=True)]
        return max(weighted) if node.rule == "max" else sum(weighted) / sum(node.weights)
    return math.fsum(values)


NUMBER = st.integers(-4, 4).map(float)


@settings(max_examples=150)
@given(graphs(), st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=6))
def test_law_every_row_gets_what_it_gets_alone_and_runs_what_it_needs_once(
    nodes: tuple[Node, ...], rows: list[tuple[float, float]]
) -> None:
    last = nodes[-1].name
    graph = engine(nodes, {"answer": Source("out", last)})
    counted: dict[str, int] = {}
    graph.timings = lambda node, count, _: counted.update({node: counted.get(node, 0) + count})
    together = graph.predict(table(*rows))["answer"]
    expected: dict[str, int] = {}
    for row, answer in zip(rows, together.tolist(), strict=True):
        ran: set[str] = set()
        assert answer == pytest.approx(by_hand(nodes, last, row, ran), rel=1e-12)
        for node in ran:
            expected[node] = expected.get(node, 0) + 1
    assert counted == expected
    alone = [graph.predict(table(row))["answer"] for row in rows]
    assert np.concatenate(alone).tolist() == together.tolist()


# ------------------------------------------------------------------- loading


def written(folder: Path, pipeline: Pipeline) -> Path:
    (folder / "engine").mkdir()
    (folder / FILE).write_bytes(msgspec.json.encode(pipeline))
    return folder


def loaded(folder: Path) -> Any:
    return load(folder, EngineSpec(kind="pipeline", file=FILE), NUMBERS, 1, isolation=IsolationSettings())


def test_a_function_is_loaded_from_its_own_folder(tmp_path: Path) -> None:
    node = function("f", X, Y)
    written(tmp_path, Pipeline(nodes=(node,), outputs={"answer": Source("out", "f")}))
    (tmp_path / "engine/nodes/f").mkdir(parents=True)
    (tmp_path / "engine/nodes/f/f.py").write_text(
        "def f(rows: dict):\n    return {'out': rows['a0'] * rows['a1']}\n"
    )
    assert loaded(tmp_path).predict(ROWS)["answer"].tolist() == [2, 12, -30]


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        (Pipeline(nodes=(function("f", Source("out", "f")),), outputs={"a": Source("out", "f")}), "f -> f"),
        (Pipeline(nodes=(router("r", X, default="gone"),), outputs={"a": Source("out", "r")}), "gone"),
        (
            Pipeline(
                nodes=(msgspec.structs.replace(function("f", X), file="../../f.py"),),
                outputs={"a": Source("out", "f")},
            ),
            "outside",
        ),
    ],
    ids=["circle", "no branch", "outside"],
)
def test_a_graph_that_is_none_is_refused(tmp_path: Path, pipeline: Pipeline, told: str) -> None:
    written(tmp_path, pipeline)
    (tmp_path / "engine/nodes/f").mkdir(parents=True)
    (tmp_path / "engine/nodes/f/f.py").write_text("def f(rows: dict):\n    return rows\n")
    with pytest.raises(CorruptBundle, match=told):
        loaded(tmp_path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / FILE).write_bytes(b'{"nodes": [{"type": "model", "name": "../x"}], "outputs": {}}')
    with pytest.raises(CorruptBundle, match="cannot be read"):
        loaded(tmp_path)
