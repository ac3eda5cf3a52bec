"""Clients and servers that others ship, each against a real `fairway serve`: MLflow, KServe, SageMaker by its contract."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

import fairway
from tests.documents import ROOT
from tests.e2e.servers import Server, serving, until

pytestmark = pytest.mark.e2e
CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"
"""An environment of their own (requirements/clients.txt), made by `make setup`."""


def orders(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "amount": random.gamma(2.0, 40.0, rows).round(2),
            "items": random.integers(1, 9, rows),
            "country": random.choice(["DE", "FR", "PL"], rows),
        }
    )
    late = frame["amount"] / 80 + (frame["country"] == "FR") + random.normal(0, 0.5, rows) > 1.4
    frame["late"] = np.where(late, "yes", "no")
    return frame


class Served:
    """A classifier of text labels: its files, its home, and the only model of a running server."""

    def __init__(self, folder: Path) -> None:
        data = orders(300)
        features = ["amount", "items", "country"]
        encode = ColumnTransformer([("country", OneHotEncoder(), ["country"])], remainder="passthrough")
        self.model = Pipeline([("encode", encode), ("model", LogisticRegression(max_iter=2000))])
        self.model.fit(data[features], data["late"])
        self.model_file = folder / "late.joblib"
        joblib.dump(self.model, self.model_file)
        self.home = folder / "home"
        fairway.deploy(self.model_file, data, target="late", name="late", home=self.home)
        self.rows = data[features].head(7)
        self.rows_file = folder / "rows.csv"
        self.rows.to_csv(self.rows_file, index=False)
        self.labels: list[str] = self.model.predict(self.rows).tolist()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("late"))


@pytest.fixture(scope="module")
def server(served: Served) -> Iterator[Server]:
    with serving(served.home) as server:
        yield server


def run_client(script: str, *arguments: object) -> str:
    assert CLIENTS.is_file(), f"{CLIENTS} is missing: run make setup"
    command = [str(CLIENTS), str(ROOT / "tests" / "e2e" / "clients" / script), *map(str, arguments)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mlflow_client_payloads_and_its_own_server(server: Server, served: Served, tmp_path: Path) -> None:
    told = run_client(
        "mlflow_scoring.py", server.address, served.model_file, served.rows_file, tmp_path / "mlflow"
    )
    assert told.count("same answer") == 12
    assert "ScoringServerClient: right" in told


def test_kserve_client(server: Server, served: Served, tmp_path: Path) -> None:
    rows, expected = tmp_path / "rows.json", tmp_path / "expected.json"
    rows.write_text(served.rows.to_json(orient="records"))
    expected.write_text(json.dumps(served.labels))
    assert "right" in run_client("kserve_v1.py", server.address, "late", rows, expected)
    assert json.loads(server.ask("GET", "/v1/models")[2]) == {"models": ["late"]}


def curl(*arguments: str) -> tuple[int, str]:
    """Status and body, as curl got them."""
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_the_documented_calls_of_tensorflow_serving(server: Server, served: Served) -> None:
    """curl -d sends a form's content type, which TensorFlow Serving does not look at."""
    url = f"http://{server.address}/v1/models/late"
    body = json.dumps({"instances": json.loads(served.rows.to_json(orient="records"))})
    status, answer = curl("-d", body, "-X", "POST", f"{url}:predict")
    assert (status, json.loads(answer)) == (200, {"predictions": served.labels})
    status, answer = curl("-d", body.replace("instances", "examples"), f"{url}:classify")
    pairs = json.loads(answer)["results"]
    assert [max(row, key=lambda pair: pair[1])[0] for row in pairs] == served.labels
    assert json.loads(curl(url)[1])["model_version_status"][0]["state"] == "AVAILABLE"
    assert curl("-d", '{"instances": [1.0,5.0]}', f"http://{server.address}/v1/models/half:predict")[0] == 404


