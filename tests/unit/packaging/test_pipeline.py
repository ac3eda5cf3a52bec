"""From a pipeline's text and packaged models to one bundle that needs nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from fairway.core.columns import Columns
from fairway.core.conform import to_columns
from fairway.core.contract import Action, Task
from fairway.core.errors import (
    AlreadyExists,
    CorruptBundle,
    InvalidInput,
    MalformedInput,
    ModelFailed,
    NotFound,
    ProofFailed,
)
from fairway.core.pipeline import ModelNode, Pipeline
from fairway.packaging.amend import amend_contract
from fairway.packaging.bundle import digest_of, read_bundle
from fairway.packaging.package import Packaged, package
from fairway.packaging.pipeline import package_pipeline
from fairway.packaging.pipeline_check import NodeModel
from fairway.packaging.rules import set_rule
from fairway.packaging.verify import verify_bundle
from fairway.runtimes.base import load

RANDOM = np.random.default_rng(3)
DATA = pd.DataFrame(
    {"a": RANDOM.normal(size=300), "b": RANDOM.normal(size=300), "word": RANDOM.choice(["x", "y"], 300)}
)
DATA["y"] = np.where(DATA.a + DATA.b > 0, "yes", "no")

FUNCTIONS = """
import pandas as pd

def double(rows: dict) -> dict:
    return {"twice": rows["a"] * 2, "long": rows["word"] == "x"}

def frame(rows: pd.DataFrame):
    return rows["a"].abs()

def centred(rows: dict):
    return rows["a"] - rows["a"].mean()

def fails(rows: dict):
    raise RuntimeError("no idea")

def objects(rows: dict):
    return [{"x": 1}] * len(rows["a"])
"""

PIPELINE = """
[nodes.classes]
model = "classes"

[nodes.line]
model = "line:4"
inputs = { a = "classes.probabilities[yes]" }

[nodes.double]
function = "functions.py:double"
inputs = ["a", "word"]

[nodes.final]
router = "double.long"
routes = [{ is = true, to = "line" }]
default = "other"

[nodes.other]
model = "line"

[outputs]
prediction = "final.prediction"
label = "classes.label"
twice = "double.twice"
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    package(LogisticRegression().fit(DATA[["a", "b"]], DATA.y), DATA[["a", "b"]], out=folder / "classes")
    package(LinearRegression().fit(DATA[["a"]], DATA.b), DATA[["a"]], out=folder / "line")
    return folder


@pytest.fixture
def find(models: Path) -> Callable[[str], NodeModel]:
    def found(reference: str) -> NodeModel:
        name, _, version = reference.partition(":")
        if not (models / name).is_dir():
            raise NotFound(f"There is no model {name!r}.")
        return NodeModel(name, int(version or 1), read_bundle(models / name))

    return found


class Made:
    """A folder with functions, where pipelines are written and packaged."""

    def __init__(self, folder: Path, find: Callable[[str], NodeModel]) -> None:
        self.folder = folder
        self.find = find
        (folder / "functions.py").write_text(FUNCTIONS)

    def __call__(self, text: str, data: Any = None, *, out: str = "bundle", **options: Any) -> Packaged:
        (self.folder / "p.toml").write_text(text)
        return package_pipeline(
            self.folder / "p.toml", find=self.find, data=data, out=self.folder / out, **options
        )

    def problems(self, text: str, data: Any = None) -> dict[str, str]:
        with pytest.raises(InvalidInput) as error:
            self(text, data)
        return {str(problem.field): problem.reason for problem in error.value.problems}


@pytest.fixture
def made(tmp_path: Path, find: Callable[[str], NodeModel]) -> Made:
    return Made(tmp_path, find)


def answers(directory: Path, frame: pd.DataFrame) -> dict[str, Any]:
    bundle = read_bundle(directory)
    engine = load(directory, bundle.spec, bundle.contract)
    columns: Columns = to_columns(bundle.contract, {name: frame[name].to_numpy() for name in frame})
    return engine.predict(columns)


