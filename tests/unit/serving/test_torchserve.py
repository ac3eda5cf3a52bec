"""TorchServe's inference API."""

import json
from typing import Any

import pytest

from tests.planes import plane
from tests.unit.serving.codecs import Asked
from tests.unit.serving.conftest import Serve
from tests.unit.serving.models import classifier, regressor

PATH = "/predictions/classifier"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([[0.25, 1], [0.5, 2]], ["no", "yes"]),
        ([{"x": 0.25, "n": 1}], ["no"]),
        ({"x": 0.5, "n": 1}, "yes"),
        ({"instances": [[0.25, 1]]}, {"predictions": ["no"]}),
        ({"dataframe_records": [{"x": 0.25, "n": 1}]}, {"predictions": ["no"]}),
    ],
)
def test_the_answer_is_wrapped_as_the_rows_were(body: Any, expected: Any) -> None:
    ask = Asked(plane(classifier()))
    for path in (PATH, f"{PATH}/1", f"{PATH}/champion"):
        assert ask.json(path, body) == (200, expected)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        (PATH, b"{", 400, "BadRequestException"),
        (PATH, {}, 400, "BadRequestException"),
        (PATH, {"other": 1}, 400, "BadRequestException"),
        (PATH, {"x": 1}, 400, "BadRequestException"),
        (PATH, [], 400, "BadRequestException"),
        (PATH, [["a", 1]], 400, "BadRequestException"),
        (f"{PATH}/7", [[1, 1]], 404, "ModelVersionNotFoundException"),
        (f"{PATH}/1.0", [[1, 1]], 404, "ModelVersionNotFoundException"),
        ("/predictions/other", [[1, 1]], 404, "ModelNotFoundException"),
    ],
)
def test_errors_have_its_form(path: str, body: Any, status: int, kind: str) -> None:
    got, told = Asked(plane(classifier())).json(path, body)
    assert (got, told["code"], told["type"]) == (status, status, kind)
    assert told["message"]


def test_files_are_put_as_well_as_posted(serve: Serve) -> None:
    port = serve(plane(regressor()))
    for method in ("POST", "PUT"):
        status, _, body = port.ask(method, "/predictions/regressor", b"[1.0, 2.0]")
        assert (status, json.loads(body)) == (200, [3.5, 4.0])
