"""What TensorFlow Serving and KServe V1 tell about models: status, metadata, the list.

The two give different answers at `GET /v1/models/{model}`, told apart by nothing; the answer here is both at once,
because the clients of either read only the keys they know.

Sources: tensorflow/serving, apis/get_model_status.proto and get_model_metadata.proto as proto3 JSON; kserve/kserve,
v1_endpoints.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairway.core.contract import Contract, DType, Field, Output
from fairway.core.errors import VersionNotFound
from fairway.inference.live import LiveModel
from fairway.inference.repository import State, VersionState
from fairway.serving.entrance import Call, Entry, Reply, Service, json_reply
from fairway.serving.row_answers import main_outputs
from fairway.serving.tensorflow_serving import DEFAULT_SIGNATURE, TensorflowCodec, signatures

_STATES = {
    State.loading: "LOADING",
    State.ready: "AVAILABLE",
    State.unloaded: "START",  # the first request loads it
    State.failed: "END",
}
_TYPES = {
    DType.bool: "DT_BOOL",
    DType.float16: "DT_HALF",
    DType.float32: "DT_FLOAT",
    DType.float64: "DT_DOUBLE",
    DType.string: "DT_STRING",
    DType.timestamp: "DT_STRING",  # ISO 8601 text
}
_ANSWERING = (State.ready, State.unloaded)
_words = TensorflowCodec().word


async def models(service: Service, call: Call) -> Reply:
    """The models that the caller's key reaches."""
    reach = service.access.models_of(call.caller)
    names = [model.route.model for model in service.plane.table]
    return json_reply({"models": [name for name in names if reach is None or name in reach]})


async def alive(service: Service, call: Call) -> Reply:
    """What KServe's client asks a V1 server to find out whether it is there."""
    return json_reply({"status": "alive"})


async def status(service: Service, call: Call) -> Reply:
    """503 while nothing of the model can answer, as KServe's client wants it told."""
    name, wanted = call.names["model"], call.names.get("version", call.names.get("label"))
    model = service.plane.table.find(name)
    states = {} if model is None else _known(model)
    if service.repository is not None:
        index = await service.in_thread(service.repository.index)
        states |= {state.version: state for state in index if state.model == name}
    if not states:
        model = service.plane.table[name]
    if wanted is not None:
        number = _number(name, wanted, states, {} if model is None else model.aliases)
        states = {number: states[number]}
    ready = service.ready and any(state.state in _ANSWERING for state in states.values())
    told = [_told(states[number]) for number in sorted(states)]
    return json_reply({"name": name, "ready": ready, "model_version_status": told}, 200 if ready else 503)


async def metadata(service: Service, call: Call) -> Reply:
    name, wanted = call.names["model"], call.names.get("version", call.names.get("label"))
    model = service.plane.table[name]
    if model.needs_loading(wanted):
        model = await service.in_thread(model.load, wanted)
    chosen = model.primary if wanted is None else model.pick(wanted, "")
    return json_reply(
        {
            "model_spec": {"name": name, "signature_name": "", "version": str(chosen.version)},
            "metadata": {"signature_def": {"signature_def": _signatures(chosen.contract)}},
        }
    )


def _number(name: str, wanted: str, states: Mapping[int, VersionState], aliases: Mapping[str, int]) -> int:
    if wanted.isdecimal() and len(wanted) < 10 and int(wanted) in states:
        return int(wanted)
    for state in states.values():
        aliases = {**aliases, **dict.fromkeys(state.aliases, state.version)}
    if wanted in aliases and aliases[wanted] in states:
        return aliases[wanted]
    raise VersionNotFound(
        f"Could not find version {wanted[:100]} of model {name}; there is {', '.join(map(str, sorted(states)))}."
    )


def _known(model: LiveModel) -> dict[int, VersionState]:
    """What this worker itself knows."""
    return {
        number: VersionState(
            model=model.route.model,
            version=number,
            state=State.ready if number in model.versions else State.unloaded,
        )
        for number in model.numbers
    }


def _told(state: VersionState) -> dict[str, Any]:
    failed = state.state is State.failed
    return {
        "version": str(state.version),  # proto3 writes 64-bit integers as text
        "state": _STATES[state.state],
        "status": {
            "error_code": "UNKNOWN" if failed else "OK",
            "error_message": state.reason if failed else "",
        },
    }


def _signatures(contract: Contract) -> dict[str, Any]:
    inputs = {field.name: _tensor(field) for field in contract}
    methods = {DEFAULT_SIGNATURE: ("predict", main_outputs(contract)), **signatures(contract)}
    return {
        name: {
            "inputs": inputs,
            "outputs": {output.name: _tensor(output) for output in contract.outputs if output.name in given},
            "method_name": f"tensorflow/serving/{verb}",
            "defaults": {},
        }
        for name, (verb, given) in methods.items()
    }


def _tensor(described: Field | Output) -> dict[str, Any]:
    sizes = [-1, *described.shape]
    return {
        "name": described.name,
        "dtype": _TYPES.get(described.dtype, f"DT_{described.dtype.value.upper()}"),
        "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": False},
    }


ENTRIES = (
    Entry("GET", "/", "open", handler=alive),
    Entry("GET", "/v1/models", "infer", handler=models),
    *(
        Entry("GET", f"/v1/models/{{model}}{which}{what}", "infer", handler=handler, words=_words)
        for which in ("", "/versions/{version}", "/labels/{label}")
        for what, handler in (("", status), ("/metadata", metadata))
    ),
)
