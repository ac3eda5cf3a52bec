"""SageMaker's contract as documented, on a repository of this test's own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fairway.core.errors import AlreadyExists, ModelNotFound, OutOfMemory
from fairway.core.settings import LimitSettings, SagemakerSettings, ServingSettings, Settings
from fairway.inference.repository import State, VersionState
from fairway.security.access import Access
from fairway.serving.sagemaker import MOST_MODELS, _execution_parameters
from tests.planes import plane
from tests.unit.serving.conftest import Port, Serve
from tests.unit.serving.models import regressor


class Loaded:
    """A repository in memory; `full` has no room for more."""

    def __init__(self) -> None:
        self.models: dict[str, str] = {}
        self.full = False

    def index(self) -> list[VersionState]:
        return [
            VersionState(model=name, version=version, state=state)
            for name in sorted(self.models)
            for version, state in ((1, State.unloaded), (2, State.ready))
        ]

    def load(self, model: str, *, source: str = "") -> None:
        if model in self.models:
            raise AlreadyExists(f"model {model!r} is loaded already.")
        if self.full:
            raise OutOfMemory("there is no room.")
        self.models[model] = source

    def unload(self, model: str) -> None:
        if model not in self.models:
            raise ModelNotFound(f"no model {model!r} is loaded here.")
        del self.models[model]


@pytest.fixture
def repository() -> Loaded:
    return Loaded()


@pytest.fixture
def port(serve: Serve, repository: Loaded, tmp_path: Path) -> Port:
    port = serve(plane(regressor("model")))
    port.app.settings = Settings(home=str(tmp_path / "home"))
    port.app.access = Access(open_admin=True)
    port.app.repository = repository
    return port


def bundle(folder: Path) -> Path:
    """What looks like a bundle to who only looks for one."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def load(port: Port, name: str, url: Path) -> tuple[int, Any]:
    body = json.dumps({"model_name": name, "url": str(url)}).encode()
    status, _, content = port.ask("POST", "/models", body, content_type="application/json")
    return status, json.loads(content)


def test_ping_is_200_with_nothing_in_it(port: Port) -> None:
    status, headers, body = port.ask("GET", "/ping")
    assert (status, body, headers["content-length"]) == (200, b"", "0")
    port.app.ready = False
    assert port.ask("GET", "/ping")[0] == 503


def test_attributes_pass_through_and_unknown_headers_do_not_matter(port: Port) -> None:
    headers = {"x-amzn-sagemaker-custom-attributes": "c000b4f9-df62-4c85-a0bf-7c525f9104a4", "x-more": "1"}
    status, told, body = port.ask(
        "POST", "/invocations", b'{"instances": [1.0]}', content_type="application/json", **headers
    )
    assert (status, json.loads(body)) == (200, {"predictions": [3.5]})
    assert told["x-amzn-sagemaker-custom-attributes"] == headers["x-amzn-sagemaker-custom-attributes"]


def test_a_model_is_loaded_listed_invoked_and_let_go(port: Port, repository: Loaded, tmp_path: Path) -> None:
    url = bundle(tmp_path / "models" / "a" / "model")
    assert load(port, "a", url) == (200, {"modelName": "a", "modelUrl": str(url)})
    assert repository.models == {"a": str(url)}
    assert load(port, "a", url)[0] == 409
    listed = {"models": [{"modelName": "a", "modelUrl": str(url)}]}
    assert json.loads(port.ask("GET", "/models")[2]) == listed
    assert json.loads(port.ask("GET", "/models/a")[2]) == listed["models"][0]
    assert port.ask("DELETE", "/models/a")[0] == 200
    assert port.ask("DELETE", "/models/a")[0] == 404
    assert port.ask("GET", "/models/a")[0] == 404
    repository.full = True
    assert load(port, "b", url)[0] == 507


def test_invoke_by_name(port: Port) -> None:
    headers = {"x-amzn-sagemaker-target-model": "m.tar.gz", "content-type": "text/csv"}
    status, _, body = port.ask("POST", "/models/model/invoke", b"1.0\n2.0\n", **headers)
    assert (status, json.loads(body)) == (200, {"predictions": [3.5, 4.0]})
    assert port.ask("POST", "/models/other/invoke", b"1.0\n", **headers)[0] == 404


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"model_name": "a"}', b'{"model_name": 3, "url": "/x"}', b"\xff"]
)
def test_what_is_no_request_to_load(port: Port, body: bytes) -> None:
    assert port.ask("POST", "/models", body)[0] == 400


def test_a_folder_without_a_bundle_says_how_to_make_one(port: Port, tmp_path: Path) -> None:
    assert load(port, "a", tmp_path / "nowhere")[0] == 400
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"x")
    status, told = load(port, "a", folder)
    assert status == 400
    assert "model.joblib" in told["error"]
    assert "fairway package" in told["error"]


def test_a_bundle_may_lie_one_folder_below(port: Port, repository: Loaded, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "model" / "payments").parent
    assert load(port, "opaque/../name", folder)[0] == 200
    assert repository.models == {"opaque/../name": str(folder / "payments")}
    assert json.loads(port.ask("GET", "/models")[2])["models"][0]["modelUrl"] == str(folder)
    bundle(folder / "second")
    status, told = load(port, "b", folder)
    assert (status, "several bundles: payments, second" in told["error"]) == (400, True)
    shutil.rmtree(folder)


def test_a_long_list_comes_in_pages(port: Port, repository: Loaded) -> None:
    names = [f"model-{i:03d}" for i in range(MOST_MODELS + 5)]
    repository.models = dict.fromkeys(names, "/x")
    first = json.loads(port.ask("GET", "/models")[2])
    second = json.loads(port.ask("GET", f"/models?next_page_token={first['nextPageToken']}")[2])
    assert [model["modelName"] for model in first["models"] + second["models"]] == names
    assert "nextPageToken" not in second


def test_without_a_repository_it_is_not_supported(port: Port, tmp_path: Path) -> None:
    port.app.repository = None
    assert load(port, "a", tmp_path)[0] == 501
    assert port.ask("DELETE", "/models/model")[0] == 501
    assert json.loads(port.ask("GET", "/models")[2]) == {"models": [{"modelName": "model", "modelUrl": ""}]}


def test_loading_is_for_administrators(serve: Serve, tmp_path: Path) -> None:
    port = serve(plane())
    port.app.repository = Loaded()
    assert load(port, "a", tmp_path)[0] == 403
    assert port.ask("DELETE", "/models/m")[0] == 403


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), (1, "MULTI_RECORD", 64)),
        (
            Settings(serving=ServingSettings(workers=3), limits=LimitSettings(body_bytes=2**30)),
            (3, "MULTI_RECORD", 100),
        ),
        (
            Settings(
                sagemaker=SagemakerSettings(
                    max_concurrent_transforms=8, batch_strategy="SINGLE_RECORD", max_payload_mb=6
                )
            ),
            (8, "SINGLE_RECORD", 6),
        ),
    ],
)
def test_execution_parameters(settings: Settings, expected: tuple[int, str, int]) -> None:
    assert tuple(_execution_parameters(settings).values()) == expected


def test_execution_parameters_are_told(port: Port) -> None:
    assert json.loads(port.ask("GET", "/execution-parameters")[2]) == {
        "MaxConcurrentTransforms": 1,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 64,
    }
