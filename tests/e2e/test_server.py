"""A real server, real clients: every protocol form, several workers, and every way of dying."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton

import fairway
from tests.e2e.servers import (
    FAIRWAY,
    MIXED,
    Server,
    alive,
    as_fitted,
    log_of,
    mixed_model,
    numeric_data,
    numeric_model,
    output,
    records,
    serving,
    until,
    visits,
)

pytestmark = pytest.mark.e2e
SHOP = "/v2/models/shop/infer"
LINE = "/v2/models/line/infer"
LATER = visits(40, seed=99)[MIXED]
GOOD = {"instances": [[1.0, 2.0, 3.0]]}


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The original scikit-learn pipeline's probabilities for LATER."""
    return mixed_model(visits(400, 7)).predict_proba(as_fitted(LATER))


# Answers


@pytest.mark.parametrize("form", ["dataframe_records", "dataframe_split", "instances", "csv", "one by one"])
def test_rows_of_every_form_get_the_answers_of_the_original(
    server: Server, expected: np.ndarray, form: str
) -> None:
    rows = records(LATER)
    if form == "csv":
        status, _, told = server.post(LATER.to_csv(index=False).encode(), SHOP, "text/csv")
    elif form == "dataframe_split":
        status, _, told = server.post(
            {form: {"columns": MIXED, "data": [list(row.values()) for row in rows]}}, SHOP
        )
    elif form == "one by one":
        answers = [server.post({"instances": [row]}, SHOP)[2] for row in rows]
        got = np.concatenate([output(answer, "probabilities") for answer in answers])
        np.testing.assert_allclose(got, expected, atol=1e-5)
        return
    else:
        status, _, told = server.post({form: rows}, SHOP)
    assert status == 200, told
    np.testing.assert_allclose(output(told, "probabilities"), expected, atol=1e-5)
    assert output(told, "label").astype(int).tolist() == expected.argmax(axis=1).tolist()


def v2_inputs(kind: type, frame: pd.DataFrame) -> list[object]:
    """V2 tensors of a frame without nulls, as a client that is not ours makes them."""
    types = {"amount": "FP64", "items": "INT64", "member": "BOOL", "country": "BYTES", "at": "BYTES"}
    inputs = []
    for name, datatype in types.items():
        values = frame[name].astype(str).to_numpy(dtype=object) if datatype == "BYTES" else frame[name].to_numpy(
            dtype={"FP64": float, "INT64": np.int64, "BOOL": bool}[datatype])  # fmt: skip
        tensor = kind(name, [len(frame)], datatype)
        tensor.set_data_from_numpy(values, binary_data=False)
        inputs.append(tensor)
    return inputs


@pytest.mark.parametrize("version", ["", "2", "1", "champion"])
def test_a_v2_client_we_did_not_write(server: Server, version: str) -> None:
    frame = LATER.dropna().head(5)
    client = triton.InferenceServerClient(server.address)
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("shop", version)
        assert client.get_server_metadata()["name"] == "fairway"
        told = client.get_model_metadata("shop", version)
        assert [i["name"] for i in told["inputs"]] == MIXED
        assert told["versions"] == ["1", "2"]
        answer = client.infer("shop", v2_inputs(triton.InferInput, frame), version, request_id="mine",
                              outputs=[triton.InferRequestedOutput("probabilities", binary_data=False)])  # fmt: skip
    finally:
        client.close()
    model = mixed_model(visits(400, 8 if version == "1" else 7))
    np.testing.assert_allclose(
        answer.as_numpy("probabilities"), model.predict_proba(as_fitted(frame)), atol=1e-5
    )
    assert answer.get_response()["id"] == "mine"
    assert answer.get_response()["model_version"] == ("1" if version == "1" else "2")


def test_a_matrix_by_httpx(server: Server) -> None:
    frame = numeric_data(8)[["a", "b", "c"]]
    tensor = {"name": "x", "shape": [8, 3], "datatype": "FP64", "data": frame.to_numpy().ravel().tolist()}
    with httpx.Client(base_url=f"http://{server.address}") as client:
        for _ in range(3):
            answer = client.post(LINE, json={"inputs": [tensor], "id": "e"})
            assert answer.status_code == 200
            np.testing.assert_allclose(
                output(answer.json(), "prediction").ravel(),
                numeric_model(numeric_data()).predict(frame),
                atol=1e-4,
            )
            assert answer.headers["fairway-version"] == "line:1"
            assert answer.headers["fairway-digest"].startswith("sha256:")


def test_every_answer_has_a_request_id(server: Server) -> None:
    for method, path, body in [("POST", LINE, json.dumps(GOOD).encode()), ("POST", LINE, b"{"), ("POST", "/v2/models/x/infer", b"{}"), ("GET", "/v2", None), ("GET", "/nothing", None), ("GET", LINE, None), ("GET", "/metrics", None)]:  # fmt: skip
        assert server.ask(method, path, body, x_request_id="abc-1")[1]["x-request-id"] == "abc-1"
        made = {server.ask(method, path, body)[1]["x-request-id"] for _ in range(2)}
        assert len(made) == 2


