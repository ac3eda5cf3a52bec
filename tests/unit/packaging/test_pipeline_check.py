"""What fits together in a pipeline, and every way it may not."""

from collections.abc import Mapping

import msgspec
import pytest

from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.pipeline import EnsembleNode, FunctionNode, ModelNode, RouterNode, Source
from fairway.packaging.pipeline_check import Checked, NodeModel, Parts, check_pipeline
from fairway.packaging.pipeline_text import pipeline_from_text
from tests.planes import bundle

CLASSES = ("no", "yes")
CLASSIFIES = (
    Output(name="label", dtype=DType.string),
    Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=CLASSES),
)
PREDICTS = (Output(name="prediction", dtype=DType.float32),)


def contract(*fields: Field, outputs: tuple[Output, ...] = CLASSIFIES) -> Contract:
    return Contract(inputs=fields, outputs=outputs)


A, B = Field(name="a", dtype=DType.float64), Field(name="b", dtype=DType.float64)
TEXT = Field(name="word", dtype=DType.string)
KNOWN = {
    "one": contract(A, B),
    "two": contract(A, B),
    "line": contract(A, outputs=PREDICTS),
    "words": contract(TEXT, outputs=PREDICTS),
    "odd": contract(Field(name="temp. [C]", dtype=DType.float64)),
    "strict": Contract(inputs=(A,), outputs=PREDICTS, extra_fields="reject"),
    "three": contract(
        A, outputs=(msgspec.structs.replace(CLASSIFIES[1], labels=("a", "b", "c"), shape=(3,)),)
    ),
}


def checked(
    text: str,
    *,
    functions: Mapping[str, tuple[Output, ...]] | None = None,
    fields: tuple[Field, ...] = (),
) -> Checked:
    declared = pipeline_from_text(text, "p.toml")
    models = {
        name: NodeModel(node.model, 1, bundle(KNOWN[node.model]))
        for name, node in declared.nodes.items()
        if node.model is not None
    }
    entries = {name: ("f.py", "f") for name, node in declared.nodes.items() if node.function is not None}
    known = {field.name: field for field in fields}
    return check_pipeline(declared, Parts(models, entries, functions or {}, known))


