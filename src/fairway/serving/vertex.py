"""Vertex AI's contract of custom containers: a health route and a predict route of its choosing.

The body `{"instances", "parameters"}` and the answer `{"predictions"}` are among those of `/invocations`.

Source: cloud.google.com, vertex-ai/docs/predictions/custom-container-requirements.
"""

from __future__ import annotations

from fairway.core.errors import FairwayError, SettingsError
from fairway.core.settings import VertexSettings
from fairway.serving.entrance import Entry, Router
from fairway.serving.invocations import InvocationsCodec
from fairway.serving.sagemaker import ping


def entries(settings: VertexSettings, others: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The routes that no other entrance answers already. Raises SettingsError for what is no path."""
    beside = {"deployedModelId": settings.deployed_model_id} if settings.deployed_model_id else {}
    wanted = (
        ("GET", settings.health_route, Entry("GET", settings.health_route, "open", handler=ping)),
        (
            "POST",
            settings.predict_route,
            Entry("POST", settings.predict_route, "infer", codec=InvocationsCodec(beside)),
        ),
    )
    router = Router(others)
    found = []
    for method, route, entry in wanted:
        if not route:
            continue
        if not route.startswith("/") or "{" in route or "?" in route:
            raise SettingsError(
                f"the route {route!r} of Vertex AI (AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE) is no path."
            )
        if not _answered(router, method, route):
            found.append(entry)
    return tuple(found)


def _answered(router: Router, method: str, route: str) -> bool:
    try:
        router.find(method, route.encode())
    except FairwayError:
        return False
    return True
