"""Precomputed answers over HTTP and gRPC with real servers: every way to send a key, every source, what ends an answer,
stores that are away, and a model that is overloaded."""

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc
from sklearn.linear_model import LinearRegression, LogisticRegression

import fairway
from fairway.app.precompute import precompute
from fairway.serving.grpc.messages import message
from fairway.stores.answers import open_answers
from tests.e2e.servers import Server, log_of, output, serving, until
from tests.services import Redis

pytestmark = pytest.mark.e2e

INFER = "/v2/models/risk/infer"
V1 = "/v1/models/risk:predict"
FIELDS = ["a", "b", "c"]


def people(count: int = 200, seed: int = 1) -> pd.DataFrame:
    rows = pd.DataFrame(np.random.default_rng(seed).normal(size=(count, 3)).round(3), columns=FIELDS)
    rows.insert(0, "customer_id", [f"c{n}" for n in range(count)])
    return rows


@dataclass(frozen=True)
class Place:
    """A home with `risk` live and the answers to c0, c1, ... precomputed; `rows` is what they are the answers to."""

    home: Path
    rows: pd.DataFrame

    def features(self, row: int) -> dict[str, float]:
        return {name: float(self.rows[name][row]) for name in FIELDS}

    def tensors(self, *rows: int) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "datatype": "FP64",
                "shape": [len(rows)],
                "data": [float(self.rows[name][row]) for row in rows],
            }
            for name in FIELDS
        ]

    def expected(self, *rows: int) -> np.ndarray:
        with fairway.load("risk", home=self.home, record=False) as model:
            return model.predict(self.rows.loc[list(rows), FIELDS])["probabilities"]


def deploy(home: Path, seed: int = 7) -> None:
    chance = np.random.default_rng(seed)
    train = pd.DataFrame(chance.normal(size=(300, 3)), columns=FIELDS)
    labels = (train.a + train.b * seed / 7 > 0).astype(int)
    fairway.deploy(
        LogisticRegression().fit(train, labels), train.assign(y=labels), target="y", name="risk", home=home
    )


def rows_of(fields: list[str]) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(2).normal(size=(50, len(fields))), columns=fields)


def settings(home: Path, *model: str, more: str = "") -> None:
    lines = ["[models.risk]", 'hybrid_key = "customer_id"', *model, more]
    (home / "fairway.toml").write_text("\n".join(lines) + "\n")


