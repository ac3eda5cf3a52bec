"""A pipeline as text, for people."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fairway.core.errors import CorruptBundle
from fairway.core.pipeline import (
    EnsembleNode,
    FunctionNode,
    ModelNode,
    Node,
    Pipeline,
    RouterNode,
    Source,
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
    return [*rows, ("(answer)", "", _listed(list(pipeline.outputs.values())), ", ".join(pipeline.outputs))]


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
    return _listed(list(node.inputs))


def _listed(sources: list[Source], most: int = 3) -> str:
    told = [str(source) for source in sources]
    if len(told) <= most + 1:
        return ", ".join(told)
    return f"{', '.join(told[:most])} and {len(told) - most} more"
