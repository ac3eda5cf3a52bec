"""A model that is a graph of models and functions: its nodes, and what reads what. Values only.

A pipeline is kept as `engine/pipeline.json` in its bundle, each node's own files below `engine/nodes/<name>/`. A
node reads request fields and other nodes' outputs; the pipeline's own outputs are outputs of its nodes.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal

import msgspec

from fairway.core.bundle import EngineSpec
from fairway.core.contract import Contract, Output

KIND = "pipeline"
FILE = "engine/pipeline.json"
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"
NodeName = Annotated[str, msgspec.Meta(pattern=NAME)]
Value = str | int | float | bool


class Source(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where an array comes from: the request field `name`, or the output `name` of `node`. With `element`, one
    position of its only further axis, such as one class of `probabilities`."""

    name: str
    node: str = ""
    element: int | None = None

    def __str__(self) -> str:
        place = f"{self.node}.{self.name}" if self.node else self.name
        return place if self.element is None else f"{place}[{self.element}]"


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One way out of a router: rows for which every condition given here holds go `to` that node. A null fulfils
    none."""

    to: str
    equals: Value | None = msgspec.field(name="is", default=None)
    among: tuple[Value, ...] = msgspec.field(name="in", default=())
    below: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        told = [] if self.equals is None else [f"is {self.equals!r}"]
        told += [f"in {', '.join(map(repr, self.among))}"] if self.among else []
        told += [] if self.at_least is None else [f"at least {self.at_least:g}"]
        told += [] if self.below is None else [f"below {self.below:g}"]
        return " and ".join(told)


class _Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: NodeName
    description: str = ""


class ModelNode(_Node, tag="model", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A registered version, as it was when the pipeline was packaged. `inputs` stand in the order of the fields of
    its contract."""

    model: str
    version: int
    digest: str
    spec: EngineSpec
    contract: Contract
    inputs: tuple[Source, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        return self.contract.outputs


class FunctionNode(_Node, tag="function", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`function` of `file` (a path below the node's folder), given `inputs` under the names `arguments`."""

    file: str
    function: str
    arguments: tuple[str, ...]
    inputs: tuple[Source, ...]
    outputs: tuple[Output, ...]


class EnsembleNode(_Node, tag="ensemble", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers of several nodes made one, by `rule`, each with its weight. `labels` are the classes, where there are
    some, as `label` gives them."""

    rule: Literal["mean", "max", "vote"]
    inputs: tuple[Source, ...]
    weights: tuple[float, ...]
    labels: tuple[Value, ...] = ()
    outputs: tuple[Output, ...]


class RouterNode(_Node, tag="router", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each row goes to the node of the first case that holds for its value of `inputs[0]`, or to `default`. Only
    that node is run for it. `outputs` are those that all branches have."""

    inputs: tuple[Source]
    cases: tuple[Case, ...]
    default: str
    outputs: tuple[Output, ...]

    @property
    def branches(self) -> tuple[str, ...]:
        """The node of each case, then the default's; one may stand there more than once."""
        return (*(case.to for case in self.cases), self.default)


Node = ModelNode | FunctionNode | EnsembleNode | RouterNode


class Pipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`nodes` as declared; `outputs` are the pipeline's own, by name."""

    nodes: tuple[Node, ...]
    outputs: dict[str, Source]


def folder(node: str) -> str:
    """Where a bundle keeps a node's files."""
    return f"engine/nodes/{node}"


def reads(node: Node) -> tuple[str, ...]:
    """The nodes that must be there before this one, each once: those it reads, and a router's branches."""
    named = [source.node for source in node.inputs if source.node]
    if isinstance(node, RouterNode):
        named += node.branches
    return tuple(dict.fromkeys(named))


def order(edges: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Every node after those it reads (`edges`), otherwise in the order given.

    Raises ValueError with the nodes of a cycle, the first again at the end.
    """
    try:
        return tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise ValueError(" -> ".join(reversed(error.args[1]))) from None


def reached(edges: dict[str, tuple[str, ...]], roots: tuple[str, ...]) -> frozenset[str]:
    """`roots`, and all that they read, directly or not."""
    found: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += edges.get(name, ())
    return frozenset(found)


def unconditional(pipeline: Pipeline) -> tuple[str, ...]:
    """The nodes that every row needs, in the order to run them: those the outputs reach without passing through a
    router into its branches."""
    edges = {
        node.name: tuple(dict.fromkeys(source.node for source in node.inputs if source.node))
        for node in pipeline.nodes
    }
    roots = tuple(source.node for source in pipeline.outputs.values())
    wanted = reached(edges, roots)
    whole = order({node.name: reads(node) for node in pipeline.nodes})
    return tuple(name for name in whole if name in wanted)
