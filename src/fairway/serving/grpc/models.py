"""What Open Inference Protocol V2 tells over gRPC about the server and its models, with Triton's additions.

Sources: kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; Triton, docs/protocol/
extension_{model_configuration,statistics}.md.
"""

from __future__ import annotations

from typing import Any

from fairway.core.contract import Field, Output
from fairway.core.errors import NotFound
from fairway.core.release import VERSION
from fairway.inference.live import LiveModel, LiveVersion
from fairway.inference.work import now
from fairway.serving.grpc.infer import SERVICE
from fairway.serving.grpc.method import Asking, Method
from fairway.serving.grpc.texts import TRUE, texts
from fairway.serving.v2 import described_shape
from fairway.serving.v2_extensions import EXTENSIONS, configuration
from fairway.serving.v2_extensions import model_statistics as statistics
from fairway.serving.v2_raw import DATATYPES
from fairway.stores.counters import read_totals


def server_live(asking: Asking) -> bytes:
    return TRUE


def server_ready(asking: Asking) -> bytes:
    return TRUE if asking.host.ready else b""


def model_ready(asking: Asking) -> bytes:
    """False, as with Triton, for a model or version that is not there."""
    asked = texts(asking.message)
    name, version = asked.get(1, ""), asked.get(2, "")
    asking.admit(name)
    model = asking.host.plane.table.find(name)
    there = model is not None and (not version or model.has(version))
    return TRUE if there and asking.host.ready else b""


def server_metadata(asking: Asking) -> bytes:
    return _made("ServerMetadataResponse", name="fairway", version=VERSION, extensions=EXTENSIONS)


def model_metadata(asking: Asking) -> bytes:
    model, live = _asked(asking)
    return _made(
        "ModelMetadataResponse",
        name=live.model,
        versions=[str(number) for number in model.numbers],
        platform=f"fairway_{live.bundle.spec.kind}",
        inputs=[_described(field) for field in live.contract.inputs],
        outputs=[_described(output) for output in live.contract.outputs],
    )


def model_config(asking: Asking) -> bytes:
    """The contract as a Triton configuration: every tensor has rows first, so batches are as large as a request may
    be."""
    _, live = _asked(asking)
    rows = asking.host.settings.limits.rows
    return _made("ModelConfigResponse", config=_filled(configuration(live, rows)))


def model_statistics(asking: Asking) -> bytes:
    """Counts and times since the server started, of all its workers together."""
    asked = texts(asking.message)
    name, version = asked.get(1, ""), asked.get(2, "")
    if name:
        asking.admit(name)
    plane, directory = asking.host.plane, asking.host.counters_directory
    totals = plane.counters.totals() if directory is None else read_totals(directory)
    chosen: list[tuple[LiveModel, LiveVersion]] = []
    for model in [plane.table[name]] if name else list(plane.table):
        versions = (
            [model.pick(version, "")] if version else [live for _, live in sorted(model.versions.items())]
        )
        chosen += [(model, live) for live in versions]
    return _made("ModelStatisticsResponse", model_stats=[statistics(*one, totals) for one in chosen])


def _asked(asking: Asking) -> tuple[LiveModel, LiveVersion]:
    """The model and version of a message whose first two fields name them."""
    asked = texts(asking.message)
    name, version = asked.get(1, ""), asked.get(2, "") or None
    asking.admit(name)
    model = asking.host.plane.table[name]
    if version is None:
        return model, model.primary
    if not model.has(version):
        model.pick(version, "")  # says what there is
        raise NotFound(f"{name} has no version {version}.")
    if model.needs_loading(version):
        model = model.load(version, asking.arrival.deadline or now() + 60.0)
    return model, model.pick(version, "")


def _described(tensor: Field | Output) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": described_shape(tensor)}


def _filled(value: Any) -> Any:
    """Without lists of nothing, which a message's constructor does not need."""
    if isinstance(value, dict):
        return {name: _filled(part) for name, part in value.items() if part != []}
    return value


def _made(name: str, /, **values: Any) -> bytes:
    # protobuf takes a while to import: a worker does it for the first caller who needs it, in a thread.
    from fairway.serving.grpc.messages import message

    return bytes(message(f"inference.{name}")(**values).SerializeToString())


METHODS = (
    Method(SERVICE + "ServerLive", None, handle=server_live, quick=True, protocol="grpc"),
    Method(SERVICE + "ServerReady", None, handle=server_ready, quick=True, protocol="grpc"),
    Method(SERVICE + "ModelReady", "infer", handle=model_ready, quick=True, protocol="grpc"),
    Method(SERVICE + "ServerMetadata", "infer", handle=server_metadata, protocol="grpc"),
    Method(SERVICE + "ModelMetadata", "infer", handle=model_metadata, protocol="grpc"),
    Method(SERVICE + "ModelConfig", "infer", handle=model_config, protocol="grpc"),
    Method(SERVICE + "ModelStatistics", "metrics", handle=model_statistics, protocol="grpc"),
)
