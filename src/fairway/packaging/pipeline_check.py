"""A declared pipeline against the models it names: what every name means, and everything that does not fit.

Types are followed from the request through the nodes in the order they run. A function's outputs are known when they
are declared, or once it has run; what reads them waits until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import Problem
from fairway.core.pipeline import (
    Case,
    EnsembleNode,
    FunctionNode,
    ModelNode,
    Node,
    Pipeline,
    RouterNode,
    Source,
    Value,
    order,
)
from fairway.packaging.bundle import Bundle
from fairway.packaging.pipeline_contract import Reader, merged, misfit
from fairway.packaging.pipeline_names import Names, targets
from fairway.packaging.pipeline_text import Declared, DeclaredNode, split_source

Outs = tuple[Output, ...]


@dataclass(frozen=True)
class NodeModel:
    """The version that a node's reference names, when the pipeline is packaged."""

    model: str
    version: int
    bundle: Bundle


@dataclass(frozen=True)
class Parts:
    """All that is known about a pipeline besides its text. `functions` are the outputs of functions that have run;
    `fields` are request fields as sample data shows them."""

    models: Mapping[str, NodeModel]
    entries: Mapping[str, tuple[str, str]]
    functions: Mapping[str, Outs] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)


@dataclass
class Checked:
    """What came of it. `waiting` is the first function, in the order of running, whose outputs are not known; nodes
    that need it are not in `nodes`. `read_by` is, for each request field, (node, its name for it). `contract` has the inputs; outputs only when nothing is waiting."""

    order: tuple[str, ...] = ()
    nodes: dict[str, Node] = field(default_factory=dict)
    outputs: dict[str, Source] = field(default_factory=dict)
    contract: Contract = field(default_factory=lambda: Contract(inputs=(), outputs=()))
    problems: list[Problem] = field(default_factory=list)
    waiting: str | None = None
    read_by: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline(nodes=tuple(self.nodes.values()), outputs=self.outputs)


def check_pipeline(declared: Declared, parts: Parts) -> Checked:
    """Every problem there is to find with what is known, or none; in the order of the text."""
    checked = _Check(declared, parts).run()
    places = [f"nodes.{name}" for name in declared.nodes]
    checked.problems.sort(key=lambda problem: places.index(problem.field) if problem.field in places else -1)
    return checked