Make = Callable[..., Place]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a place in a folder, with settings of its model and more."""
    template = tmp_path_factory.mktemp("deployed") / "home"
    deploy(template)

    def make(folder: Path, *model: str, more: str = "") -> Place:
        home, rows = folder / "home", people()
        shutil.copytree(template, home)
        settings(home, *model, more=more)
        rows.to_parquet(folder / "rows.parquet", index=False)
        precompute("risk", folder / "rows.parquet", key="customer_id", home=home)
        return Place(home, rows)

    return make


@pytest.fixture(scope="module")
def place(made: Make, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return made(tmp_path_factory.mktemp("hybrid"))


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    with serving(place.home) as server:
        yield server


def told(headers: http.client.HTTPMessage) -> tuple[str, int]:
    return headers["fairway-source"], int(headers["fairway-age"])


# -- every way to send a key


def v2(**body: Any) -> dict[str, Any]:
    return body


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (INFER, {"parameters": {"customer_id": "c7"}}, {}),
        (INFER, {"inputs": [], "parameters": {"customer_id": ["c7"]}}, {}),
        (INFER, {"parameters": {"key": "c7"}}, {}),
        (INFER, {"customer_id": "c7"}, {}),
        (
            INFER,
            {"inputs": [{"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": ["c7"]}]},
            {},
        ),
        (INFER, {"instances": [{"customer_id": "c7"}]}, {}),
        (INFER, {"dataframe_records": [{"customer_id": "c7"}]}, {}),
        (INFER, {"dataframe_split": {"columns": ["customer_id"], "data": [["c7"]]}}, {}),
        (INFER, {}, {"x_fairway_key": "c7"}),
        (INFER, b"", {"x_fairway_key": "c7"}),
        (INFER, {"inputs": []}, {"x_fairway_key": "c7"}),
        (INFER, b"customer_id\nc7\n", {"kind": "text/csv"}),
        (INFER, b'{"customer_id":"c7"}\n', {"kind": "application/jsonl"}),
        (V1, {"instances": [{"customer_id": "c7"}]}, {}),
        (V1, {"inputs": {"customer_id": ["c7"]}}, {}),
        (V1, {"customer_id": "c7"}, {}),
        (V1, b"", {"x_fairway_key": "c7"}),
        ("/v1/models/risk:classify", {"examples": [{"customer_id": "c7"}]}, {}),
        ("/invocations", {"dataframe_records": [{"customer_id": "c7"}]}, {}),
        ("/invocations", {"dataframe_split": {"columns": ["customer_id"], "data": [["c7"]]}}, {}),
        ("/invocations", {"instances": [{"customer_id": "c7"}]}, {}),
        ("/invocations", {"inputs": {"customer_id": ["c7"]}}, {}),
        ("/invocations", {"customer_id": "c7"}, {}),
        ("/invocations", {"params": {"customer_id": "c7", "outputs": ["label"]}}, {}),
        ("/invocations", b"customer_id\nc7\n", {"kind": "text/csv"}),
        ("/invocations", b"", {"x_fairway_key": "c7"}),
        ("/predictions/risk", {"customer_id": "c7"}, {}),
        ("/predictions/risk", [{"customer_id": "c7"}], {}),
    ],
)
def test_a_request_may_be_nothing_but_a_key(
    server: Server, path: str, body: Any, headers: dict[str, str]
) -> None:
    kind = {"kind": "application/json"} | headers
    status, answered, found = server.post(body, path, **kind)
    assert status == 200, found
    assert told(answered)[0] == "precomputed"
    live = server.post(body_with_features(server, path), path)[2]
    assert labels(found) == labels(live)


def body_with_features(server: Server, path: str) -> Any:
    row = {name: float(people()[name][7]) for name in FIELDS}
    if path.endswith("classify"):
        return {"examples": [row]}
    return [row] if path.startswith("/predictions") else {"instances": [row]}


def labels(answer: Any) -> Any:
    """What an answer says of its one row, whatever it is wrapped in."""
    if isinstance(answer, list):
        return answer[0]
    if "outputs" in answer and isinstance(answer["outputs"], list):
        first = answer["outputs"][0]
        return first["data"][0] if isinstance(first, dict) else first
    if "predictions" in answer:
        return answer["predictions"][0]
    return answer.get("results", [None])[0] if isinstance(answer, dict) else answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (INFER, lambda p: {"inputs": p.tensors(7), "parameters": {"customer_id": "c7"}}),
        (INFER, lambda p: {"instances": [{**p.features(7), "customer_id": "c7"}]}),
        (INFER, lambda p: {"instances": [p.features(7)], "customer_id": "c7"}),
        (V1, lambda p: {"instances": [{**p.features(7), "customer_id": "c7"}]}),
        (V1, lambda p: {"inputs": {k: [v] for k, v in {**p.features(7), "customer_id": "c7"}.items()}}),
        (V1, lambda p: {"instances": [p.features(7)], "customer_id": ["c7"]}),
        ("/invocations", lambda p: {"dataframe_records": [{**p.features(7), "customer_id": "c7"}]}),
        ("/invocations", lambda p: {"instances": [list(p.features(7).values())], "customer_id": "c7"}),
    ],
)
def test_features_that_are_those_of_the_answer_find_it_and_others_run_the_model(
    server: Server, place: Place, path: str, body: Any
) -> None:
    status, answered, found = server.post(body(place), path)
    assert status == 200, found
    assert told(answered)[0] == "precomputed"
    changed = Place(place.home, place.rows.assign(a=place.rows.a + 1))
    status, answered, other = server.post(body(changed), path)
    assert (status, told(answered)) == (200, ("live", 0)), other


def test_answers_are_the_models_to_the_last_bit(server: Server, place: Place) -> None:
    headers, body = server.post({"parameters": {"customer_id": ["c3", "c199", "c3"]}}, INFER)[1:]
    assert told(headers)[0] == "precomputed"
    np.testing.assert_array_equal(output(body, "probabilities"), place.expected(3, 199, 3))
    live = server.post({"inputs": place.tensors(3, 199, 3)}, INFER)
    assert told(live[1]) == ("live", 0)
    assert live[2]["outputs"] == body["outputs"]


def test_what_was_wanted_of_an_answer_is_given(server: Server) -> None:
    asked = {"parameters": {"customer_id": "c1"}, "id": "x", "outputs": [{"name": "label"}]}
    body = server.post(asked, INFER)[2]
    assert [tensor["name"] for tensor in body["outputs"]] == ["label"]
    assert body["id"] == "x"
    headers = server.ask("POST", INFER, b"{}", x_fairway_key="c1", accept="text/csv")[1]
    assert told(headers)[0] == "precomputed"
    assert headers["content-type"].startswith("text/csv")
    assert headers["fairway-version"] == "risk:1"


def test_many_keys_do_not_hold_up_the_loop_and_are_in_order(server: Server, place: Place) -> None:
    wanted = [n % 200 for n in range(3000)]
    headers, body = server.post({"parameters": {"customer_id": [f"c{n}" for n in wanted]}}, INFER)[1:]
    assert told(headers)[0] == "precomputed"
    np.testing.assert_array_equal(output(body, "probabilities"), place.expected(*range(200))[wanted])


def test_requests_of_one_turn_are_answered_each_as_its_own(server: Server, place: Place) -> None:
    """Several at once, on many connections: fresh, unknown, live and wrong ones."""
    expected = place.expected(*range(200))

    def ask(n: int) -> None:
        kind = n % 4
        if kind == 0:
            body = server.post({"parameters": {"customer_id": f"c{n}"}}, INFER)[2]
            np.testing.assert_array_equal(output(body, "probabilities")[0], expected[n])
        elif kind == 1:
            assert server.post({"parameters": {"customer_id": f"unknown {n}"}}, INFER)[0] == 404
        elif kind == 2:
            body = server.post({"inputs": place.tensors(n), "customer_id": "none"}, INFER)[2]
            np.testing.assert_array_equal(output(body, "probabilities")[0], expected[n])
        else:
            assert server.post({"inputs": place.tensors(n)[:2], "customer_id": "c1"}, INFER)[0] == 400

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "says"),
    [
        (INFER, {"parameters": {"customer_id": "nobody"}}, {}, 404, "nothing was precomputed for it"),
        (
            V1,
            {"instances": [{"customer_id": "nobody"}]},
            {},
            404,
            "risk has no answer for customer_id 'nobody'",
        ),
        ("/invocations", {"customer_id": "nobody"}, {}, 404, "Send the features"),
        (INFER, {"parameters": {"customer_id": ["c1", "nobody"]}}, {}, 404, "'nobody'"),
        (INFER, {"parameters": {"customer_id": 1.5}}, {}, 400, "text or a whole number"),
        (INFER, {"parameters": {"customer_id": ""}}, {}, 400, "empty"),
        (INFER, {"parameters": {"customer_id": []}}, {}, 400, "3 problems in a, b, c"),
        (INFER, {"parameters": {"customer_id": "x" * 500}}, {}, 400, "480"),
        (INFER, {"parameters": {"customer_id": ["c1", None]}}, {}, 400, "row 1"),
        (INFER, {"parameters": {"customer_id": {"a": 1}}}, {}, 400, "text or a whole number"),
        (V1, {"instances": [{"customer_id": "c1"}, {"a": 1.0}]}, {}, 400, "row 1"),
        (INFER, {}, {}, 400, "exactly one of inputs"),
        (INFER, {"inputs": []}, {}, 400, "inputs"),
        (INFER, b"", {}, 400, "The body is empty"),
        (V1, {}, {}, 400, "Missing 'inputs' or 'instances' key"),
        ("/invocations", {}, {}, 400, "exactly one of the input fields"),
    ],
)
def test_what_cannot_be_answered_is_said_clearly(
    server: Server, path: str, body: Any, headers: dict[str, str], status: int, says: str
) -> None:
    got, answered, found = server.post(body, path, **headers)
    assert got == status, found
    assert says in json.dumps(found, ensure_ascii=False).replace('\\"', '"')
    assert answered["fairway-source"] is None


def test_one_key_a_row(server: Server, place: Place) -> None:
    asked = {"inputs": place.tensors(1, 2), "parameters": {"customer_id": ["c1"]}}
    status, _, found = server.post(asked, INFER)
    assert (status, found["code"]) == (400, "invalid_input")
    assert "1 keys (customer_id) and 2 rows" in found["error"]
    # the header also decides the arm of a split, which goes for any number of rows
    status, headers, _ = server.post({"inputs": place.tensors(1, 2)}, INFER, x_fairway_key="c1")
    assert (status, told(headers)) == (200, ("live", 0))


def test_keys_of_other_scripts(made: Make, tmp_path: Path) -> None:
    place = made(tmp_path)
    rows = place.rows.assign(customer_id=["käse", "客", *map(str, range(198))])
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    precompute("risk", tmp_path / "rows.parquet", key="customer_id", home=place.home)
    with serving(place.home) as server:
        for key in ("käse", "客", 17, "17"):
            assert told(server.post({"parameters": {"customer_id": key}}, INFER)[1])[0] == "precomputed"
        connection = http.client.HTTPConnection(server.address)
        for sent in ("käse".encode(), "käse".encode("latin-1"), "客".encode()):
            connection.putrequest("POST", INFER)
            connection.putheader("X-Fairway-Key", sent)
            connection.putheader("Content-Length", "0")
            connection.endheaders()
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.headers["fairway-source"]) == (200, "precomputed")
        connection.close()


# -- gRPC


def stub(server: Server) -> Any:
    return tritonclient.grpc.InferenceServerClient(server.grpc)


def grpc_inputs(place: Place, *rows: int) -> list[tritonclient.grpc.InferInput]:
    found = []
    for name in FIELDS:
        tensor = tritonclient.grpc.InferInput(name, [len(rows)], "FP64")
        tensor.set_data_from_numpy(place.rows[name].to_numpy()[list(rows)])
        found.append(tensor)
    return found


def call(server: Server, asked: Any, **metadata: str) -> tuple[Any, dict[str, str]]:
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=tritonclient.grpc.service_pb2.ModelInferResponse.FromString,
        )
        sent = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        answer, done = infer.with_call(asked, metadata=sent, timeout=20)
        return answer, dict(done.trailing_metadata())


def infer_request(**parameters: Any) -> Any:
    asked = tritonclient.grpc.service_pb2.ModelInferRequest(model_name="risk")
    for name, value in parameters.items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(asked.parameters[name], kind, value)
    return asked


def test_grpc_takes_keys_as_parameter_metadata_and_input(server: Server, place: Place) -> None:
    expected = place.expected(7)
    keyed = infer_request()
    keyed.inputs.add(name="customer_id", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"c7")
    raw = infer_request()
    raw.inputs.add(name="customer_id", datatype="BYTES", shape=[1])
    raw.raw_input_contents.append(b"\x02\x00\x00\x00c7")
    for asked, metadata in (
        (infer_request(customer_id="c7"), {}),
        (infer_request(key="c7"), {}),
        (infer_request(), {"x_fairway_key": "c7"}),
        (keyed, {}),
        (raw, {}),
    ):
        answer, trailers = call(server, asked, **metadata)
        if asked is keyed:  # typed in, typed out
            given = next(tensor for tensor in answer.outputs if tensor.name == "probabilities")
            assert given.contents.fp32_contents == expected[0].tolist()
        else:
            found = tritonclient.grpc.InferResult(answer).as_numpy("probabilities")
            np.testing.assert_array_equal(found, expected)
        assert trailers["fairway-source"] == "precomputed"
        assert int(trailers["fairway-age"]) >= 0
        assert answer.parameters["fairway_source"].string_param == "precomputed"
        assert answer.parameters["fairway_age"].string_param == trailers["fairway-age"]


def test_grpc_with_features(server: Server, place: Place) -> None:
    client = stub(server)
    found = client.infer("risk", grpc_inputs(place, 7), parameters={"customer_id": "c7"})
    assert found.get_response().parameters["fairway_source"].string_param == "precomputed"
    found = client.infer("risk", grpc_inputs(place, 7), parameters={"customer_id": "c8"})
    assert found.get_response().parameters["fairway_source"].string_param == "live"
    found = client.infer("risk", grpc_inputs(place, 7))
    assert found.get_response().parameters["fairway_source"].string_param == "live"
    np.testing.assert_array_equal(found.as_numpy("probabilities"), place.expected(7))
    client.close()


def test_grpc_streams_tell_the_source_with_each_answer(server: Server, place: Place) -> None:
    client = stub(server)
    got: list[Any] = []
    over = threading.Event()

    def take(result: Any, error: Any) -> None:
        got.append(error or result.get_response().parameters["fairway_source"].string_param)
        if len(got) == 3:
            over.set()

    client.start_stream(take)
    client.async_stream_infer("risk", [], parameters={"customer_id": "c7"})
    client.async_stream_infer("risk", grpc_inputs(place, 7))
    client.async_stream_infer("risk", [], parameters={"customer_id": "nobody"})
    assert over.wait(20)
    client.stop_stream()
    client.close()
    assert got[:2] == ["precomputed", "live"]
    assert "nothing was precomputed" in str(got[2])


def test_grpc_says_what_cannot_be_answered(server: Server) -> None:
    for parameters, code in (({"customer_id": "nobody"}, "NOT_FOUND"), ({}, "INVALID_ARGUMENT")):
        with pytest.raises(grpc.RpcError) as refused:
            call(server, infer_request(**parameters))
        assert refused.value.code().name == code


# -- what ends an answer


def source(server: Server, *, features: Place | None = None, row: int = 7) -> str:
    body: dict[str, Any] = {"parameters": {"customer_id": f"c{row}"}}
    if features is not None:
        body["inputs"] = features.tensors(row)
    status, headers, found = server.post(body, INFER)
    return told(headers)[0] if status == 200 else f"{status} {found['code']}"


def test_answers_end_with_their_time_and_with_a_new_version(made: Make, tmp_path: Path) -> None:
    place = made(tmp_path)
    rows = tmp_path / "rows.parquet"
    with serving(place.home) as server:
        assert source(server) == "precomputed"
        precompute("risk", rows, key="customer_id", ttl_seconds=0.5, home=place.home)
        time.sleep(0.6)
        assert source(server) == "404 answer_not_found"
        assert source(server, features=place) == "live"
        precompute("risk", rows, key="customer_id", home=place.home)
        assert source(server) == source(server, features=place) == "precomputed"
        deploy(place.home, seed=9)
        until(lambda: source(server) != "precomputed")
        assert source(server) == "404 answer_not_found"
        assert source(server, features=place) == "live"
        precompute("risk", rows, key="customer_id", home=place.home)
        assert source(server) == source(server, features=place) == "precomputed"
        # the same inputs, and outputs that mean something else
        data = rows_of(FIELDS).assign(y=0.5)
        fairway.deploy(
            LinearRegression().fit(data[FIELDS], data.y), data, target="y", name="risk", home=place.home
        )
        missed = 'fairway_answers_missed_total{model="risk",reason="contract"}'
        until(lambda: source(server) == "404 answer_not_found")
        assert server.ask("GET", "/metrics")[2].decode().count(missed) == 1
        total = 'fairway_answers_total{model="risk",source="%s"}'
        text = server.ask("GET", "/metrics")[2].decode()
        assert all(total % name in text for name in ("precomputed", "live", "nobody"))
        assert 'fairway_answers_missed_total{model="risk",reason="digest"}' in text
        assert 'fairway_answers_missed_total{model="risk",reason="expired"}' in text
        assert "fairway_answers_age_seconds_bucket" in text
        assert server.metric("fairway_answers_store_up") == 1.0


def test_stale_and_default_answers_say_so(made: Make, tmp_path: Path) -> None:
    place = made(
        tmp_path,
        'hybrid_missing = "default"',
        "hybrid_stale_seconds = 1.5",
        "hybrid_default = { label = 0, probabilities = [0.5, 0.5] }",
    )
    precompute("risk", tmp_path / "rows.parquet", key="customer_id", ttl_seconds=0.01, home=place.home)
    done = time.monotonic()
    with serving(place.home) as server:
        if time.monotonic() - done < 1.0:
            assert source(server) in ("stale", "default")
        until(lambda: source(server) == "default", 10)
        status, headers, body = server.post({"parameters": {"customer_id": ["nobody", "c1"]}}, INFER)
        assert (status, told(headers)) == (200, ("default", 0))
        assert output(body, "probabilities").tolist() == [[0.5, 0.5], [0.5, 0.5]]
        precompute("risk", tmp_path / "rows.parquet", key="customer_id", ttl_seconds=0.01, home=place.home)
        time.sleep(0.05)
        assert source(server) == "stale"


def test_a_default_that_does_not_fit_the_model_is_said_before_serving(made: Make, tmp_path: Path) -> None:
    place = made(tmp_path)
    settings(place.home, 'hybrid_missing = "default"', "hybrid_default = { label = 0 }")
    with pytest.raises(AssertionError, match="probabilities is missing"), serving(place.home):
        pass


# -- stores that are away


def test_a_damaged_store_is_as_good_as_none(made: Make, tmp_path: Path) -> None:
    place = made(tmp_path)
    current = place.home / "answers" / "risk" / "current.lmdb"
    with serving(place.home) as server:
        assert source(server) == "precomputed"
        (tmp_path / "torn").write_bytes(b"nothing of the kind" * 1000)
        (tmp_path / "torn").replace(current)
        assert source(server) == "503 answers_unavailable"
        assert source(server, features=place) == "live"
        assert server.metric("fairway_answers_store_up") == 0.0
        current.unlink()
        until(lambda: source(server) == "404 answer_not_found")
        precompute("risk", tmp_path / "rows.parquet", key="customer_id", home=place.home)
        until(lambda: source(server) == "precomputed")
        assert server.metric("fairway_answers_store_up") == 1.0


def test_redis_is_asked_by_many_at_once_goes_away_and_comes_back(made: Make, tmp_path: Path) -> None:
    redis = Redis(tmp_path)
    redis.start()
    more = f'[hybrid]\nstore = "{redis.url}"\nretry_seconds = 0.1'
    place = made(tmp_path / "made", more=more)
    expected = place.expected(*range(200))
    try:
        with serving(place.home) as server:
            client = stub(server)

            def ask(n: int) -> None:
                body = server.post({"parameters": {"customer_id": f"c{n}"}}, INFER)[2]
                np.testing.assert_array_equal(output(body, "probabilities")[0], expected[n])
                found = client.infer("risk", [], parameters={"customer_id": f"c{n}"})
                np.testing.assert_array_equal(found.as_numpy("probabilities")[0], expected[n])
                headers = server.post({"inputs": place.tensors(n), "customer_id": "c1"}, INFER)[1]
                assert told(headers)[0] == ("precomputed" if n == 1 else "live")

            with ThreadPoolExecutor(16) as pool:
                list(pool.map(ask, range(200)))
            status, headers, _ = server.post({"customer_id": "nobody"}, INFER)
            assert status == 404
            status, headers, _ = server.post(
                {"inputs": place.tensors(1), "customer_id": "c1"}, INFER, x_request_timeout_ms="20000"
            )
            assert (status, told(headers)[0]) == (200, "precomputed")
            redis.stop()
            assert source(server) == "503 answers_unavailable"
            assert source(server, features=place) == "live"
            assert server.post({"inputs": place.tensors(1)}, INFER)[0] == 200
            redis.start()
            until(lambda: source(server) == "precomputed")
            client.close()
    finally:
        redis.stop()


# -- overload

SLOW = """
import os
import time


