"""The paths of MLflow's scoring server besides `/invocations`, which is in `invocations.py`, and SageMaker's `/ping`.

Source: mlflow/mlflow, mlflow/pyfunc/scoring_server/__init__.py.
"""

from __future__ import annotations

from fairway.core.release import VERSION
from fairway.serving.entrance import JSON, Call, Entry, Reply, Service

PROTOCOL_VERSION = "3.17.2"
"""The MLflow whose scoring protocol this is, compared with it answer by answer."""


async def health(service: Service, call: Call) -> Reply:
    return Reply(200 if service.ready else 503, b"\n", [(b"content-type", JSON)])


async def version(service: Service, call: Call) -> Reply:
    """A version that compares as MLflow's own and says whose it is (PEP 440's local part)."""
    return Reply(200, f"{PROTOCOL_VERSION}+fairway.{VERSION}".encode(), [(b"content-type", JSON)])


ENTRIES = (
    Entry("GET", "/health", "open", handler=health),
    Entry("GET", "/version", "infer", handler=version),
)
