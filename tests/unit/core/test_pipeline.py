"""The order of a graph, and what every row of it needs."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.pipeline import (
    Case,
    Pipeline,
    RouterNode,
    Source,
    order,
    reached,
    reads,
    unconditional,
)
from tests.graphs import FLOAT, X, function, model


def test_nodes_come_after_those_they_read() -> None:
    assert order({"c": ("b",), "b": ("a",), "a": ()}) == ("a", "b", "c")


@given(st.permutations(list("abcdef")), st.data())
def test_law_every_node_stands_after_all_it_reads(names: list[str], data: st.DataObject) -> None:
    edges = {
        name: tuple(data.draw(st.lists(st.sampled_from(names[:i]), unique=True))) if i else ()
        for i, name in enumerate(names)
    }
    placed = order(dict(sorted(edges.items())))
    assert sorted(placed) == sorted(names)
    assert all(placed.index(before) < placed.index(name) for name in edges for before in edges[name])


def test_a_circle_is_told() -> None:
    with pytest.raises(ValueError, match=r"(a -> b -> a|b -> a -> b)"):
        order({"a": ("b",), "b": ("a",), "c": ()})


def test_reached_is_all_that_is_read_directly_or_not() -> None:
    assert reached({"a": ("b",), "b": ("c",), "d": ("a",)}, ("a",)) == {"a", "b", "c"}


def test_branches_of_a_router_are_conditional_unless_something_else_needs_them() -> None:
    nodes = (
        model("before", X),
        model("low", Source("out", "before")),
        model("high", X),
        RouterNode(name="r", inputs=(X,), cases=(Case(to="low", below=1),), default="high", outputs=(FLOAT,)),
        function("after", Source("out", "r")),
    )
    assert reads(nodes[3]) == ("low", "high")
    only = Pipeline(nodes=nodes, outputs={"o": Source("out", "after")})
    assert unconditional(only) == ("r", "after")
    both = Pipeline(nodes=nodes, outputs={"o": Source("out", "after"), "l": Source("out", "low")})
    assert unconditional(both) == ("before", "low", "r", "after")


def test_a_pipeline_survives_its_file() -> None:
    nodes = (
        model("m", X),
        function("f", Source("out", "m", 1)),
        RouterNode(
            name="r",
            inputs=(X,),
            cases=(Case(to="m", equals="a", among=(1,)),),
            default="f",
            outputs=(FLOAT,),
        ),
    )
    pipeline = Pipeline(nodes=nodes, outputs={"o": Source("out", "r")})
    assert msgspec.json.decode(msgspec.json.encode(pipeline), type=Pipeline) == pipeline


@pytest.mark.parametrize("name", ["", "../x", "a.b", "a/b", "1a", "a" * 64])
def test_a_name_that_could_leave_its_folder_is_none(name: str) -> None:
    written = msgspec.json.encode(function("f", X)).replace(
        b'"name":"f"', b'"name":"' + name.encode() + b'"', 1
    )
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"nodes":[' + written + b'],"outputs":{}}', type=Pipeline)


def test_sources_and_cases_are_told_as_people_write_them() -> None:
    assert [str(Source("x")), str(Source("p", "n")), str(Source("p", "n", 1))] == ["x", "n.p", "n.p[1]"]
    assert str(Case(to="a", at_least=0.2, below=1)) == "at least 0.2 and below 1"
    assert str(Case(to="a", among=("x", 1))) == "in 'x', 1"
    assert str(Case(to="a", equals=True)) == "is True"
