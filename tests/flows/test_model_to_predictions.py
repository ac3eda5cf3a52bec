"""The whole flow of one model: trained, deployed, loaded, served, recorded, replaced, rolled back."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import fairway
from examples.payments.simulate import FEATURES, TARGET, Simulation, payments
from examples.payments.traffic import records
from examples.payments.train import pipeline

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


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """`fairway serve` on a free port; gives host:port."""
    command = [
        str(Path(sys.executable).with_name("fairway")),
        "serve",
        "--port",
        "0",
        "--home",
        str(home),
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            assert line, server.communicate()[1]
            yield urlsplit(json.loads(line)["address"]).netloc
        finally:
            server.terminate()
            server.communicate(timeout=30)


def post(
    address: str, path: str, body: bytes, kind: str = "application/json"
) -> tuple[http.client.HTTPResponse, Any]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": kind, "X-Request-Id": "flow-1"})
        answer = connection.getresponse()
        return answer, json.loads(answer.read())
    finally:
        connection.close()


def output(body: Any, name: str) -> np.ndarray:
    [found] = [tensor for tensor in body["outputs"] if tensor["name"] == name]
    return np.array(found["data"]).reshape(found["shape"])


def log_of(home: Path, version: int) -> pd.DataFrame:
    tables = []
    for segment in sorted((home / "log" / "payments" / f"v{version}").glob("*.arrows")):
        with pa.ipc.open_stream(segment) as reader:
            tables.append(reader.read_all())
    return pa.concat_tables(tables).to_pandas()


def test_loaded_it_answers_as_the_original_and_records(home: Path, model) -> None:
    with fairway.load("payments", home=home) as loaded:
        answers = loaded.predict(LATER)
        answer = loaded.answer(LATER[:3], request_id="mine")
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(LATER), atol=1e-5)
    assert answers["label"].tolist() == model.predict(LATER).tolist()
    assert (answer.version, answer.request_id) == (1, "mine")
    log = log_of(home, 1)
    mine = log[log["request_id"] == "mine"]
    assert mine["row"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(mine["input.amount"], LATER["amount"][:3])


def test_served_it_gives_the_same_answers_in_every_form_of_rows(home: Path) -> None:
    with fairway.load("payments", home=home, record=False) as loaded:
        expected = loaded.predict(LATER)["probabilities"]
    split = LATER.astype(object).where(LATER.notna(), None)
    rows = list(records(LATER))
    split_body = {"columns": list(FEATURES), "data": [[row[name] for name in FEATURES] for row in rows]}
    assert len(split) == len(rows)
    with serving(home) as address:
        bodies = [
            (json.dumps({"dataframe_records": rows}).encode(), "application/json"),
            (json.dumps({"dataframe_split": split_body}).encode(), "application/json"),
            (json.dumps({"instances": rows}).encode(), "application/json"),
            (LATER.to_csv(index=False).encode(), "text/csv"),
        ]
        for path in ("", "/versions/1", "/versions/champion"):
            for body, kind in bodies:
                answer, decoded = post(address, f"/v2/models/payments{path}/infer", body, kind)
                assert answer.status == 200, decoded
                assert answer.headers["X-Request-Id"] == "flow-1"
                assert answer.headers["Fairway-Version"] == "payments:1"
                np.testing.assert_allclose(output(decoded, "probabilities"), expected, rtol=1e-6)
    assert (log_of(home, 1)["request_id"] == "flow-1").sum() == 12 * len(LATER)


def test_a_new_version_takes_over_and_rolling_back_brings_the_old_one_back(home: Path) -> None:
    def deploy(trees: int) -> fairway.Deployment:
        return fairway.deploy(
            fitted(trees), data=PAST[[*FEATURES, TARGET]], target=TARGET, name="payments", home=home
        )

    def live() -> str:
        with serving(home) as address:
            body = json.dumps({"dataframe_records": list(records(LATER[:1]))}).encode()
            answer, decoded = post(address, "/v2/models/payments/infer", body)
            assert answer.status == 200, decoded
            return str(answer.headers["Fairway-Version"])

    assert deploy(6).version == 2
    assert live() == "payments:2"
    command = [str(Path(sys.executable).with_name("fairway")), "rollback", "payments", "--home", str(home)]
    subprocess.run(command, check=True, capture_output=True)
    assert live() == "payments:1"
    again = deploy(6)
    assert (again.version, again.is_new) == (2, False)
