"""V2's extensions on a real port: configuration, statistics, the repository, and what Triton has and this has not."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fairway.core.errors import ModelNotFound
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from fairway.inference.repository import Repository, State, VersionState
from fairway.security.access import Access
from fairway.security.keys import new_key
from fairway.stores.counters import Counters
from tests.planes import live_version, plane, split
from tests.unit.serving.conftest import Port, Serve

ROWS = {"instances": [[1, 2], [3, 4]]}


@pytest.fixture
def port(serve: Serve) -> Port:
    counters = Counters()
    models = (
        LiveModel(everything_to("m", 1), {1: live_version(1, counters=counters)}, {"champion": 1}),
        split("two", 0.3, 0.7, counters=counters),
    )
    return serve(plane(*models, counters=counters))


def get(port: Port, path: str) -> Any:
    status, _, body = port.ask("GET", path)
    assert status == 200, body
    return json.loads(body)


@pytest.mark.parametrize("path", ["m", "m/versions/1", "m/versions/champion"])
def test_configuration(port: Port, path: str) -> None:
    told = get(port, f"/v2/models/{path}/config")
    assert (told["name"], told["backend"], told["max_batch_size"]) == ("m", "onnxruntime", 100_000)
    assert [(given["name"], given["data_type"], given["dims"]) for given in told["input"]] == [
        ("a", "TYPE_FP64", [1]),
        ("b", "TYPE_FP64", [1]),
    ]
    assert [(given["name"], given["dims"]) for given in told["output"]] == [("sum", []), ("both", [2])]


def test_statistics_count_what_was_answered(port: Port) -> None:
    for _ in range(3):
        assert port.infer(ROWS)[0] == 200
    assert port.infer({"instances": [["x", 1]]})[0] == 400
    (told,) = get(port, "/v2/models/m/stats")["model_stats"]
    assert (told["name"], told["version"], told["inference_count"]) == ("m", "1", 6)
    assert told["execution_count"] == 3
    spent = told["inference_stats"]
    assert spent["success"]["count"] == 3
    assert spent["fail"]["count"] == 1
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert sum(spent[stage]["ns"] for stage in stages) == pytest.approx(spent["success"]["ns"], rel=0.01)
    assert spent["compute_infer"]["count"] == 3
    every = get(port, "/v2/models/stats")["model_stats"]
    assert [(told["name"], told["version"]) for told in every] == [("m", "1"), ("two", "1"), ("two", "2")]
    (told,) = get(port, "/v2/models/two/versions/2/stats")["model_stats"]
    assert (told["version"], told["inference_count"]) == ("2", 0)


@pytest.mark.parametrize("path", ["none/config", "none/stats", "m/versions/9/config", "m/versions/x/stats"])
def test_what_is_not_there(port: Port, path: str) -> None:
    assert port.ask("GET", f"/v2/models/{path}")[0] == 404


class Shelf(Repository):
    """A repository in memory."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def index(self) -> list[VersionState]:
        return [
            VersionState(model="m", version=1, state=State.ready),
            VersionState(model="m", version=2, state=State.failed, reason="golden row 3"),
            VersionState(model="n", version=1, state=State.unloaded),
            VersionState(model="n", version=2, state=State.loading),
        ]

    def load(self, model: str, *, source: str = "") -> None:
        if model == "none":
            raise ModelNotFound("There is no model 'none'.")
        self.calls.append(("load", model))

    def unload(self, model: str) -> None:
        self.calls.append(("unload", model))


@pytest.fixture
def shelf(port: Port) -> Shelf:
    port.app.repository = shelf = Shelf()
    port.app.access = type(port.app.access)(open_admin=True)
    return shelf


def ask(port: Port, path: str, body: bytes = b"") -> tuple[int, Any]:
    status, _, content = port.ask("POST", f"/v2/{path}", body)
    return status, json.loads(content)


def test_the_repository(port: Port, shelf: Shelf) -> None:
    status, told = ask(port, "repository/index")
    assert status == 200
    assert told == [
        {"name": "m", "version": "1", "state": "READY", "reason": ""},
        {"name": "m", "version": "2", "state": "UNAVAILABLE", "reason": "golden row 3"},
        {"name": "n", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "n", "version": "2", "state": "LOADING", "reason": ""},
    ]
    assert [state["version"] for state in ask(port, "repository/index", b'{"ready":true}')[1]] == ["1"]
    assert ask(port, "repository/models/m/load") == (200, {"name": "m", "load": True})
    assert ask(port, "repository/models/a%20b/unload", b'{"parameters":{"unload_dependents":true}}')[0] == 200
    assert shelf.calls == [("load", "m"), ("unload", "a b")]
    assert ask(port, "repository/models/none/load")[0] == 404
    status, told = ask(port, "repository/models/m/load", b'{"parameters":{"config":"{}"}}')
    assert (status, told["code"]) == (501, "not_supported")
    for bad in (b"{", b'{"parameters":3}', b"\xff", b"[" * 5000):
        assert ask(port, "repository/models/m/load", bad)[0] == 400


def test_without_a_repository_nothing_is_loaded(port: Port) -> None:
    port.app.access = type(port.app.access)(open_admin=True)
    assert ask(port, "repository/models/m/load")[0] == 501
    assert ask(port, "repository/models/m/unload")[0] == 501
    assert {state["state"] for state in ask(port, "repository/index")[1]} == {"READY"}


def test_the_repository_is_the_admins(port: Port) -> None:
    for path in ("repository/index", "repository/models/m/load", "trace/setting", "logging"):
        assert ask(port, path)[0] == 403


def test_what_triton_has_and_this_has_not(port: Port, shelf: Shelf) -> None:
    assert ask(port, "trace/setting", b"{}")[0] == 503
    assert "does not support tracing" in ask(port, "models/m/trace/setting", b"{}")[1]["error"]
    assert "does not support dynamic logging" in ask(port, "logging", b"{}")[1]["error"]
    for kind in ("system", "cuda"):
        assert get(port, f"/v2/{kind}sharedmemory/status") == []
        assert get(port, f"/v2/{kind}sharedmemory/region/r/status") == []
        assert port.ask("POST", f"/v2/{kind}sharedmemory/unregister")[0] == 200
        assert port.ask("POST", f"/v2/{kind}sharedmemory/region/r/unregister")[0] == 200
        status, told = ask(port, f"{kind}sharedmemory/region/r/register", b"{}")
        assert status == 400
        assert "failed to register" in told["error"]


def test_a_key_for_some_models_sees_those_alone(port: Port) -> None:
    made, secret = new_key("mine", now=datetime.now(UTC), scopes=("infer", "metrics"), models=("two",))
    port.app.access = Access([made])
    status, _, body = port.ask("GET", "/v2/models/stats", x_api_key=secret)
    assert (status, {told["name"] for told in json.loads(body)["model_stats"]}) == (200, {"two"})
    status, _, body = port.ask("GET", "/openapi.json", x_api_key=secret)
    assert (status, [tag["name"] for tag in json.loads(body)["tags"]]) == (200, ["two"])
    assert port.ask("GET", "/v2/models/m/stats", x_api_key=secret)[0] == 403
    assert port.ask("GET", "/v2/models/m/openapi.json")[0] == 401
    assert port.ask("GET", "/v2/models/m/docs")[0] == 200