def predict(frame):
    time.sleep(float(os.environ.get("RISK_SECONDS", "0")))
    return frame["a"].to_numpy()
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """`risk` as a model that takes 0.3 s a call in a server, of which one may wait."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(SLOW)
    home, rows = folder / "home", people(20)
    fairway.deploy(f"{folder / 'slow.py'}:predict", rows[FIELDS], name="risk", home=home)
    limits = 'queue = 1\nthreads = 1\nbatching = "off"'
    settings(home, 'hybrid_prefer = "live"', 'hybrid_overload = "stale"', limits)
    rows.to_parquet(folder / "rows.parquet", index=False)
    precompute("risk", folder / "rows.parquet", key="customer_id", home=home)
    return Place(home, rows)


def test_an_overloaded_model_is_answered_for_and_comes_back_by_itself(slow: Place) -> None:
    with serving(slow.home, environ={"RISK_SECONDS": "0.3"}) as server:

        def ask(n: int) -> str:
            return source(server, features=slow, row=n % 20)

        with ThreadPoolExecutor(12) as pool:
            sources = list(pool.map(ask, range(24)))
        assert set(sources) == {"live", "precomputed"}
        assert server.metric("fairway_answers_overload_total") == sources.count("precomputed")
        until(lambda: "risk is overloaded: requests are answered from the store" in server.errors.read_text())
        until(lambda: ask(1) == "live")
        # who has no stored answer is refused as before
        unknown = {"inputs": slow.tensors(1), "parameters": {"customer_id": "nobody"}}
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: server.post(unknown, INFER), range(12)))
        assert {status for status, _, _ in answers} == {200, 503}
        refused = next(found for status, _, found in answers if status == 503)
        assert refused["code"] == "overloaded"


def test_an_overloaded_model_is_answered_for_over_grpc(slow: Place) -> None:
    with serving(slow.home, environ={"RISK_SECONDS": "0.3"}) as server:
        clients = [stub(server) for _ in range(6)]

        def ask(n: int) -> str:
            inputs = grpc_inputs(slow, n)
            found = clients[n % 6].infer("risk", inputs, parameters={"customer_id": f"c{n}"})
            return str(found.get_response().parameters["fairway_source"].string_param)

        with ThreadPoolExecutor(12) as pool:
            sources = list(pool.map(ask, range(20)))
        assert set(sources) == {"live", "precomputed"}
        for client in clients:
            client.close()


# -- the log


def test_the_log_says_who_answered(made: Make, tmp_path: Path) -> None:
    place = made(tmp_path)
    with serving(place.home) as server:
        server.post({"parameters": {"customer_id": "c7"}}, INFER, x_request_id="keyed")
        server.post({"inputs": place.tensors(7), "customer_id": "c7"}, INFER, x_request_id="both")
        server.post({"inputs": place.tensors(7)}, INFER, x_request_id="live")
        until(lambda: len(log_of(place.home, "risk")) == 3)
        log = log_of(place.home, "risk").set_index("request_id")
        assert log["source"].to_dict() == {"keyed": "precomputed", "both": "precomputed", "live": "live"}
        assert np.isnan(log["input.a"]["keyed"])
        assert log["input.a"]["both"] == log["input.a"]["live"] == place.rows.a[7]
        assert len({tuple(values) for values in log["output.probabilities"]}) == 1


def test_the_library_answers_by_key_too(place: Place) -> None:
    assert open_answers("", "risk", home=place.home, timeout_seconds=1.0).current() is not None
    with fairway.load("risk", home=place.home, record=False) as model:
        found = model.answer(place.rows.loc[[7], FIELDS], key="c7")
        assert found.source == "precomputed"
        assert model.answer(place.rows.loc[[7], FIELDS], key="c8").source == "live"
        assert model.answer(place.rows.loc[[7, 8], FIELDS]).source == "live"


def test_tensorflow_servings_clients_send_the_key_as_an_input(server: Server, place: Place) -> None:
    def predict(**inputs: Any) -> tuple[Any, dict[str, str]]:
        asked = message("tensorflow.serving.PredictRequest")()
        asked.model_spec.name = "risk"
        for name, value in inputs.items():
            tensor = asked.inputs[name]
            tensor.tensor_shape.dim.add(size=1)
            tensor.dtype = 7 if isinstance(value, str) else 2
            if isinstance(value, str):
                tensor.string_val.append(value.encode())
            else:
                tensor.double_val.append(value)
        with grpc.insecure_channel(server.grpc) as channel:
            ask = channel.unary_unary(
                "/tensorflow.serving.PredictionService/Predict",
                request_serializer=lambda sent: sent.SerializeToString(),
                response_deserializer=message("tensorflow.serving.PredictResponse").FromString,
            )
            answer, done = ask.with_call(asked, timeout=20)
            return answer.outputs["probabilities"], dict(done.trailing_metadata())

    stored, trailers = predict(customer_id="c7")
    assert trailers["fairway-source"] == "precomputed"
    same, trailers = predict(customer_id="c7", **place.features(7))
    assert trailers["fairway-source"] == "precomputed"
    live, trailers = predict(customer_id="c8", **place.features(7))
    assert (trailers["fairway-source"], trailers["fairway-age"]) == ("live", "0")
    assert stored == same == live


def test_tensorflow_servings_classify_may_be_nothing_but_a_key(server: Server, place: Place) -> None:
    def classify(
        *examples: dict[str, str | float], metadata: tuple[tuple[str, str], ...] = ()
    ) -> tuple[Any, str]:
        asked = message("tensorflow.serving.ClassificationRequest")()
        asked.model_spec.name = "risk"
        for example in examples:
            features = asked.input.example_list.examples.add().features.feature
            for name, value in example.items():
                if isinstance(value, str):
                    features[name].bytes_list.value.append(value.encode())
                else:
                    features[name].float_list.value.append(value)
        with grpc.insecure_channel(server.grpc) as channel:
            ask = channel.unary_unary(
                "/tensorflow.serving.PredictionService/Classify",
                request_serializer=lambda sent: sent.SerializeToString(),
                response_deserializer=message("tensorflow.serving.ClassificationResponse").FromString,
            )
            answer, done = ask.with_call(asked, timeout=20, metadata=metadata)
            found = [[one.score for one in each.classes] for each in answer.result.classifications]
            return found, dict(done.trailing_metadata())["fairway-source"]

    expected = [[np.float32(value) for value in row] for row in place.expected(7, 8).tolist()]
    header = (("x-fairway-key", "c7"),)
    assert classify(metadata=header) == (expected[:1], "precomputed")
    assert classify({"customer_id": "c7"}) == (expected[:1], "precomputed")
    assert classify({"customer_id": "c7"}, {"customer_id": "c8"}) == (expected, "precomputed")
    assert classify({"customer_id": "c7", "a": 9.0, "b": 1.0, "c": 1.0})[1] == "live"
    assert classify({"a": 9.0, "b": 1.0, "c": 1.0}, metadata=header)[1] == "live"
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        classify(metadata=(("x-fairway-key", "nobody"),))
    with pytest.raises(grpc.RpcError, match="Input is empty"):
        classify()


def test_models_that_are_loaded_when_asked_for_and_several_workers(made: Make, tmp_path: Path) -> None:
    place = made(tmp_path, more='[serving]\nload = "lazy"\nworkers = 2')
    with serving(place.home) as server:
        assert source(server) == "precomputed"
        assert {source(server, row=n) for n in range(20)} == {"precomputed"}
        assert source(server, features=place) == "precomputed"
        assert server.metric("fairway_answers_total") == 22.0