def one(function: str, outputs: str = "") -> str:
    return f"""
        [inputs]
        word = "string"
        [nodes.line]
        model = "line"
        [nodes.f]
        function = "functions.py:{function}"
        inputs = ["a"]
        {outputs}
        [outputs]
        given = "f.prediction"
        prediction = "line.prediction"
        """.replace('[inputs]\n        word = "string"\n', "")


def test_a_pipeline_answers_as_its_parts_would(made: Made, models: Path) -> None:
    packaged = made(PIPELINE, DATA, target="y")
    given = answers(packaged.directory, DATA.drop(columns="y"))
    classes = answers(models / "classes", DATA[["a", "b"]])
    chained = answers(models / "line", pd.DataFrame({"a": classes["probabilities"][:, 1].astype("float64")}))
    plain = answers(models / "line", DATA[["a"]])
    wanted = np.where(DATA.word == "x", chained["prediction"], plain["prediction"])
    assert given["prediction"] == pytest.approx(wanted, rel=1e-6)
    assert given["label"].tolist() == classes["label"].tolist()
    assert given["twice"] == pytest.approx(DATA.a.to_numpy() * 2)
    assert (packaged.engine, packaged.contract.task, packaged.notes) == ("pipeline", Task.regression, ())
    assert packaged.contract.target == "y"
    assert packaged.proof.rows == 64
    assert [(f.name, f.dtype.value) for f in packaged.contract] == [
        *(("a", "float64"), ("b", "float64"), ("word", "string")),
    ]


def test_a_bundle_holds_all_it_runs(made: Made, models: Path, tmp_path: Path) -> None:
    packaged = made(PIPELINE, DATA)
    (tmp_path / "functions.py").unlink()
    shutil.move(packaged.directory, tmp_path / "elsewhere")
    bundle = verify_bundle(tmp_path / "elsewhere")
    graph = msgspec.json.decode((bundle.directory / bundle.spec.file).read_bytes(), type=Pipeline)
    node = next(node for node in graph.nodes if node.name == "classes")
    assert isinstance(node, ModelNode)
    copied = (bundle.directory / "engine/nodes/classes/manifest.json").read_bytes()
    assert node.digest == digest_of(copied) == read_bundle(models / "classes").digest
    assert {(n.model, n.version) for n in graph.nodes if isinstance(n, ModelNode)} == {
        *(("classes", 1), ("line", 4), ("line", 1)),
    }
    assert {"onnxruntime", "numpy", "python"} <= set(bundle.environment.required)
    assert "pipeline of classes, line, double, final, other" in (bundle.directory / "card.md").read_text()


def test_the_same_pipeline_is_the_same_bundle(made: Made) -> None:
    assert made(PIPELINE, DATA, out="one").digest == made(PIPELINE, DATA, out="two").digest
    with pytest.raises(AlreadyExists):
        made(PIPELINE, DATA, out="one")


def test_a_node_that_was_altered_is_found(made: Made) -> None:
    packaged = made(PIPELINE, DATA)
    with (packaged.directory / "engine/nodes/double/functions.py").open("a") as file:
        file.write("# more\n")
    with pytest.raises(CorruptBundle, match=r"engine/nodes/double/functions\.py"):
        read_bundle(packaged.directory)


TWO = """
outputs = "line"
[nodes.classes]
model = "classes"
inputs = { b = "second" }
[nodes.line]
model = "line"
inputs = { a = "classes.probabilities[no]" }
"""


def test_without_data_the_golden_rows_of_the_models_stand_in(made: Made, models: Path) -> None:
    packaged = made(TWO)
    bundle = read_bundle(packaged.directory)
    golden = read_bundle(models / "classes").golden.inputs
    assert bundle.golden.inputs == {"a": golden["a"], "second": golden["b"]}
    assert packaged.proof.rows_by_kind == {"golden": 16}
    profile = msgspec.json.decode((bundle.directory / "profile.json").read_bytes())
    assert [field["name"] for field in profile["inputs"]] == ["a", "second"]
    assert profile["rows"] == 300


