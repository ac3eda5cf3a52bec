"""V2's extensions beside inference, as Triton answers them: configuration, statistics, the model repository; and
what Triton has that Fairway has not, in Triton's own words.

Sources: Triton, docs/protocol/extension_{model_configuration,statistics,model_repository,trace,logging,shared_memory}.md
and src/http_server.cc.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from fairway.core.contract import DType, Field, Output
from fairway.core.errors import MalformedInput, NotSupported, Unavailable
from fairway.inference.live import LiveModel, LiveVersion
from fairway.inference.repository import Repository, State, VersionState
from fairway.serving.entrance import Call, Entry, Reply, Service, json_reply
from fairway.serving.v2 import described_shape
from fairway.serving.v2_raw import DATATYPES
from fairway.stores.counters import Key, read_totals

EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "binary_tensor_data",
    "parameters",
    "statistics",
)
_Body = TypeVar("_Body", bound=msgspec.Struct)
_INT32 = 2**31 - 1
_STATES = {
    State.loading: "LOADING",
    State.ready: "READY",
    State.unloaded: "UNAVAILABLE",
    State.failed: "UNAVAILABLE",
}


async def config(service: Service, call: Call) -> Reply:
    version = await _version(service, call)
    return json_reply(configuration(version, service.settings.limits.rows))


def configuration(live: LiveVersion, rows: int) -> dict[str, Any]:
    """Triton's ModelConfig as JSON; every model here takes batches of up to `rows` rows along its first axis."""
    kind = live.bundle.spec.kind
    return {
        "name": live.model,
        "platform": "onnxruntime_onnx" if kind == "onnx" else f"fairway_{kind}",
        "backend": "onnxruntime" if kind == "onnx" else "fairway",
        "version_policy": {"specific": {"versions": [live.version]}},
        "max_batch_size": min(rows, _INT32),
        "input": [
            {
                "name": field.name,
                "data_type": _data_type(field),
                "format": "FORMAT_NONE",
                "dims": described_shape(field)[1:],
                "optional": False,
            }
            for field in live.contract
        ],
        "output": [
            {
                "name": output.name,
                "data_type": _data_type(output),
                "dims": described_shape(output)[1:],
                "label_filename": "",
            }
            for output in live.contract.outputs
        ],
        "instance_group": [{"name": live.model, "kind": "KIND_CPU", "count": 1}],
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0},
        "default_model_filename": live.bundle.spec.file,
        "parameters": {"fairway_digest": {"string_value": live.digest}},
    }


def _data_type(value: Field | Output) -> str:
    datatype = DATATYPES[value.dtype]
    return "TYPE_STRING" if value.dtype in (DType.string, DType.timestamp) else f"TYPE_{datatype}"


async def statistics(service: Service, call: Call) -> Reply:
    """Of one version, of a model's loaded versions, or of all that the caller's key reaches."""
    plane, directory = service.plane, service.counters_directory
    totals = plane.counters.totals() if directory is None else read_totals(directory)
    if "model" not in call.names:
        reach = service.access.models_of(call.caller)
        models = [model for model in plane.table if reach is None or model.route.model in reach]
        chosen = [(model, live) for model in models for live in _loaded(model)]
    else:
        model = plane.table[call.names["model"]]
        wanted = call.names.get("version")
        versions = _loaded(model) if wanted is None else [await _version(service, call)]
        chosen = [(model, live) for live in versions]
    return json_reply({"model_stats": [model_statistics(model, live, totals) for model, live in chosen]})


