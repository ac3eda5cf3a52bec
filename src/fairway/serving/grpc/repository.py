"""Triton's model repository and shared memory calls over gRPC.

What is loaded is changed for the whole server through the `Repository` port; it needs a key with the scope `admin`.
Source: Triton, docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from typing import Any

from fairway.core.errors import NotSupported
from fairway.inference.repository import Repository, State
from fairway.serving.grpc.infer import SERVICE
from fairway.serving.grpc.method import Asking, Method

_STATES = {
    State.loading: "LOADING",
    State.ready: "READY",
    State.unloaded: "UNAVAILABLE",
    State.failed: "UNAVAILABLE",
}


def index(asking: Asking) -> bytes:
    asked = _parse("RepositoryIndexRequest", asking.message)
    found = [
        {
            "name": version.model,
            "version": str(version.version),
            "state": _STATES[version.state],
            "reason": version.reason or ("unloaded" if version.state is State.unloaded else ""),
        }
        for version in repository_of(asking).index()
        if not asked.ready or version.state is State.ready
    ]
    return _made("RepositoryIndexResponse", models=found)


def load(asking: Asking) -> bytes:
    asked = _parse("RepositoryModelLoadRequest", asking.message)
    asking.admit(asked.model_name)
    if "config" in asked.parameters or any(name.startswith("file:") for name in asked.parameters):
        raise NotSupported(
            "A model is loaded as it was registered; its configuration and files cannot be sent along.",
            hint="Register a version with the change, then load it.",
        )
    repository_of(asking).load(asked.model_name)
    return _made("RepositoryModelLoadResponse")


def unload(asking: Asking) -> bytes:
    asked = _parse("RepositoryModelUnloadRequest", asking.message)
    asking.admit(asked.model_name)
    repository_of(asking).unload(asked.model_name)
    return _made("RepositoryModelUnloadResponse")


def repository_of(asking: Asking) -> Repository:
    repository = asking.host.repository
    if repository is None:
        raise NotSupported("This server does not load or unload models while it runs.")
    return repository


def no_regions(asking: Asking) -> bytes:
    """There are none; and taking away one that is not there succeeds, as with Triton: clients do it to begin with."""
    return b""


def shared_memory(asking: Asking) -> bytes:
    raise NotSupported(
        "This server does not use shared memory.",
        hint="Send the values in the message, as raw_input_contents.",
    )


def tracing(asking: Asking) -> bytes:
    raise NotSupported("Tracing and logging are settings of the server, not of this protocol.")


def _parse(name: str, data: bytes) -> Any:
    # As in models.py: for the first caller who needs it.
    from fairway.serving.grpc.messages import parse

    return parse(f"inference.{name}", data)


def _made(name: str, /, **values: Any) -> bytes:
    from fairway.serving.grpc.messages import message  # as above

    return bytes(message(f"inference.{name}")(**values).SerializeToString())


METHODS = (
    Method(SERVICE + "RepositoryIndex", "admin", handle=index, protocol="grpc"),
    Method(SERVICE + "RepositoryModelLoad", "admin", handle=load, protocol="grpc"),
    Method(SERVICE + "RepositoryModelUnload", "admin", handle=unload, protocol="grpc"),
    *(
        Method(f"{SERVICE}{kind}SharedMemory{what}", "infer", handle=handle, quick=True, protocol="grpc")
        for kind in ("System", "Cuda")
        for what, handle in (("Status", no_regions), ("Register", shared_memory), ("Unregister", no_regions))
    ),
    *(
        Method(SERVICE + what, "infer", handle=tracing, quick=True, protocol="grpc")
        for what in ("TraceSetting", "LogSettings")
    ),
)
