"""A key for one model learns nothing of the others, on the paths of any protocol."""

import json
from datetime import UTC, datetime

import pytest

from fairway.security.access import Access
from fairway.security.keys import new_key
from tests.planes import plane
from tests.unit.serving.conftest import Port, Serve
from tests.unit.serving.models import classifier, regressor

ROWS = b'{"instances": [1.0]}'


@pytest.fixture
def port(serve: Serve) -> Port:
    port = serve(plane(regressor("mine"), classifier("other")))
    key, self_secret = new_key("app", scopes=("infer",), models=("mine",), now=datetime.now(UTC))
    port.app.access = Access([key])
    port.secret = self_secret  # type: ignore[attr-defined]
    return port


def ask(port: Port, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    headers = {"x-api-key": port.secret, "content-type": "application/json", **headers}  # type: ignore[attr-defined]
    status, _, content = port.ask(method, path, body, **headers)
    return status, content.decode()


def test_lists_hold_what_the_key_reaches(port: Port) -> None:
    assert json.loads(ask(port, "GET", "/v1/models")[1]) == {"models": ["mine"]}
    assert [model["modelName"] for model in json.loads(ask(port, "GET", "/models")[1])["models"]] == ["mine"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/{}:predict"),
        ("POST", "/models/{}/invoke"),
        ("POST", "/predictions/{}"),
        ("GET", "/v1/models/{}"),
        ("GET", "/v1/models/{}/metadata"),
        ("GET", "/models/{}"),
    ],
)
def test_each_path_is_open_for_its_model_alone(port: Port, method: str, path: str) -> None:
    body = ROWS if method == "POST" else None
    assert ask(port, method, path.format("mine"), body)[0] == 200
    assert ask(port, method, path.format("other"), body)[0] == 403
    status, _, _ = port.ask(method, path.format("mine"), body)
    assert status == 401


def test_paths_that_name_no_model(port: Port) -> None:
    assert ask(port, "POST", "/invocations", ROWS, **{"x-fairway-model": "mine"}) == (
        200,
        '{"predictions":[3.5]}',
    )
    assert ask(port, "POST", "/invocations", ROWS, **{"x-fairway-model": "other"})[0] == 403
    status, told = ask(port, "POST", "/invocations", ROWS)
    assert (status, "other" in told) == (404, False)
    for path in ("/ping", "/health", "/"):  # a platform asks them without a key
        assert port.ask("GET", path)[0] == 200
