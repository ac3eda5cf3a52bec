"""TOML of a pipeline: read, or every mistake named."""

from pathlib import Path

import pytest

from fairway.core.contract import Action, DType
from fairway.core.errors import InvalidInput, NotFound
from fairway.packaging.pipeline_text import (
    Declared,
    is_pipeline,
    pipeline_from_text,
    read_pipeline,
    split_source,
)

WHOLE = """
[inputs]
country = "string"
amount = { dtype = "float64", minimum = 0, rules = { on_range = "reject" } }

[nodes.triage]
model = "payments@champion"
description = "cheap and quick"

[nodes.enrich]
function = "features.py:enrich"
inputs = { paid = "amount", sure = "triage.probabilities[fraud]" }
outputs = { risk = "float64" }
files = ["table.csv"]

[nodes.both]
ensemble = "mean"
of = ["triage", "enrich.risk"]
weights = [1, 2.5]

[nodes.decide]
router = "enrich.risk"
routes = [{ below = 0.2, to = "triage" }, { is = 1, in = [2, 3], at_least = 0.5, to = "both" }]
default = "both"

[outputs]
label = "decide.label"
"""


def problems(text: str) -> dict[str, str]:
    with pytest.raises(InvalidInput, match=r"p.toml is no pipeline yet: \d+ problem") as error:
        pipeline_from_text(text, "p.toml")
    return {str(problem.field): problem.reason for problem in error.value.problems}


def test_all_that_a_pipeline_can_say() -> None:
    declared = pipeline_from_text(WHOLE, "p.toml")
    assert {name: node.kind for name, node in declared.nodes.items()} == {
        "triage": "model",
        "enrich": "function",
        "both": "ensemble",
        "decide": "router",
    }
    assert declared.inputs["country"].dtype is DType.string
    assert declared.inputs["amount"].rules.on_range is Action.reject
    assert declared.nodes["both"].weights == (1.0, 2.5)
    case = declared.nodes["decide"].routes[1]
    assert (case.equals, case.among, case.at_least, case.to) == (1, (2, 3), 0.5, "both")
    assert declared.outputs == {"label": "decide.label"}


def test_outputs_may_be_those_of_a_node() -> None:
    declared: Declared = pipeline_from_text('outputs = "a"\n[nodes.a]\nmodel = "m"\n', "p.toml")
    assert declared.outputs == "a"


def test_every_mistake_is_named() -> None:
    found = problems("""
        outputs = 3
        extra = 1
        [inputs]
        n = "floaty"
        s = { dtype = "string", rules = { on_null = "impute" } }
        [nodes.none]
        description = "nothing"
        [nodes.two]
        model = "a"
        function = "f.py:f"
        [nodes.stray]
        model = "a"
        default = "b"
        [nodes.wrong]
        ensemble = "median"
        [nodes."has.dot"]
        model = "a"
        [nodes.inputs]
        model = "a"
        """)
    assert set(found) == {
        *("extra", "outputs", "inputs.n", "inputs.s", "nodes.none", "nodes.two"),
        *("nodes.stray", "nodes.wrong", "nodes.has.dot", "nodes.inputs"),
    }
    assert found["nodes.none"] == "says not what it is; give one of ensemble, function, model, router"
    assert found["nodes.two"] == "has model and function; give one of ensemble, function, model, router"
    assert found["nodes.stray"] == "a model has no 'default'; it may have description, inputs"
    assert "'median'" in found["nodes.wrong"]
    assert "letters, digits" in found["nodes.has.dot"]


def test_a_pipeline_without_nodes_or_outputs_is_none() -> None:
    assert problems("") == {
        "None": "a pipeline has at least one table [nodes.NAME]",
        "outputs": 'is missing: it is a node\'s name, or a table such as label = "decide.label"',
    }
    assert "holds tables" in problems('nodes = 1\noutputs = "a"')["nodes"]
    assert "is a table" in problems('outputs = "a"\n[nodes]\na = 1')["nodes.a"]


def test_a_name_given_twice_is_no_toml() -> None:
    with pytest.raises(InvalidInput, match=r"p.toml is not valid TOML"):
        pipeline_from_text('[nodes.a]\nmodel = "x"\n[nodes.a]\nmodel = "y"\n', "p.toml")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("amount", ("amount", None)),
        ("a.probabilities[fraud]", ("a.probabilities", "fraud")),
        (" a.b.c[0] ", ("a.b.c", "0")),
        ("a[", None),
        ("", None),
        ("[x]", None),
    ],
)
def test_a_source_is_a_place_and_maybe_an_element(text: str, parts: tuple[str, str | None] | None) -> None:
    assert split_source(text) == parts


def test_a_pipeline_is_told_by_its_ending() -> None:
    assert is_pipeline("claims.toml")
    assert is_pipeline(Path("claims.toml"))
    assert not is_pipeline("model.joblib")
    assert not is_pipeline(object())


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        read_pipeline(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_pipeline(tmp_path / "latin.toml")
