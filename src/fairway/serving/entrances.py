"""Every entrance of the data port, in the order in which paths are looked up."""

from __future__ import annotations

from fairway.core.settings import Settings
from fairway.serving import (
    feedback,
    invocations,
    mlflow,
    open_inference,
    openapi_pages,
    operations,
    sagemaker,
    tensorflow_models,
    tensorflow_serving,
    torchserve,
    vertex,
)
from fairway.serving.entrance import Entry

ENTRIES: tuple[Entry, ...] = (
    *open_inference.ENTRIES,
    *tensorflow_serving.ENTRIES,
    *tensorflow_models.ENTRIES,
    *invocations.ENTRIES,
    *mlflow.ENTRIES,
    *sagemaker.ENTRIES,
    *torchserve.ENTRIES,
    *openapi_pages.ENTRIES,
    *feedback.ENTRIES,
    *operations.ENTRIES,
)


def entries_for(settings: Settings) -> tuple[Entry, ...]:
    """Those, and the paths that settings add."""
    return (*ENTRIES, *vertex.entries(settings.vertex, ENTRIES))
