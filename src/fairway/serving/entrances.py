"""Every entrance of the data port, in the order in which paths are looked up."""

from __future__ import annotations

from fairway.serving import (
    invocations,
    mlflow,
    open_inference,
    operations,
    tensorflow_models,
    tensorflow_serving,
)
from fairway.serving.entrance import Entry

ENTRIES: tuple[Entry, ...] = (
    *open_inference.ENTRIES,
    *tensorflow_serving.ENTRIES,
    *tensorflow_models.ENTRIES,
    *invocations.ENTRIES,
    *mlflow.ENTRIES,
    *operations.ENTRIES,
)
