"""The claims pipeline as users run it: deployed, served over HTTP and gRPC, embedded, scored from a file."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton

import fairway
from examples.claims.train import NUMBERS, claims, train
from tests.e2e.servers import FAIRWAY, Server, log_of, output, records, serving, until

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent
PATH = "/v2/models/claims/infer"
_CLAIMS = claims(1000, seed=99)
LATER = pd.concat([_CLAIMS.head(30), _CLAIMS.nlargest(10, "amount")], ignore_index=True)[NUMBERS]
"""Ordinary claims, and some that an isolation forest has seen few of."""

FAILS = """
def negative(rows: dict):
    if (rows["amount"] < 0).any():
        raise ValueError("a claim below zero")
    return rows["amount"]
"""
BROKEN = """
outputs = "quick"
[nodes.checked]
function = "checks.py:negative"
inputs = ["amount"]
[nodes.quick]
model = "quick"
inputs = { amount = "checked.prediction" }
[inputs]
amount = "float64"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`unusual`, `quick`, `careful`, and the pipelines `claims` and `broken` of them; a cache for `quick` alone."""
    folder = tmp_path_factory.mktemp("claims")
    home = folder / "home"
    train(folder, rows=800)
    for name, target in (("unusual", None), ("quick", "fraud"), ("careful", "fraud")):
        data = folder / f"{name}.parquet"
        fairway.deploy(str(folder / f"{name}.joblib"), str(data), target=target, name=name, home=home)
    deployed = fairway.deploy(
        str(ROOT / "examples/claims/pipeline.toml"), str(folder / "claims.parquet"), target="fraud",
        name="claims", home=home,
    )  # fmt: skip
    assert (deployed.engine, deployed.timings, deployed.is_new) == ("pipeline", None, True)
    (folder / "checks.py").write_text(FAILS)
    (folder / "broken.toml").write_text(BROKEN)
    fairway.deploy(folder / "broken.toml", str(folder / "claims.parquet"), name="broken", home=home)
    (home / "fairway.toml").write_text("[models.quick]\ncache_bytes = 1000000\ncache_seconds = 60\n")
    return home


@pytest.fixture(scope="module")
def grpc_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def server(home: Path, grpc_port: int) -> Iterator[Server]:
    with serving(home, "--grpc-port", str(grpc_port)) as running:
        yield running


@pytest.fixture(scope="module")
def expected(home: Path) -> np.ndarray:
    """What the models give one by one, put together by hand."""
    unusual, quick, careful = (
        fairway.load(name, home=home, record=False) for name in ("unusual", "quick", "careful")
    )
    years = np.maximum(LATER.days_insured / 365.25, 0.1)
    ratios = LATER.assign(
        amount_to_premium=LATER.amount / np.maximum(LATER.premium, 1.0),
        claims_per_year=LATER.earlier_claims / years,
    )
    odd = unusual.predict(LATER)["label"] == -1
    fast = quick.predict(LATER)["probabilities"].astype(np.float64)
    both = (fast + 3 * careful.predict(ratios)["probabilities"].astype(np.float64)) / 4
    is_fast = ~odd & (fast[:, 1] < 0.3)
    assert 0 < is_fast.sum() < len(LATER)
    assert odd.any()
    return np.where(is_fast[:, None], fast, both)


def test_a_batch_and_each_row_alone_over_http(server: Server, expected: np.ndarray) -> None:
    status, _, body = server.post({"dataframe_records": records(LATER)}, PATH)
    assert status == 200
    assert output(body, "probabilities") == pytest.approx(expected, abs=1e-6)
    for row in range(0, 40, 7):
        _, _, alone = server.post({"dataframe_records": records(LATER.iloc[row : row + 1])}, PATH)
        assert output(alone, "probabilities")[0] == pytest.approx(expected[row], abs=1e-6)


def test_a_client_of_triton_sees_a_model_like_any_other(server: Server, expected: np.ndarray) -> None:
    with triton.InferenceServerClient(server.address) as client:
        metadata = client.get_model_metadata("claims")
        assert [one["name"] for one in metadata["inputs"]] == NUMBERS
        inputs = []
        for one in metadata["inputs"]:
            dtype = np.float64 if one["datatype"] == "FP64" else np.int64
            tensor = triton.InferInput(one["name"], [40], one["datatype"])
            tensor.set_data_from_numpy(LATER[one["name"]].to_numpy(dtype=dtype))
            inputs.append(tensor)
        given = client.infer("claims", inputs)
    assert given.as_numpy("probabilities") == pytest.approx(expected, abs=1e-6)


def test_grpc(server: Server, grpc_port: int, expected: np.ndarray) -> None:
    assert server.ask("GET", "/v2/health/ready")[0] == 200
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        inputs = []
        for name in NUMBERS:
            values = LATER[name].to_numpy()
            inputs.append(triton_grpc.InferInput(name, [40], "FP64" if values.dtype.kind == "f" else "INT64"))
            inputs[-1].set_data_from_numpy(values)
        given = client.infer("claims", inputs)
    assert given.as_numpy("probabilities") == pytest.approx(expected, abs=1e-6)


def test_embedded_and_from_a_file(home: Path, tmp_path: Path, expected: np.ndarray) -> None:
    with fairway.load("claims", home=home, record=False) as model:
        assert model.predict(LATER)["probabilities"] == pytest.approx(expected, abs=1e-6)
    LATER.to_csv(tmp_path / "later.csv", index=False)
    done = subprocess.run(
        [FAIRWAY, "predict", "claims", str(tmp_path / "later.csv"), "--home", str(home)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    scored = pd.read_csv(pd.io.common.StringIO(done.stdout))
    assert scored[["probabilities_0", "probabilities_1"]].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_a_request_that_breaks_the_derived_contract_is_refused(server: Server) -> None:
    row = {**records(LATER.head(1))[0], "amount": "much"}
    status, _, body = server.post({"dataframe_records": [row]}, PATH)
    assert status == 400
    assert "amount" in json.dumps(body)


def test_a_failing_node_is_named_and_the_others_live_on(server: Server) -> None:
    good, bad = records(LATER.head(1))[0], {**records(LATER.head(1))[0], "amount": -5.0}
    status, _, body = server.post({"dataframe_records": [bad]}, "/v2/models/broken/infer")
    assert status == 500
    assert "node 'checked' (checks.py:negative)" in body["error"]
    assert "a claim below zero" in body["error"]
    assert server.post({"dataframe_records": [good]}, "/v2/models/broken/infer")[0] == 200


def test_nodes_are_timed_and_rows_recorded(server: Server, home: Path) -> None:
    before = server.metric("fairway_node_rows_total")
    known = len(log_of(home, "claims"))
    server.post({"dataframe_records": records(LATER)}, PATH)
    text = server.ask("GET", "/metrics")[2].decode()
    for node in ("ratios", "unusual", "quick", "careful", "both", "doubt", "decide"):
        assert f'fairway_node_seconds_total{{model="claims",node="{node}",version="1"}}' in text
    assert 40 * 3 < server.metric("fairway_node_rows_total") - before < 40 * 7
    until(lambda: len(log_of(home, "claims")) == known + 40)


def test_a_cached_answer_is_the_answer(server: Server) -> None:
    def hits() -> float:
        return server.metric("fairway_cache_hits_total")

    asked = {"dataframe_records": records(LATER.head(3))}
    first = server.post(asked, "/v2/models/quick/infer")
    before = hits()
    again = server.post(asked, "/v2/models/quick/infer")
    assert again[2]["outputs"] == first[2]["outputs"]
    assert hits() == before + 1
    server.post({"dataframe_records": records(LATER)}, PATH)
    server.post({"dataframe_records": records(LATER)}, PATH)
    assert hits() == before + 1  # the pipeline has no cache, whatever its models have