class Container:
    """`serve`, as SageMaker starts it in a container."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        with (folder / "errors.txt").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fairway.cli.sagemaker_serve", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "SAGEMAKER_BIND_TO_PORT": str(self.port),
                    "FAIRWAY_HOME": str(folder / "home"),
                    **environ,
                },
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (folder / "errors.txt").read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def archive(served: Served, tmp_path: Path) -> Path:
    """model.tar.gz as it is uploaded for SageMaker."""
    bundle = tmp_path / "late.fairway"
    fairway.package(served.model_file, orders(300), target="late", out=bundle)
    packed = tmp_path / "model.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        file.add(bundle, "late.fairway")
    return packed


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder


def test_a_sagemaker_container(archive: Path, served: Served, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path / "opt" / "ml" / "model")
    container = Container(tmp_path, "--model-folder", str(folder), SAGEMAKER_MAX_CONCURRENT_TRANSFORMS="8")
    try:
        assert curl(f"{container.url}/ping") == (200, "")
        assert json.loads(curl(f"{container.url}/execution-parameters")[1])["MaxConcurrentTransforms"] == 8
        data = served.rows.to_csv(index=False, header=False)
        csv = ("-H", "content-type: text/csv", "--data-binary", data, f"{container.url}/invocations")
        assert curl(*csv) == (200, json.dumps({"predictions": served.labels}, separators=(",", ":")))
        assert curl("-H", "accept: text/csv", *csv) == (200, "\n".join(served.labels) + "\n")
        lines = served.rows.to_json(orient="records", lines=True)
        jsonlines = ("-H", "content-type: application/jsonlines", "-H", "accept: application/jsonlines")
        status, answer = curl(*jsonlines, "--data-binary", lines, f"{container.url}/invocations")
        assert [json.loads(line)["label"] for line in answer.splitlines()] == served.labels
        assert status == 200
    finally:
        container.stop()


def test_a_sagemaker_multi_model_container(archive: Path, served: Served, tmp_path: Path) -> None:
    folder = unpacked(archive, tmp_path / "opt" / "ml" / "models" / "7f2a" / "model")
    container = Container(tmp_path, SAGEMAKER_MULTI_MODEL="true")
    url = f"{container.url}/models"
    kind = ("-H", "content-type: application/json")
    try:
        assert curl(f"{container.url}/ping") == (200, "")
        assert json.loads(curl(url)[1]) == {"models": []}
        load = (*kind, "-d", json.dumps({"model_name": "7f2a", "url": str(folder)}), url)
        assert curl(*load)[0] == 200
        assert curl(*load)[0] == 409
        assert json.loads(curl(url)[1])["models"] == [{"modelName": "7f2a", "modelUrl": str(folder)}]
        body = json.dumps({"instances": json.loads(served.rows.to_json(orient="records"))})
        target = ("-H", "X-Amzn-SageMaker-Target-Model: late.tar.gz")
        status, answer = curl(*kind, *target, "-d", body, f"{url}/7f2a/invoke")
        assert (status, json.loads(answer)) == (200, {"predictions": served.labels})
        assert curl("-X", "DELETE", f"{url}/7f2a")[0] == 200
        assert curl("-X", "DELETE", f"{url}/7f2a")[0] == 404
        assert curl(*kind, "-d", body, f"{url}/7f2a/invoke")[0] == 404
    finally:
        container.stop()


def test_a_sagemaker_container_without_a_bundle_says_what_to_do(served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(served.model_file, folder)
    command = [sys.executable, "-m", "fairway.cli.sagemaker_serve", "--model-folder", str(folder)]
    environ = {**os.environ, "FAIRWAY_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert done.returncode == 3
    assert "late.joblib" in done.stderr
    assert "fairway package" in done.stderr


def test_the_routes_that_vertex_chooses(served: Served) -> None:
    route = "/v1/endpoints/1/deployedModels/2"
    environ = {
        "AIP_HEALTH_ROUTE": route,
        "AIP_PREDICT_ROUTE": f"{route}:predict",
        "AIP_DEPLOYED_MODEL_ID": "2",
    }
    with serving(served.home, environ=environ) as server:
        until(lambda: server.ask("GET", route)[0] == 200)
        body: Any = {"instances": json.loads(served.rows.to_json(orient="records")), "parameters": {}}
        status, _, told = server.post(body, f"{route}:predict")
        assert (status, told) == (200, {"predictions": served.labels, "deployedModelId": "2"})