def problems(text: str, **options: object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in checked(text, **options).problems:  # type: ignore[arg-type]
        found.setdefault(str(problem.field), []).append(problem.reason)
    return found


def test_a_chain_takes_what_its_first_model_takes() -> None:
    chain = checked("""
        outputs = "second"
        [nodes.first]
        model = "one"
        [nodes.second]
        model = "line"
        inputs = { a = "first.probabilities[yes]" }
        """)
    assert chain.problems == []
    assert [field.name for field in chain.contract] == ["a", "b"]
    second = chain.nodes["second"]
    assert isinstance(second, ModelNode)
    assert second.inputs == (Source("probabilities", "first", 1),)
    assert chain.outputs == {"prediction": Source("prediction", "second")}
    assert (chain.contract.outputs, chain.contract.task) == (PREDICTS, Task.regression)


def test_one_model_that_refuses_unknown_fields_is_enough() -> None:
    strict = checked('outputs = "m"\n[nodes.m]\nmodel = "strict"\n')
    assert (strict.problems, strict.contract.extra_fields) == ([], "reject")
    assert checked('outputs = "m"\n[nodes.m]\nmodel = "line"\n').contract.extra_fields == "ignore"


def test_fields_can_be_renamed_and_read_twice() -> None:
    renamed = checked("""
        [nodes.one]
        model = "line"
        inputs = { a = "amount" }
        [nodes.two]
        model = "line"
        inputs = { a = "inputs.with.dots" }
        [outputs]
        x = "one.prediction"
        y = "two.prediction"
        """)
    assert renamed.problems == []
    assert [field.name for field in renamed.contract] == ["amount", "with.dots"]
    assert renamed.contract.task is Task.other


def test_names_of_fields_that_look_like_something_else_are_fields() -> None:
    odd = checked('outputs = "m"\n[nodes.m]\nmodel = "odd"\n')
    assert odd.problems == []
    assert [field.name for field in odd.contract] == ["temp. [C]"]


def test_a_function_is_known_by_what_it_declares_or_once_it_has_run() -> None:
    text = """
        [nodes.f]
        function = "f.py:f"
        inputs = ["inputs.a", "word"]
        [nodes.m]
        model = "line"
        inputs = { a = "f.risk" }
        [outputs]
        x = "m.prediction"
        """
    waiting = checked(text, fields=(A, TEXT))
    assert (waiting.problems, waiting.waiting, list(waiting.nodes)) == ([], "f", ["f"])
    assert waiting.read_by == {"a": [("f", "a")], "word": [("f", "word")]}
    known = checked(text, fields=(A, TEXT), functions={"f": (Output(name="risk", dtype=DType.float64),)})
    assert (known.problems, known.waiting) == ([], None)
    function = known.nodes["f"]
    assert isinstance(function, FunctionNode)
    assert function.arguments == ("a", "word")
    declared = checked(
        text.replace('["inputs.a", "word"]', '["inputs.a", "word"]\noutputs = { risk = "float32" }'),
        fields=(A, TEXT),
    )
    assert (declared.problems, declared.waiting) == ([], None)


def test_request_fields_of_functions_have_to_be_described() -> None:
    text = (
        '[nodes.f]\nfunction = "f.py:f"\ninputs = ["x"]\noutputs = { y = "float64" }\n[outputs]\ny = "f.y"\n'
    )
    assert "no model says what it is" in problems(text)["inputs.x"][0]
    described = checked('[inputs]\nx = "int64"\n' + text)
    assert described.problems == []
    assert described.contract.inputs == (Field(name="x", dtype=DType.int64),)


ENSEMBLE = """
    outputs = "both"
    [nodes.first]
    model = "one"
    [nodes.second]
    model = "two"
    [nodes.both]
    ensemble = "mean"
    of = ["first", "second"]
    """


def test_an_ensemble_of_classifiers_is_a_classifier() -> None:
    both = checked(ENSEMBLE)
    assert both.problems == []
    node = both.nodes["both"]
    assert isinstance(node, EnsembleNode)
    assert node.inputs == (Source("probabilities", "first"), Source("probabilities", "second"))
    assert (node.labels, node.weights) == (CLASSES, (1.0, 1.0))
    assert both.contract.task is Task.classification
    assert both.contract.outputs[1] == msgspec.structs.replace(CLASSIFIES[1], dtype=DType.float64)


def test_a_vote_is_about_labels() -> None:
    voted = checked(ENSEMBLE.replace('"mean"', '"vote"'))
    assert voted.problems == []
    assert [(o.name, o.dtype) for o in voted.contract.outputs] == [
        ("label", DType.string),
        ("votes", DType.float64),
    ]


def test_chosen_numbers_can_be_combined() -> None:
    combined = checked("""
        outputs = "both"
        [nodes.first]
        model = "one"
        [nodes.line]
        model = "line"
        [nodes.both]
        ensemble = "max"
        of = ["first.probabilities[yes]", "line.prediction"]
        """)
    assert combined.problems == []
    assert combined.contract.outputs == (Output(name="value", dtype=DType.float64),)


ROUTER = """
    outputs = "r"
    [nodes.first]
    model = "one"
    [nodes.second]
    model = "two"
    [nodes.r]
    router = "word"
    routes = [{ is = "x", to = "first" }]
    default = "second"
    [inputs]
    word = "string"
    """


def test_a_router_gives_what_its_branches_have_in_common() -> None:
    routed = checked(ROUTER)
    assert routed.problems == []
    node = routed.nodes["r"]
    assert isinstance(node, RouterNode)
    assert (node.inputs, node.branches) == ((Source("word"),), ("first", "second"))
    assert node.outputs == CLASSIFIES
    assert [field.name for field in routed.contract] == ["a", "b", "word"]


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        (
            'outputs = "a"\n[nodes.a]\nmodel = "line"\ninputs = { a = "b.prediction" }\n'
            '[nodes.b]\nmodel = "line"\ninputs = { a = "a.prediction" }\n',
            "nodes",
            "nodes read each other in a circle: ",
        ),
        ('outputs = "x"\n[nodes.a]\nmodel = "line"\n', "outputs", "'x' is no node"),
        (
            'outputs = "a"\n[nodes.a]\nmodel = "line"\n[nodes.b]\nmodel = "one"\n',
            "nodes.b",
            "is used by nothing: no output comes from it",
        ),
        (
            'outputs = "a"\n[nodes.a]\nmodel = "line"\ninputs = { a = "gone.prediction" }\n',
            "nodes.a",
            "'gone.prediction' names the node 'gone', which there is not; for a request field of that name "
            "write inputs.gone.prediction",
        ),
        (
            'outputs = "a"\n[nodes.a]\nmodel = "line"\ninputs = { z = "a" }\n',
            "nodes.a",
            "line has no field 'z'; it has a",
        ),
        (
            '[nodes.a]\nmodel = "one"\n[outputs]\nx = "a.score"\n',
            "outputs",
            "a has no output 'score'; it has label, probabilities",
        ),
        (
            '[nodes.a]\nmodel = "one"\n[outputs]\nx = "a.probabilities[maybe]"\n',
            "outputs",
            "a.probabilities has no element 'maybe'; it has no, yes",
        ),
        (
            '[nodes.a]\nmodel = "one"\n[outputs]\nx = "a.label[0]"\n',
            "outputs",
            "a.label has no elements: its shape is []",
        ),
        (
            '[nodes.a]\nmodel = "one"\n[outputs]\nx = "a.label"\ny = "b"\n',
            "outputs",
            "'y' is 'b', a field of the request and no node's output",
        ),
        (
            'outputs = "b"\n[nodes.a]\nmodel = "one"\n[nodes.b]\nmodel = "line"\ninputs = { a = "a.label" }\n',
            "nodes.b",
            "field 'a' cannot be a.label: string does not fit float64",
        ),
        (
            'outputs = "b"\n[nodes.a]\nmodel = "one"\n[nodes.b]\nmodel = "line"\n'
            'inputs = { a = "a.probabilities" }\n',
            "nodes.b",
            "field 'a' cannot be a.probabilities: shape [2] does not fit []",
        ),
        (
            'outputs = "b"\n[nodes.a]\nmodel = "line"\n[nodes.w]\nmodel = "words"\n'
            'inputs = { word = "inputs.a" }\n[nodes.b]\nensemble = "mean"\nof = ["a", "w"]\n',
            "inputs.a",
            "is a: float64, w: string; say in [inputs.a] what holds",
        ),
        (
            '[inputs]\na = "string"\n[nodes.a]\nmodel = "line"\n[outputs]\nx = "a.prediction"\n',
            "inputs.a",
            "a cannot take it: string does not fit float64",
        ),
        (
            '[inputs]\nz = "string"\n[nodes.a]\nmodel = "line"\n[outputs]\nx = "a.prediction"\n',
            "inputs.z",
            "is read by no node",
        ),
        (ENSEMBLE.replace('["first", "second"]', '["first"]'), "nodes.both", "an ensemble is of two or more"),
        (ENSEMBLE + "weights = [1]\n", "nodes.both", "weights are 2 numbers above 0"),
        (ENSEMBLE + "weights = [1, 0]\n", "nodes.both", "weights are 2 numbers above 0"),
        (
            ENSEMBLE.replace('"two"', '"three"'),
            "nodes.both",
            "second and first do not go together: probabilities float32[3] of a, b, c, "
            "probabilities float32[2] of no, yes",
        ),
        (
            ENSEMBLE.replace('"two"', '"line"'),
            "nodes.both",
            "second and first do not go together: prediction float32, probabilities float32[2] of no, yes",
        ),
        (
            ENSEMBLE.replace('"two"', '"line"').replace('"mean"', '"vote"'),
            "nodes.both",
            "second has no output 'label'; it has prediction",
        ),
        (ROUTER.replace('default = "second"', ""), "nodes.r", "has no default"),
        (ROUTER.replace('to = "first"', 'to = "gone"'), "nodes.r", "sends rows to 'gone', which is no node"),
        (ROUTER.replace('is = "x", ', ""), "nodes.r", "the route to first has no condition"),
        (ROUTER.replace('is = "x"', "is = 1"), "nodes.r", "the route to first compares string with 1"),
        (ROUTER.replace('is = "x"', "below = 1"), "nodes.r", "compares string with a number"),
        (
            ROUTER.replace('"two"', '"line"'),
            "nodes.r",
            "its branches have no output of one name and type in common (first: label string, probabilities "
            "float32[2] of no, yes; second: prediction float32)",
        ),
        (
            ROUTER.replace('router = "word"', 'router = "first.probabilities"'),
            "nodes.r",
            "is not one value a row; choose an element: probabilities[...]",
        ),
        ('outputs = "f"\n[nodes.f]\nfunction = "f.py:f"\n', "nodes.f", "a function is given what it reads"),
        (
            'outputs = "f"\n[nodes.a]\nmodel = "line"\n[nodes.b]\nmodel = "line"\n[nodes.f]\n'
            'function = "f.py:f"\ninputs = ["a.prediction", "b.prediction"]\n',
            "nodes.f",
            "two inputs have one name",
        ),
        (
            'outputs = "f"\n[nodes.f]\nfunction = "f.py:f"\ninputs = ["a"]\noutputs = { x = "floaty" }\n',
            "nodes.f",
            "the output 'x' is no 'floaty'; write float64, string or float32[3]",
        ),
        (
            'outputs = "a"\n[nodes.a]\nmodel = "line"\ninputs = { a = "[" }\n',
            "nodes.a",
            "'[' is no source",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(text: str, place: str, told: str) -> None:
    found = problems(text)
    assert any(told in reason for reason in found.get(place, [])), found


def test_all_problems_are_told_at_once() -> None:
    found = problems("""
        [nodes.a]
        model = "one"
        inputs = { a = "gone.x", q = "b" }
        [nodes.b]
        model = "line"
        inputs = { a = "a.nothing" }
        [nodes.unused]
        model = "words"
        [nodes.r]
        router = "b.prediction"
        routes = [{ to = "nowhere" }]
        [outputs]
        x = "r.prediction"
        """)
    assert set(found) == {"nodes.a", "nodes.unused", "nodes.r"}
    assert len(found["nodes.a"]) == 2
    assert len(found["nodes.r"]) == 2  # where to, and no default; its condition waits for b's type