class _Check:
    def __init__(self, declared: Declared, parts: Parts) -> None:
        self._declared = declared
        self._parts = parts
        self._nodes = declared.nodes
        self._found = Checked()
        self._names = Names(declared, {name: model.bundle.contract for name, model in parts.models.items()})
        self._known: dict[str, Outs | None] = {}
        self._fields: dict[str, Field | None] = {}

    def run(self) -> Checked:
        edges = self._names.edges()
        self._found.problems += self._names.problems(edges)
        try:
            self._found.order = order(edges)
        except ValueError as cycle:
            self._problem("nodes", f"nodes read each other in a circle: {cycle}")
            return self._found
        self._merge_fields()
        for name in self._found.order:
            self._check_node(name)
        self._found.nodes = {
            name: self._found.nodes[name] for name in self._nodes if name in self._found.nodes
        }
        self._check_outputs()
        return self._found

    def _problem(self, node: str, reason: str) -> None:
        place = f"nodes.{node}" if node in self._nodes else node
        self._found.problems.append(Problem(reason, place))

    # ----------------------------------------------------------- request fields

    def _merge_fields(self) -> None:
        """One field for each name that nodes read from the request, in the order of the nodes."""
        readers: dict[str, list[Reader]] = {}
        for node in self._nodes:
            wanted = self._model_fields(node)
            for key, name in self._names.request_fields(node):
                found = readers.setdefault(name, [])
                self._found.read_by.setdefault(name, []).append((node, key))
                if key in wanted:
                    found.append((node, wanted[key]))
        for name, found in readers.items():
            self._fields[name] = self._field(name, found)
        for name in self._declared.inputs:
            if name not in readers:
                self._problem(f"inputs.{name}", "is read by no node")
        inputs = tuple(f for f in self._fields.values() if f is not None)
        strict = any(m.bundle.contract.extra_fields == "reject" for m in self._parts.models.values())
        extra = "reject" if strict else "ignore"
        self._found.contract = Contract(inputs=inputs, outputs=(), extra_fields=extra)

    def _model_fields(self, name: str) -> dict[str, Field]:
        model = self._parts.models.get(name)
        return {} if model is None else {f.name: f for f in model.bundle.contract}

    def _field(self, name: str, readers: list[Reader]) -> Field | None:
        declared = self._declared.inputs.get(name)
        if declared is not None:
            for node, wanted in readers:
                reason = misfit(declared, wanted)
                if reason is not None:
                    self._problem(f"inputs.{name}", f"{node} cannot take it: {reason}")
            return declared
        if readers:
            merge, conflicts = merged(name, readers)
            for conflict in conflicts:
                self._problem(f"inputs.{name}", f"{conflict}; say in [inputs.{name}] what holds")
            return merge
        sampled = self._parts.fields.get(name)
        if sampled is None:
            told = ", ".join(node for node, _ in self._found.read_by[name])
            self._problem(
                f"inputs.{name}",
                f"is read by {told} and no model says what it is: give its type in [inputs], or sample data",
            )
        return sampled

    # ------------------------------------------------------------------- nodes

    def _output(self, place: str, text: str) -> tuple[Source, Output] | None:
        """A source and what it gives, or None: told, or not known yet."""
        named = self._names.find(text)
        if isinstance(named, str):
            self._problem(place, named)
            return None
        source, element = named
        output: Output | None
        if not source.node:
            one = self._fields.get(source.name)
            output = None if one is None else Output(name=one.name, dtype=one.dtype, shape=one.shape)
        else:
            known = self._known.get(source.node)
            if known is None:
                return None
            output = next((o for o in known if o.name == source.name), None)
            if output is None:
                told = ", ".join(o.name for o in known)
                self._problem(place, f"{source.node} has no output {source.name!r}; it has {told}")
        if output is None:
            return None
        if element is None:
            return source, output
        return self._element(place, source, output, element)

    def _element(
        self, place: str, source: Source, output: Output, element: str
    ) -> tuple[Source, Output] | None:
        if len(output.shape) != 1:
            self._problem(
                place, f"{source.node}.{source.name} has no elements: its shape is {[*output.shape]}"
            )
            return None
        if element in output.labels:
            position = output.labels.index(element)
        elif element.isdecimal() and not output.labels and int(element) < output.shape[0]:
            position = int(element)
        else:
            known = ", ".join(output.labels) or f"0 to {output.shape[0] - 1}"
            self._problem(place, f"{source.node}.{source.name} has no element {element!r}; it has {known}")
            return None
        return Source(source.name, source.node, position), Output(name=source.name, dtype=output.dtype)

    def _check_node(self, name: str) -> None:
        node = self._nodes[name]
        check = {
            "model": self._model,
            "function": self._function,
            "ensemble": self._ensemble,
            "router": self._router,
        }
        compiled = check[node.kind](name, node)
        self._known[name] = None
        if compiled is not None:
            self._found.nodes[name] = compiled
            self._known[name] = compiled.outputs or None

    def _model(self, name: str, node: DeclaredNode) -> Node | None:
        model = self._parts.models.get(name)
        if model is None:
            return None  # told by who looked for it
        bundle = model.bundle
        texts = self._names.texts(name)
        fields = {f.name: f for f in bundle.contract}
        for key in texts.keys() - fields.keys():
            self._problem(name, f"{node.model} has no field {key!r}; it has {', '.join(fields)}")
        sources = []
        for key, wanted in fields.items():
            found = self._output(name, texts[key])
            if found is None:
                continue
            source, output = found
            reason = misfit(output, wanted) if source.node or source.element is not None else None
            if reason is not None:
                self._problem(name, f"field {key!r} cannot be {texts[key]}: {reason}")
            sources.append(source)
        if len(sources) < len(fields):
            return None
        return ModelNode(
            name=name,
            description=node.description,
            model=model.model,
            version=model.version,
            digest=bundle.digest,
            spec=bundle.spec,
            contract=bundle.contract,
            inputs=tuple(sources),
        )

    def _function(self, name: str, node: DeclaredNode) -> Node | None:
        if not node.inputs:
            self._problem(name, 'a function is given what it reads: inputs = ["amount", "triage.label"]')
            return None
        texts = self._names.texts(name)
        if len(texts) < len(node.inputs):
            self._problem(name, "two inputs have one name; give them as { name = source }")
        outputs = self._declared_outputs(name, node) if node.outputs else self._parts.functions.get(name, ())
        found = [self._output(name, text) for text in texts.values()]
        sources = [source for source, _ in (pair for pair in found if pair is not None)]
        if len(sources) < len(texts) or name not in self._parts.entries:
            return None
        if not outputs and not node.outputs and self._found.waiting is None:
            self._found.waiting = name
        file, function = self._parts.entries[name]
        return FunctionNode(
            name=name,
            description=node.description,
            file=file,
            function=function,
            arguments=tuple(texts),
            inputs=tuple(sources),
            outputs=outputs,
        )

    def _declared_outputs(self, name: str, node: DeclaredNode) -> Outs:
        outputs = []
        for output, text in (node.outputs or {}).items():
            split = split_source(text)
            sizes = [] if split is None or split[1] is None else split[1].split(",")
            kinds = [kind.value for kind in DType]
            if split is None or split[0] not in kinds or not all(s.strip().isdecimal() for s in sizes):
                self._problem(
                    name, f"the output {output!r} is no {text!r}; write float64, string or float32[3]"
                )
                continue
            outputs.append(Output(name=output, dtype=DType(split[0]), shape=tuple(int(s) for s in sizes)))
        return tuple(outputs)

    def _ensemble(self, name: str, node: DeclaredNode) -> Node | None:
        rule = node.ensemble
        assert rule is not None
        if len(node.of) < 2:
            self._problem(name, 'an ensemble is of two or more: of = ["one", "two"]')
            return None
        weights = node.weights or (1.0,) * len(node.of)
        if len(weights) != len(node.of) or not all(weight > 0 for weight in weights):
            self._problem(
                name, f"weights are {len(node.of)} numbers above 0, one for each of {list(node.of)}"
            )
            return None
        found = [self._output(name, self._combined(name, text, rule)) for text in node.of]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) < len(node.of):
            return None
        one = pairs[0][1]
        for text, (_, other) in zip(node.of, pairs, strict=True):
            if rule == "vote":
                fits = (other.dtype, other.shape) == (one.dtype, ())
            else:
                fits = other.dtype.is_numeric and (other.shape, other.labels) == (one.shape, one.labels)
            if not fits:
                self._problem(
                    name, f"{text} and {node.of[0]} do not go together: {_told(other)}, {_told(one)}"
                )
                return None
        labels, outputs = self._answers(rule, node, pairs)
        return EnsembleNode(
            name=name,
            description=node.description,
            rule=rule,
            inputs=tuple(source for source, _ in pairs),
            weights=tuple(weights),
            labels=labels,
            outputs=outputs,
        )

    def _combined(self, name: str, text: str, rule: str) -> str:
        """What of a node is combined when only the node is named."""
        known = self._known.get(text) if text in self._nodes else None
        if known is None:
            return f"{text}.-" if text in self._nodes else text  # not known yet: waits like any other source
        names = [output.name for output in known]
        wanted = ["label"] if rule == "vote" else ["probabilities", "prediction", "score"]
        return f"{text}.{next((w for w in wanted if w in names), wanted[0])}"

    def _answers(
        self, rule: str, node: DeclaredNode, pairs: list[tuple[Source, Output]]
    ) -> tuple[tuple[Value, ...], Outs]:
        source, one = pairs[0]
        if rule == "vote":
            label = Output(name="label", dtype=one.dtype)
            return (), (label, Output(name="votes", dtype=DType.float64))
        names = {output.name for _, output in pairs}
        combined = Output(
            name=names.pop() if len(names) == 1 else "value",
            dtype=DType.float64,
            shape=one.shape,
            labels=one.labels,
        )
        label_output = next((o for o in self._known.get(source.node) or () if o.name == "label"), None)
        if not one.labels or one.name != "probabilities" or label_output is None:
            return (), (combined,)
        labels = tuple(_label(text, label_output.dtype) for text in one.labels)
        return labels, (Output(name="label", dtype=label_output.dtype), combined)

    def _router(self, name: str, node: DeclaredNode) -> Node | None:
        if node.default is None:
            self._problem(name, "has no default: say where rows go for which no route holds")
        found = self._output(name, str(node.router))
        if found is not None:
            self._check_cases(name, node.routes, found[1])
        branches = targets(node)
        known = {branch: self._known.get(branch) for branch in branches}
        if found is None or node.default is None or any(outs is None for outs in known.values()):
            return None
        outputs = _common({branch: outs for branch, outs in known.items() if outs is not None})
        if not outputs:
            told = "; ".join(
                f"{branch}: {', '.join(map(_told, outs or ()))}" for branch, outs in known.items()
            )
            self._problem(name, f"its branches have no output of one name and type in common ({told})")
            return None
        return RouterNode(
            name=name,
            description=node.description,
            inputs=(found[0],),
            cases=node.routes,
            default=node.default,
            outputs=outputs,
        )

    def _check_cases(self, name: str, cases: tuple[Case, ...], on: Output) -> None:
        if on.shape:
            self._problem(name, f"{_told(on)} is not one value a row; choose an element: {on.name}[...]")
        numeric = on.dtype.is_integer or on.dtype.is_float
        for case in cases:
            values = [*case.among, *([] if case.equals is None else [case.equals])]
            if not str(case):
                self._problem(name, f"the route to {case.to} has no condition: is, in, below or at_least")
            for value in values:
                if not _is_of(value, on.dtype):
                    self._problem(name, f"the route to {case.to} compares {on.dtype} with {value!r}")
            if not numeric and (case.below is not None or case.at_least is not None):
                self._problem(name, f"the route to {case.to} compares {on.dtype} with a number")

    # ----------------------------------------------------------------- outputs

    def _check_outputs(self) -> None:
        declared = self._declared.outputs
        if isinstance(declared, str):
            if declared not in self._nodes:
                self._problem("outputs", f"{declared!r} is no node")
                return
            known = self._known.get(declared) or ()
            texts = {output.name: f"{declared}.{output.name}" for output in known}
        else:
            texts = declared
        outputs = []
        for name, text in texts.items():
            found = self._output("outputs", text)
            if found is None:
                continue
            source, output = found
            if not source.node:
                self._problem("outputs", f"{name!r} is {text!r}, a field of the request and no node's output")
                continue
            self._found.outputs[name] = source
            outputs.append(Output(name=name, dtype=output.dtype, shape=output.shape, labels=output.labels))
        inputs = self._found.contract.inputs
        if not inputs and not self._found.problems:
            self._problem("nodes", "no node reads a field of the request")
        self._found.contract = msgspec.structs.replace(
            self._found.contract, outputs=tuple(outputs), task=_task(outputs)
        )


