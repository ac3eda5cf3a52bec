"""A pipeline as text, for people."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fairway.core.errors import CorruptBundle
from fairway.core.listing import listed
from fairway.core.pipeline import (
    EnsembleNode,
    FunctionNode,
    ModelNode,
    Node,
    Pipeline,
    RouterNode,
    order,
    reads,
)

Row = tuple[str, str, str, str]
"""(node, what it is, what it reads, what it gives)"""


def read_graph(path: Path) -> Pipeline:
    """The graph of an unpacked bundle, from its engine's file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pipeline)
    except (OSError, ValueError) as error:
        raise CorruptBundle(f"{path} cannot be read: {error}.") from error


def graph_rows(pipeline: Pipeline) -> list[Row]:
    """A line for each node, in the order they may run, and one for the outputs."""
    nodes = {node.name: node for node in pipeline.nodes}
    rows = [
        (name, _what(nodes[name]), _reads(nodes[name]), ", ".join(o.name for o in nodes[name].outputs))
        for name in order({node.name: reads(node) for node in pipeline.nodes})
    ]
    return [
        *rows,
        (
            "(answer)",
            "",
            listed([str(source) for source in pipeline.outputs.values()], 3),
            ", ".join(pipeline.outputs),
        ),
    ]


def _what(node: Node) -> str:
    if isinstance(node, ModelNode):
        return f"{node.model}:{node.version} ({node.spec.kind})"
    if isinstance(node, FunctionNode):
        return f"{node.file}:{node.function}"
    if isinstance(node, EnsembleNode):
        weighted = (
            "" if len(set(node.weights)) == 1 else f", weights {', '.join(f'{w:g}' for w in node.weights)}"
        )
        return f"{node.rule} of {len(node.inputs)}{weighted}"
    return "router"


def _reads(node: Node) -> str:
    if isinstance(node, RouterNode):
        routes = [f"{case} -> {case.to}" for case in node.cases]
        return f"{node.inputs[0]}: {'; '.join([*routes, f'else -> {node.default}'])}"
    return listed([str(source) for source in node.inputs], 3)
