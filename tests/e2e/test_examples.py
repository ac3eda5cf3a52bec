"""The examples as a user runs them: `make run` in small, and the Flask application."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from flask.testing import FlaskClient

import fairway
from examples.diagnosis import train as diagnosis
from examples.flask_app.app import create_app
from examples.payments.simulate import FEATURES, Simulation, payments
from examples.payments.traffic import records

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.e2e


def start(root: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "examples.payments.run",
        "--root",
        str(root),
        "--rows",
        "4000",
        "--trees",
        "10",
    ]
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example has run once."""
    root = tmp_path_factory.mktemp("run")
    first = start(root, "--seconds", "2", "--rate", "40")
    out, err = first.communicate(timeout=150)
    assert first.returncode == 0, out + err
    (root / "first.txt").write_text(out)
    return root


def test_the_first_run_trains_deploys_serves_and_says_what_to_open(root: Path) -> None:
    lines = (root / "first.txt").read_text().splitlines()
    ready = [line for line in lines if line.startswith("ready")]
    assert len(ready) == 1
    assert "/v2/models/payments" in ready[0]
    assert "dashboard http://127.0.0.1:" in ready[0]
    assert any(line.startswith("training") for line in lines)
    assert any(line.startswith("sent") and "failed   0" in line for line in lines)


def test_labels_are_kept_for_later(root: Path) -> None:
    kept = [json.loads(line) for line in (root / "labels.jsonl").read_text().splitlines()]
    assert len(kept) >= 40
    assert len({line["request_id"] for line in kept}) == len(kept)


def test_a_second_run_neither_trains_nor_packages_and_takes_another_port_if_it_must(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        again = start(root, "--seconds", "1", "--port", str(port))
        out, err = again.communicate(timeout=100)
    assert again.returncode == 0, out + err
    assert "training" not in out
    assert "packaging" not in out
    [ready] = [line for line in out.splitlines() if line.startswith("ready")]
    assert f":{port}/" not in ready


def test_ctrl_c_stops_everything_in_order(root: Path) -> None:
    running = start(root, "--rate", "20", "--port", "0")
    assert running.stdout is not None
    ready = next(line for line in running.stdout if line.startswith("ready"))
    address = ready.split()[1].split("/")[2]
    os.kill(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    with pytest.raises(OSError):
        http.client.HTTPConnection(address, timeout=5).request("GET", "/v2/health/live")


def test_a_server_that_cannot_start_is_a_failure_with_its_own_words(root: Path, tmp_path: Path) -> None:
    (tmp_path / "payments").symlink_to(root / "payments")
    (tmp_path / "home").mkdir()
    for name in ("registry.db", "blobs", "bundles"):
        if (root / "home" / name).exists():
            (tmp_path / "home" / name).symlink_to(root / "home" / name)
    (tmp_path / "home" / "fairway.toml").write_text('[serving]\nworkers = 1\n[log]\nsegment_bytes = "many"\n')
    failed = start(tmp_path, "--seconds", "1")
    out, err = failed.communicate(timeout=100)
    assert failed.returncode == 1
    assert "segment_bytes" in out + err


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[FlaskClient]:
    app = create_app("payments", home=str(root / "home"))
    with app.test_client() as client:
        yield client


def test_flask_scores_as_the_library_does(root: Path, client: FlaskClient) -> None:
    frame = payments(Simulation(), first=60_000, rows=20)[list(FEATURES)]
    answer = client.post("/score", json={"payments": list(records(frame))})
    assert answer.status_code == 200
    with fairway.load("payments", home=root / "home", record=False) as model:
        expected = model.predict(frame)
    assert answer.json is not None
    assert answer.json["probability"] == pytest.approx(expected["probabilities"][:, 1].tolist())
    assert answer.json["fraud"] == [bool(label) for label in expected["label"]]


def test_flask_names_what_breaks_the_contract(client: FlaskClient) -> None:
    [row] = records(payments(Simulation(), rows=1)[list(FEATURES)])
    answer = client.post("/score", json={"payments": [row, {**row, "amount": "a lot"}]})
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["code"] == "contract_violation"
    assert [(p["field"], p["row"]) for p in answer.json["problems"]] == [("amount", 1)]


@pytest.mark.parametrize("body", [{}, {"payments": []}, {"payments": "x"}, {"payments": [1]}, [1]])
def test_flask_refuses_what_is_not_a_list_of_payments(client: FlaskClient, body: object) -> None:
    assert client.post("/score", json=body).status_code == 400


def test_diagnosis_is_real_data_and_gives_the_same_answers_once_deployed(tmp_path: Path) -> None:
    assert diagnosis.train(tmp_path) > 0.97
    deployed = fairway.deploy(
        str(tmp_path / "model.joblib"),
        str(tmp_path / "train.parquet"),
        target=diagnosis.TARGET,
        name="diagnosis",
        home=tmp_path / "home",
    )
    assert deployed.proof.label_flips == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    with fairway.load("diagnosis", home=tmp_path / "home") as model:
        answers = model.predict(rows)
    assert answers["label"].shape == (20,)
    assert answers["probabilities"].shape == (20, 2)