def _common(known: Mapping[str, Outs]) -> Outs:
    """Outputs that all branches have with one shape and labels; of two floats the wider."""
    first, *others = known.values()
    common = []
    for output in first:
        same = [next((o for o in outs if o.name == output.name), None) for outs in others]
        alike = [o for o in same if o is not None and (o.shape, o.labels) == (output.shape, output.labels)]
        dtypes = [output.dtype, *(o.dtype for o in alike)]
        floats = all(dtype.is_float for dtype in dtypes)
        if len(alike) < len(others) or not (floats or len(set(dtypes)) == 1):
            continue
        wide = max(dtypes, key=lambda dtype: int(dtype.value[5:])) if floats else output.dtype
        common.append(Output(name=output.name, dtype=wide, shape=output.shape, labels=output.labels))
    return tuple(common)


def _task(outputs: list[Output]) -> Task:
    names = {output.name: output for output in outputs}
    if "label" in names and "probabilities" in names and names["probabilities"].labels:
        return Task.classification
    if set(names) == {"label", "score"}:
        return Task.anomaly
    prediction = names.get("prediction")
    return Task.regression if prediction is not None and prediction.dtype.is_numeric else Task.other


def _label(text: str, dtype: DType) -> Value:
    """A class's name as its label is given."""
    if dtype is DType.bool:
        return text == "True"
    if dtype.is_integer:
        return int(float(text))
    return float(text) if dtype.is_float else text


def _is_of(value: Value, dtype: DType) -> bool:
    if dtype is DType.string:
        return isinstance(value, str)
    if dtype is DType.bool:
        return isinstance(value, bool)
    return not isinstance(value, bool | str) and dtype.is_numeric


def _told(output: Output) -> str:
    classes = f" of {', '.join(output.labels)}" if output.labels else ""
    return f"{output.name} {output.dtype}{[*output.shape] if output.shape else ''}{classes}"