def test_methods_and_paths(server: Server) -> None:
    status, headers, body = server.ask("HEAD", "/v2/models/line")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    assert server.ask("GET", LINE)[0] == 405
    assert server.ask("PUT", "/v2/models/line", b"x")[0] == 405
    assert server.ask("GET", "/admin")[0] == 404


def test_a_connection_is_kept_and_pipelined(server: Server) -> None:
    body = json.dumps(GOOD).encode()
    request = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        LINE.encode(),
        len(body),
        body,
    )
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(request * 10)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < 10 or not received.endswith(b"}"):
                received += connection.recv(65536)
    assert received.count(b"HTTP/1.1") == 10


def test_predictions_arrive_in_the_log_with_their_request_id(server: Server, home: Path) -> None:
    status, _, told = server.post({"instances": records(LATER.head(3))}, SHOP, x_request_id="to-the-log")
    assert status == 200

    def logged() -> pd.DataFrame:
        log = log_of(home, "shop")
        return log[log["request_id"] == "to-the-log"]

    until(lambda: len(logged()) == 3)
    found = logged()
    assert found["row"].tolist() == [0, 1, 2]
    assert found["version"].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(found["input.amount"], LATER["amount"].head(3))
    np.testing.assert_allclose(
        np.stack(found["output.probabilities"]), output(told, "probabilities"), rtol=1e-6
    )


# Workers and their ends


def test_two_workers_count_together_and_one_killed_is_replaced(home: Path) -> None:
    with serving(home, "line", "--workers", "2") as running:
        asked = 0
        first = running.workers()
        assert len(first) == 2

        def ask() -> int:
            return running.post(GOOD, LINE)[0]

        for _ in range(40):
            assert ask() == 200
            asked += 1
        assert running.metric("fairway_rows_total") == asked
        for round_ in range(2):
            victim = running.workers()[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda: len([pid for pid in running.workers() if alive(pid)]) == 2, 10)
            answered = []
            with ThreadPoolExecutor(4) as pool:  # connections that wait on the dead one's socket are taken up
                answered = list(pool.map(lambda _: ask(), range(24)))
            assert answered == [200] * 24, round_
            asked += 24
        assert victim not in running.workers()
        # An answer is sent before it is counted, so a kill in between may cost one count each.
        assert asked - 2 <= running.metric("fairway_rows_total") <= asked
        assert "ended with -9; starting another" in running.errors.read_text()
        final = running.workers()
    until(lambda: not any(map(alive, final)))


SLOW = """
import time
import numpy as np

def predict(frame):
    time.sleep(float(frame["seconds"].iloc[0]))
    return {"slept": frame["seconds"].to_numpy(dtype=np.float64)}
"""


@pytest.fixture(scope="module")
def slow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sleeps as long as its input says."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(SLOW)
    data = pd.DataFrame({"seconds": [0.0, 0.001, 0.0, 0.002] * 5})
    fairway.deploy(f"{folder / 'slow.py'}:predict", data, name="slow", home=folder / "home")
    return folder / "home"


def test_sigterm_answers_what_is_under_way_and_then_ends(slow_home: Path) -> None:
    with serving(slow_home) as running:
        [worker] = running.workers()
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(
                running.post({"instances": [[1.5]]}, "/v2/models/slow/infer", x_request_id="the-last")
            )
        )
        asking.start()
        time.sleep(0.5)  # the request is in the model now
        running.process.send_signal(signal.SIGTERM)
        asking.join()
        [(status, _, told)] = answers
        assert status == 200
        assert output(told, "slept").tolist() == [1.5]
        assert running.process.wait(20) == 0
        assert not alive(worker)
    assert log_of(slow_home, "slow")["request_id"].tolist() == ["the-last"]  # written before the worker ended


def test_workers_stop_when_their_supervisor_is_killed(home: Path) -> None:
    with serving(home, "line", "--workers", "2") as running:
        workers = running.workers()
        running.process.kill()
        until(lambda: not any(map(alive, workers)))
        with pytest.raises(OSError):
            socket.create_connection(tuple(running.address.split(":")), timeout=2)  # type: ignore[arg-type]


def test_a_worker_whose_supervisor_is_killed_does_not_wait_for_ever_for_its_model(slow_home: Path) -> None:
    settings = slow_home / "fairway.toml"
    settings.write_text("[serving]\ndrain_seconds = 1.0\n")
    try:
        with serving(slow_home) as running:
            [worker] = running.workers()
            asked = http.client.HTTPConnection(running.address, timeout=60)
            asked.request("POST", "/v2/models/slow/infer", json.dumps({"instances": [[600.0]]}))
            time.sleep(0.5)  # the request is in the model now
            running.process.kill()
            until(lambda: not alive(worker))
            asked.close()
    finally:
        settings.unlink()


def test_two_servers_on_one_home_and_one_port_taken(home: Path) -> None:
    with serving(home, "line") as one, serving(home, "line") as two:
        assert one.post(GOOD, LINE)[0] == two.post(GOOD, LINE)[0] == 200
        port = one.address.split(":")[1]
        command = [FAIRWAY, "serve", "line", "--port", port, "--home", str(home), "--json"]
        third = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert third.returncode == 7
    assert "choose another port" in json.loads(third.stderr)["error"]
