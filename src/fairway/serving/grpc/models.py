"""What Open Inference Protocol V2 tells over gRPC about the server and its models, with Triton's additions.

Sources: kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; Triton, docs/protocol/
extension_{model_configuration,statistics}.md.
"""

from __future__ import annotations

from typing import Any

from fairway import __version__
from fairway.core.contract import Field, Output
from fairway.core.errors import NotFound
from fairway.inference.live import LiveModel, LiveVersion
from fairway.inference.plane import now
from fairway.serving.grpc.infer import SERVICE
from fairway.serving.grpc.method import Asking, Method
from fairway.serving.grpc.texts import TRUE, texts
from fairway.serving.v2_raw import DATATYPES
from fairway.stores.counters import read_totals

EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
)
_STAGES = {
    "queue": "queue",
    "parse": "compute_input",
    "validate": "compute_input",
    "run": "compute_infer",
    "encode": "compute_output",
}


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
    return _made("ServerMetadataResponse", name="fairway", version=__version__, extensions=EXTENSIONS)


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
    settings = asking.host.settings
    config: dict[str, Any] = {
        "name": live.model,
        "platform": f"fairway_{live.bundle.spec.kind}",
        "backend": "fairway",
        "max_batch_size": settings.limits.rows,
        "input": [_configured(field) for field in live.contract.inputs],
        "output": [_configured(output) for output in live.contract.outputs],
        "instance_group": [{"name": live.model, "count": settings.serving.workers, "kind": "KIND_CPU"}],
    }
    if live.merges:
        config["dynamic_batching"] = {}
    return _made("ModelConfigResponse", config=config)


def model_statistics(asking: Asking) -> bytes:
    """Counts and times since the server started, of all its workers together."""
    asked = texts(asking.message)
    name, version = asked.get(1, ""), asked.get(2, "")
    asking.admit(name)
    table = asking.host.plane.table
    models = [table[name]] if name else list(table)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for model in models:
        for number in [model.pick(version, "").version] if version else sorted(model.versions):
            found[model.route.model, str(number)] = {}
    directory = asking.host.counters_directory
    totals = asking.host.plane.counters.totals() if directory is None else read_totals(directory)
    for (metric, pairs), value in totals.items():
        labels = dict(pairs)
        sums = found.get((labels.get("model", ""), labels.get("version", "")))
        if sums is not None:
            what = _counted(metric, labels)
            if what:
                sums[what] = sums.get(what, 0.0) + value
    return _made(
        "ModelStatisticsResponse",
        model_stats=[_statistics(*key, sums) for key, sums in found.items()],
    )


def _counted(metric: str, labels: dict[str, str]) -> str:
    """What one counter adds to, empty for nothing."""
    match metric:
        case "fairway_requests_total":
            return "success" if labels.get("code") == "ok" else "fail"
        case "fairway_rows_total":
            return "rows"
        case "fairway_request_seconds_sum":
            return "seconds"
        case "fairway_batch_rows_bucket":
            return "calls"
        case "fairway_stage_seconds_total":
            return _STAGES.get(labels.get("stage", ""), "")
    return ""


def _statistics(model: str, version: str, sums: dict[str, float]) -> dict[str, Any]:
    succeeded = int(sums.get("success", 0))

    def lasted(what: str, count: int = succeeded) -> dict[str, int]:
        return {"count": count, "ns": int(sums.get(what, 0.0) * 1e9)}

    return {
        "name": model,
        "version": version,
        "inference_count": int(sums.get("rows", 0)),
        "execution_count": int(sums.get("calls", 0)),
        "inference_stats": {
            "success": lasted("seconds"),
            "fail": {"count": int(sums.get("fail", 0)), "ns": 0},
            **{what: lasted(what) for what in ("queue", "compute_input", "compute_infer", "compute_output")},
        },
    }


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
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": [-1, *tensor.shape]}


def _configured(tensor: Field | Output) -> dict[str, Any]:
    """Dimensions without the rows; a scalar is `[1]` there, reshaped to nothing."""
    datatype = DATATYPES[tensor.dtype]
    told: dict[str, Any] = {
        "name": tensor.name,
        "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}",
        "dims": tensor.shape or (1,),
    }
    if not tensor.shape:
        told["reshape"] = {"shape": []}
    return told


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
    Method(SERVICE + "ModelStatistics", "infer", handle=model_statistics, protocol="grpc"),
)
