"""The whole flow of one model: trained, deployed, loaded, served, recorded, replaced, rolled back."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fairway
from examples.payments.simulate import FEATURES, TARGET, Simulation, payments
from examples.payments.traffic import records
from examples.payments.train import pipeline
from tests.e2e.servers import log_of, output, serving

PAST = payments(Simulation(), rows=4000)
LATER = payments(Simulation(), first=50_000, rows=200)[list(FEATURES)]
pytestmark = pytest.mark.e2e


def fitted(trees: int):
    return pipeline(trees=trees).fit(PAST[list(FEATURES)], PAST[TARGET])


@pytest.fixture(scope="module")
def model():
    return fitted(12)


@pytest.fixture(scope="module")
def home(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with `payments:1` live."""
    home = tmp_path_factory.mktemp("home")
    deployed = fairway.deploy(
        model, data=PAST[[*FEATURES, TARGET]], target=TARGET, name="payments", home=home
    )
    assert (deployed.version, deployed.is_new) == (1, True)
    assert deployed.engine == "onnx", deployed.proof.reason
    assert deployed.proof.label_flips == 0
    assert deployed.proof.rows >= 1000
    return home


def test_loaded_it_answers_as_the_original_and_records(home: Path, model) -> None:
    with fairway.load("payments", home=home) as loaded:
        answers = loaded.predict(LATER)
        answer = loaded.answer(LATER[:3], request_id="mine")
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(LATER), atol=1e-5)
    assert answers["label"].tolist() == model.predict(LATER).tolist()
    assert (answer.version, answer.request_id) == (1, "mine")
    log = log_of(home, "payments")
    mine = log[log["request_id"] == "mine"]
    assert mine["row"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(mine["input.amount"], LATER["amount"][:3])


FORKED = """
import os, sys
import fairway
row = {name: [value] for name, value in eval(sys.argv[2]).items()}
model = fairway.load("payments", home=sys.argv[1])
before = model.answer(row)
children = []
for _ in range(2):
    children.append(os.fork())
    if not children[-1]:
        assert model.answer(row).outputs["label"].tolist() == before.outputs["label"].tolist()
        model.close()
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
model.answer(row)
model.close()
"""


def test_loaded_before_a_fork_it_answers_and_records_in_every_process(home: Path) -> None:
    """As servers do that load an application once and fork their workers (`gunicorn --preload`)."""
    before = len(log_of(home, "payments"))
    [row] = records(LATER[:1])
    subprocess.run([sys.executable, "-c", FORKED, str(home), repr(row)], check=True, timeout=60)
    log = log_of(home, "payments")
    assert len(log) - before == 4
    assert log["request_id"].iloc[before:].nunique() == 4


def test_served_it_gives_the_same_answers_in_every_form_of_rows(home: Path) -> None:
    with fairway.load("payments", home=home, record=False) as loaded:
        expected = loaded.predict(LATER)["probabilities"]
    split = LATER.astype(object).where(LATER.notna(), None)
    rows = list(records(LATER))
    split_body = {"columns": list(FEATURES), "data": [[row[name] for name in FEATURES] for row in rows]}
    assert len(split) == len(rows)
    with serving(home) as server:
        bodies = [
            (json.dumps({"dataframe_records": rows}).encode(), "application/json"),
            (json.dumps({"dataframe_split": split_body}).encode(), "application/json"),
            (json.dumps({"instances": rows}).encode(), "application/json"),
            (LATER.to_csv(index=False).encode(), "text/csv"),
        ]
        for path in ("", "/versions/1", "/versions/champion"):
            for body, kind in bodies:
                status, headers, decoded = server.post(
                    body, f"/v2/models/payments{path}/infer", kind, x_request_id="flow-1"
                )
                assert status == 200, decoded
                assert headers["X-Request-Id"] == "flow-1"
                assert headers["Fairway-Version"] == "payments:1"
                np.testing.assert_allclose(output(decoded, "probabilities"), expected, rtol=1e-6)
    assert (log_of(home, "payments")["request_id"] == "flow-1").sum() == 12 * len(LATER)


def test_a_new_version_takes_over_and_rolling_back_brings_the_old_one_back(home: Path) -> None:
    def deploy(trees: int) -> fairway.Deployment:
        return fairway.deploy(
            fitted(trees), data=PAST[[*FEATURES, TARGET]], target=TARGET, name="payments", home=home
        )

    def live() -> str:
        with serving(home) as server:
            rows = {"dataframe_records": list(records(LATER[:1]))}
            status, headers, decoded = server.post(rows, "/v2/models/payments/infer")
            assert status == 200, decoded
            return str(headers["Fairway-Version"])

    assert deploy(6).version == 2
    assert live() == "payments:2"
    command = [str(Path(sys.executable).with_name("fairway")), "rollback", "payments", "--home", str(home)]
    subprocess.run(command, check=True, capture_output=True)
    assert live() == "payments:1"
    again = deploy(6)
    assert (again.version, again.is_new) == (2, False)
