"""NVIDIA's own HTTP client against `fairway serve`: every call it has."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.http.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

import fairway
from tests.e2e.servers import Server, numeric_data, serving, visits

NUMBERS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as connected:
        yield connected


def matrix(rows: int, *, binary: bool = True) -> tuple[triton.InferInput, np.ndarray]:
    values = numeric_data()[NUMBERS].to_numpy()[:rows]
    given = triton.InferInput("X", list(values.shape), "FP64")
    given.set_data_from_numpy(values, binary_data=binary)
    return given, values


def expected(home: Path, values: np.ndarray) -> np.ndarray:
    with fairway.load("line", home=home, record=False) as model:
        return model.predict(values)["prediction"]


@pytest.mark.e2e
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("rows", [1, 200])
def test_a_matrix_in_every_mixture_of_binary_and_json(
    client: triton.InferenceServerClient, home: Path, binary_in: bool, binary_out: bool | None, rows: int
) -> None:
    given, values = matrix(rows, binary=binary_in)
    outputs = (
        None if binary_out is None else [triton.InferRequestedOutput("prediction", binary_data=binary_out)]
    )
    answer = client.infer("line", [given], outputs=outputs, request_id="mine")
    told = answer.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("mine", "line", "1")
    assert answer.as_numpy("prediction").tobytes() == expected(home, values).tobytes()
    assert ("parameters" in answer.get_output("prediction")) is (binary_out is not False)


@pytest.mark.e2e
@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_coding", [None, "gzip", "deflate"])
def test_compressed_both_ways(
    client: triton.InferenceServerClient, home: Path, request_coding: str | None, answer_coding: str | None
) -> None:
    given, values = matrix(300)
    answer = client.infer(
        "line",
        [given],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=answer_coding,
    )
    assert answer.as_numpy("prediction").tobytes() == expected(home, values).tobytes()


@pytest.mark.e2e
def test_mixed_columns_with_text_and_nulls(client: triton.InferenceServerClient, home: Path) -> None:
    frame = visits(20, seed=11)
    frame = frame[frame["country"].notna()]
    columns = {
        "amount": frame["amount"].to_numpy(),
        "items": frame["items"].astype("Float64").to_numpy(dtype=float, na_value=np.nan),
        "member": frame["member"].astype("Float64").to_numpy(dtype=float, na_value=np.nan),
        "country": frame["country"].to_numpy(dtype=object),
        "at": np.array([f"{moment.isoformat()}Z" for moment in frame["at"]], dtype=object),
    }
    inputs = []
    for name, values in columns.items():
        given = triton.InferInput(name, [len(values)], "BYTES" if values.dtype == object else "FP64")
        given.set_data_from_numpy(values)
        inputs.append(given)
    answer = client.infer("shop", inputs, model_version="2")
    with fairway.load("shop:2", home=home, record=False) as model:
        wanted = model.predict(frame.drop(columns="bought"))
    np.testing.assert_array_equal(answer.as_numpy("label"), wanted["label"])
    assert answer.as_numpy("probabilities").tobytes() == wanted["probabilities"].tobytes()
    classes = client.infer(
        "shop", inputs, outputs=[triton.InferRequestedOutput("probabilities", class_count=1)]
    ).as_numpy("probabilities")
    best = wanted["probabilities"].argmax(axis=1)
    assert [int(text.decode().split(":")[1]) for text in classes[:, 0]] == best.tolist()


@pytest.mark.e2e
def test_asynchronous_calls(client: triton.InferenceServerClient, home: Path) -> None:
    given, values = matrix(3)
    pending = [client.async_infer("line", [given], request_id=str(i)) for i in range(8)]
    answers = [call.get_result() for call in pending]
    assert [answer.get_response()["id"] for answer in answers] == [str(i) for i in range(8)]
    assert {answer.as_numpy("prediction").tobytes() for answer in answers} == {
        expected(home, values).tobytes()
    }


@pytest.mark.e2e
def test_the_asyncio_client(server: Server, home: Path) -> None:
    import asyncio  # only this test runs a loop

    async def ask() -> np.ndarray:
        async with AsyncClient(server.address) as connected:
            given, _ = matrix(5)
            answer = await connected.infer("line", [given])
            return answer.as_numpy("prediction")

    assert asyncio.run(ask()).tobytes() == expected(home, matrix(5)[1]).tobytes()


@pytest.mark.e2e
def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("line")
    assert client.is_model_ready("shop", "1")
    assert not client.is_model_ready("none")
    told = client.get_server_metadata()
    assert (told["name"], "binary_tensor_data" in told["extensions"]) == ("fairway", True)
    told = client.get_model_metadata("shop")
    assert (told["name"], told["versions"]) == ("shop", ["1", "2"])
    assert {"name": "country", "datatype": "BYTES", "shape": [-1, 1]} in told["inputs"]
    assert client.get_model_metadata("shop", "1")["name"] == "shop"
    assert client.get_model_config("line")["max_batch_size"] == 100_000
    assert client.get_model_config("line", "1")["input"][0] == {
        "name": "a",
        "data_type": "TYPE_FP64",
        "format": "FORMAT_NONE",
        "dims": [1],
        "optional": False,
    }


@pytest.mark.e2e
def test_statistics(client: triton.InferenceServerClient) -> None:
    def counted() -> dict[str, int]:
        (told,) = client.get_inference_statistics("line")["model_stats"]
        return {
            "rows": told["inference_count"],
            "requests": told["inference_stats"]["success"]["count"],
            "ns": told["inference_stats"]["compute_infer"]["ns"],
        }

    before = counted()
    client.infer("line", [matrix(7)[0]])
    after = counted()
    assert (after["rows"] - before["rows"], after["requests"] - before["requests"]) == (7, 1)
    assert after["ns"] > before["ns"]
    assert {told["name"] for told in client.get_inference_statistics()["model_stats"]} >= {"line", "shop"}
    assert client.get_inference_statistics("line", "1")["model_stats"][0]["version"] == "1"


@pytest.mark.e2e
def test_what_is_not_supported_says_so(client: triton.InferenceServerClient) -> None:
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    for call in (
        lambda: client.register_system_shared_memory("r", "/r", 64),
        lambda: client.register_cuda_shared_memory("r", b"handle", 0, 64),
        lambda: client.infer("line", [matrix(1)[0]], sequence_id=3, sequence_start=True),
        client.get_trace_settings,
        client.get_log_settings,
        lambda: client.update_log_settings({"log_verbose_level": 1}),
        client.get_model_repository_index,
        lambda: client.load_model("line"),
        lambda: client.unload_model("line"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            call()
        assert refused.value.status() in ("400", "403", "503")
        assert refused.value.message()


@pytest.mark.e2e
def test_errors_say_what_and_where(client: triton.InferenceServerClient) -> None:
    values = np.array([["x", "y", "z"]], dtype=object)
    given = triton.InferInput("X", [1, 3], "BYTES")
    given.set_data_from_numpy(values)
    for inputs, model, version, status, why in (
        ([given], "line", "", "400", "missing|does not fit|not"),
        ([matrix(1)[0]], "none", "", "404", "no model 'none'"),
        ([matrix(1)[0]], "line", "9", "404", "no version 9"),
    ):
        with pytest.raises(InferenceServerException, match=why) as refused:
            client.infer(model, inputs, model_version=version)
        assert refused.value.status() == status
