"""The routes that Vertex AI chooses."""

import pytest

from fairway.core.errors import SettingsError
from fairway.core.settings import Settings, VertexSettings
from fairway.serving.entrances import ENTRIES, entries_for
from tests.planes import plane
from tests.unit.serving.codecs import Asked
from tests.unit.serving.models import regressor

ROUTE = "/v1/endpoints/7/deployedModels/9"


def test_its_routes_answer_health_and_predictions() -> None:
    vertex = VertexSettings(health_route=ROUTE, predict_route=f"{ROUTE}:predict", deployed_model_id="9")
    entries = entries_for(Settings(vertex=vertex))
    ask = Asked(plane(regressor()), entries)
    body = {"instances": [[1.0], [2.0]], "parameters": {}}
    assert ask.json(f"{ROUTE}:predict", body) == (200, {"predictions": [3.5, 4.0], "deployedModelId": "9"})
    health = ask.router.find("GET", ROUTE.encode()).entry
    assert (health.scope, health.handler is not None) == ("open", True)


def test_routes_that_are_answered_already_stay_as_they_are() -> None:
    vertex = VertexSettings(health_route="/ping", predict_route="/v1/models/m:predict")
    assert entries_for(Settings(vertex=vertex)) == ENTRIES
    assert entries_for(Settings()) == ENTRIES


@pytest.mark.parametrize("route", ["predict", "/a/{b}", "/a?b"])
def test_what_is_no_path(route: str) -> None:
    with pytest.raises(SettingsError, match="AIP_PREDICT_ROUTE"):
        entries_for(Settings(vertex=VertexSettings(predict_route=route)))