def model_statistics(model: LiveModel, live: LiveVersion, totals: dict[Key, float]) -> dict[str, Any]:
    """Triton's ModelStatistics: times are nanoseconds added up. Failures that named no version count for the one
    with most of the traffic."""
    names = {str(live.version), ""} if live is model.primary else {str(live.version)}
    mine = [
        (counter, dict(labels), value)
        for (counter, labels), value in totals.items()
        if ("model", live.model) in labels and dict(labels).get("version") in names
    ]

    def total(name: str, **labels: str) -> float:
        return sum(
            value
            for counter, given, value in mine
            if counter == name and all(given.get(label) == wanted for label, wanted in labels.items())
        )

    answered = int(total("fairway_requests_total", code="ok"))
    failed = int(total("fairway_requests_total")) - answered

    def spent(*stages: str) -> dict[str, int]:
        seconds = sum(total("fairway_stage_seconds_total", stage=stage) for stage in stages)
        return {"count": answered, "ns": round(seconds * 1e9)}

    hits = int(total("fairway_cache_hits_total"))
    misses = int(total("fairway_cache_misses_total"))
    return {
        "name": live.model,
        "version": str(live.version),
        "last_inference": 0,
        "inference_count": int(total("fairway_rows_total")),
        "execution_count": int(total("fairway_batch_rows_bucket")) or answered,
        "inference_stats": {
            "success": {"count": answered, "ns": round(total("fairway_request_seconds_sum") * 1e9)},
            "fail": {"count": failed, "ns": 0},
            "queue": spent("queue"),
            "compute_input": spent("parse", "validate"),
            "compute_infer": spent("run"),
            "compute_output": spent("encode"),
            "cache_hit": {"count": hits, "ns": 0},
            "cache_miss": {"count": misses, "ns": 0},
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }


def _loaded(model: LiveModel) -> list[LiveVersion]:
    return [live for _, live in sorted(model.versions.items())]


async def _version(service: Service, call: Call) -> LiveVersion:
    model = service.plane.table[call.names["model"]]
    version = call.names.get("version")
    if version is not None and model.needs_loading(version):
        model = await service.in_thread(model.load, version)
    return model.primary if version is None else model.pick(version, "")


class IndexBody(msgspec.Struct):
    ready: bool = False


class Parameters(msgspec.Struct):
    config: str | None = None
    unload_dependents: bool = False


class LoadBody(msgspec.Struct):
    parameters: Parameters | None = None


async def index(service: Service, call: Call) -> Reply:
    """Every version this server knows; with `ready` only those that can answer now."""
    wanted = _read(call.body, IndexBody)
    if service.repository is None:
        states = [
            VersionState(model=live.model, version=live.version, state=State.ready)
            for model in service.plane.table
            for live in _loaded(model)
        ]
    else:
        states = await service.in_thread(service.repository.index)
    return json_reply(
        [
            {
                "name": state.model,
                "version": str(state.version),
                "state": _STATES[state.state],
                "reason": state.reason or ("unloaded" if state.state is State.unloaded else ""),
            }
            for state in states
            if state.state is State.ready or not wanted.ready
        ]
    )


async def load(service: Service, call: Call) -> Reply:
    name = call.names["model"]
    given = _read(call.body, LoadBody).parameters
    if given is not None and given.config is not None:
        raise NotSupported(
            f"{name} cannot be loaded with another configuration: its contract is part of its digest.",
            hint="Register another version.",
        )
    repository = _repository(service)
    await service.in_thread(repository.load, name)
    return json_reply({"name": name, "load": True})


async def unload(service: Service, call: Call) -> Reply:
    """`unload_dependents` is accepted: no model here is loaded for the sake of another."""
    name = call.names["model"]
    _read(call.body, LoadBody)
    repository = _repository(service)
    await service.in_thread(repository.unload, name)
    return json_reply({"name": name, "unload": True})


def _repository(service: Service) -> Repository:
    if service.repository is None:
        raise NotSupported("This server loads and unloads nothing while it serves.")
    return service.repository


def _read(body: bytes, kind: type[_Body]) -> _Body:
    if not body.strip():
        return kind()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(f"The body is not a valid request: {error}.") from None


async def no_tracing(service: Service, call: Call) -> Reply:
    raise Unavailable("the server does not support tracing")


async def no_logging(service: Service, call: Call) -> Reply:
    raise Unavailable("the server does not support dynamic logging")


async def no_regions(service: Service, call: Call) -> Reply:
    """Status of regions, of which there are none."""
    return json_reply([])


async def unregister(service: Service, call: Call) -> Reply:
    """Succeeds, as Triton does for regions it does not know: clients ask it of every server before they begin."""
    return Reply(200, b"", [])


async def no_system_region(service: Service, call: Call) -> Reply:
    raise MalformedInput(
        f"failed to register shared memory region: {call.names['region'][:200]!r}, shared memory is not supported;"
        " send tensors as binary data"
    )


async def no_cuda_region(service: Service, call: Call) -> Reply:
    raise MalformedInput(
        f"failed to register CUDA shared memory region: {call.names['region'][:200]!r}, GPUs not supported"
    )


def _for_versions(path: str, scope: str, handler: Any) -> tuple[Entry, Entry]:
    return (
        Entry("GET", f"/v2/models/{{model}}/{path}", scope, handler=handler),
        Entry("GET", f"/v2/models/{{model}}/versions/{{version}}/{path}", scope, handler=handler),
    )


def _shared_memory(kind: str, register: Any) -> tuple[Entry, ...]:
    base = f"/v2/{kind}sharedmemory"
    return (
        Entry("GET", f"{base}/status", "infer", handler=no_regions),
        Entry("GET", f"{base}/region/{{region}}/status", "infer", handler=no_regions),
        Entry("POST", f"{base}/region/{{region}}/register", "infer", handler=register),
        Entry("POST", f"{base}/unregister", "infer", handler=unregister),
        Entry("POST", f"{base}/region/{{region}}/unregister", "infer", handler=unregister),
    )


ENTRIES = (
    *_for_versions("config", "infer", config),
    # Before the paths below, where `stats` would be a model's name.
    Entry("GET", "/v2/models/stats", "metrics", handler=statistics),
    *_for_versions("stats", "metrics", statistics),
    Entry("POST", "/v2/repository/index", "admin", handler=index),
    Entry("POST", "/v2/repository/models/{model}/load", "admin", handler=load),
    Entry("POST", "/v2/repository/models/{model}/unload", "admin", handler=unload),
    *(
        Entry(method, path, "admin", handler=no_tracing)
        for path in ("/v2/trace/setting", "/v2/models/{model}/trace/setting")
        for method in ("GET", "POST")
    ),
    *(Entry(method, "/v2/logging", "admin", handler=no_logging) for method in ("GET", "POST")),
    *_shared_memory("system", no_system_region),
    *_shared_memory("cuda", no_cuda_region),
)
