"""What the names in a declared pipeline mean, and which node reads which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fairway.core.contract import Contract
from fairway.core.errors import Problem
from fairway.core.pipeline import Source, reached
from fairway.packaging.pipeline_text import RESERVED, Declared, DeclaredNode, split_source

_ANY = "-"
"""Stands for an output whose name is not known yet, where only its node matters."""


class Named(NamedTuple):
    """A source, and the element of it that was asked for, as text."""

    source: Source
    element: str | None = None


class Names:
    """A declared pipeline and the contracts of the models in it, by node."""

    def __init__(self, declared: Declared, contracts: Mapping[str, Contract]) -> None:
        self._declared = declared
        self._nodes = declared.nodes
        self._contracts = contracts
        self._fields = {field.name for contract in contracts.values() for field in contract}

    def find(self, text: str) -> Named | str:
        """What a source's text means, or why it means nothing."""
        if text.startswith(f"{RESERVED}.") and text.removeprefix(f"{RESERVED}.") in self._fields:
            return Named(Source(text.removeprefix(f"{RESERVED}.")))  # whatever else stands in such a name
        split = split_source(text)
        if split is None:
            return f"{text!r} is no source; write a field, node.output or node.output[class]"
        named, element = split
        first, dot, rest = named.partition(".")
        if dot and first in self._nodes:
            return Named(Source(rest, first), element)
        if dot and first == RESERVED:
            return Named(Source(rest), element)
        if dot:
            hint = f"for a request field of that name write {RESERVED}.{named}"
            return f"{text!r} names the node {first!r}, which there is not; {hint}"
        return Named(Source(named), element)

    def texts(self, name: str) -> dict[str, str]:
        """A node's sources as text: by field of its model, by argument, or by position."""
        node = self._nodes[name]
        if node.kind == "router":
            return {"router": str(node.router)}
        if node.kind == "ensemble":
            return {str(i): text for i, text in enumerate(node.of)}
        if isinstance(node.inputs, dict):
            given = dict(node.inputs)
        else:
            given = {self._argument(text): text for text in node.inputs or ()}
        contract = self._contracts.get(name)
        if contract is None:
            return given
        return {field.name: f"{RESERVED}.{field.name}" for field in contract} | given

    def _argument(self, text: str) -> str:
        """The name a function knows a source by that was given without one."""
        found = self.find(text)
        if isinstance(found, str):
            return text
        return found.source.name if found.element is None else f"{found.source.name}_{found.element}"

    def request_fields(self, name: str) -> Iterator[tuple[str, str]]:
        """(key as in `texts`, request field) for what a node reads from the request."""
        for key, text in self.texts(name).items():
            found = self.find(text)
            is_node = self._nodes[name].kind == "ensemble" and text in self._nodes
            if isinstance(found, Named) and not found.source.node and not is_node:
                yield key, found.source.name

    def edges(self) -> dict[str, tuple[str, ...]]:
        """The nodes that each node reads; a router's branches among them."""
        return {
            name: tuple(dict.fromkeys([*self._read(name), *(t for t in targets(node) if t in self._nodes)]))
            for name, node in self._nodes.items()
        }

    def _read(self, name: str) -> Iterator[str]:
        for text in self.texts(name).values():
            whole = self._nodes[name].kind == "ensemble" and text in self._nodes
            found = self.find(f"{text}.{_ANY}" if whole else text)
            if isinstance(found, Named) and found.source.node:
                yield found.source.node

    def problems(self, edges: dict[str, tuple[str, ...]]) -> Iterator[Problem]:
        """Routes to no node, and nodes that nothing uses. Sources that mean nothing are told with their types."""
        for name, node in self._nodes.items():
            for target in dict.fromkeys(targets(node)):
                if target not in self._nodes:
                    yield Problem(f"sends rows to {target!r}, which is no node", f"nodes.{name}")
        outputs = self._declared.outputs
        texts = [f"{outputs}.{_ANY}"] if isinstance(outputs, str) else list(outputs.values())
        found = [self.find(text) for text in texts]
        roots = tuple(one.source.node for one in found if isinstance(one, Named) and one.source.node)
        used = reached(edges, roots)
        for name in self._nodes:
            if roots and name not in used:
                yield Problem("is used by nothing: no output comes from it", f"nodes.{name}")


def targets(node: DeclaredNode) -> list[str]:
    """Where a router sends rows, by case and then by default; nothing for other nodes."""
    return [*(case.to for case in node.routes), *([node.default] if node.default is not None else [])]