def test_without_data_what_no_model_shows_is_told(made: Made) -> None:
    text = PIPELINE.replace("[nodes.classes]", '[inputs]\nword = "string"\n[nodes.classes]', 1)
    with pytest.raises(InvalidInput, match=r"Nothing shows what word looks like: .* Give sample data"):
        made(text)
    assert "no model says what it is" in made.problems(PIPELINE)["inputs.word"]


def test_data_has_to_hold_what_the_pipeline_reads(made: Made) -> None:
    with pytest.raises(MalformedInput, match="the sample data has no b, which the pipeline reads"):
        made(PIPELINE, DATA[["a", "word"]])


def test_rows_the_contract_refuses_are_left_out(made: Made) -> None:
    data = DATA[["a", "b"]].rename(columns={"b": "second"})
    data.loc[:99, "second"] = np.nan
    assert made(TWO, data).proof.rows == 64


def test_branches_that_no_row_took_are_noted(made: Made) -> None:
    packaged = made(PIPELINE, DATA[DATA.word == "y"])
    assert packaged.notes == ("No row of the sample reached line.",)


def test_frames_and_functions_that_give_one_array(made: Made) -> None:
    packaged = made(one("frame"))
    assert {o.name: o.dtype.value for o in packaged.contract.outputs}["given"] == "float64"
    assert "pandas" in read_bundle(packaged.directory).environment.required


def test_a_function_that_looks_at_its_neighbours_is_refused(made: Made) -> None:
    with pytest.raises(ProofFailed, match=r"A row gets another 'given' in a batch .* each row by itself"):
        made(one("centred"))
    assert not (made.folder / "bundle").exists()


def test_a_function_that_fails_is_named(made: Made) -> None:
    with pytest.raises(ModelFailed, match=r"What node 'f' gives cannot be seen .* RuntimeError: no idea"):
        made(one("fails"))
    with pytest.raises(ModelFailed, match=r"node 'f' \(functions.py:fails\).* RuntimeError: no idea"):
        made(one("fails", 'outputs = { prediction = "float64" }'))


def test_what_nobody_can_be_sent_is_refused(made: Made) -> None:
    with pytest.raises(ModelFailed, match="Node 'f' gives 'prediction' as object"):
        made(one("objects"))


def test_everything_a_node_needs_is_looked_for_first(made: Made) -> None:
    found = made.problems("""
        outputs = "a"
        [nodes.a]
        model = "gone"
        [nodes.b]
        function = "gone.py:f"
        inputs = ["x"]
        [nodes.c]
        function = "functions.py:gone"
        inputs = ["x"]
        [nodes.d]
        function = "functions"
        inputs = ["x"]
        """)
    assert found["nodes.a"] == "There is no model 'gone'"
    assert "there is no file" in found["nodes.b"]
    assert "has no function 'gone'" in found["nodes.c"]
    assert "Write file.py:function" in found["nodes.d"]


def test_a_pipeline_may_be_a_node_of_another(made: Made, models: Path) -> None:
    inner = made(TWO, out="inner")
    outer = Made(made.folder, lambda name: NodeModel("inner", 7, read_bundle(inner.directory)))
    packaged = outer('outputs = "whole"\n[nodes.whole]\nmodel = "inner"\n')
    frame = DATA[["a", "b"]].rename(columns={"b": "second"})
    assert (
        answers(packaged.directory, frame)["prediction"].tolist()
        == answers(inner.directory, frame)["prediction"].tolist()
    )


def test_the_contract_of_a_pipeline_can_be_amended(made: Made, tmp_path: Path) -> None:
    bundle = read_bundle(made(TWO).directory)
    contract = set_rule(bundle.contract, "a.on_range=reject", None)
    amended = amend_contract(bundle, contract, tmp_path / "amended")
    assert amended.contract.inputs[0].rules.on_range is Action.reject
