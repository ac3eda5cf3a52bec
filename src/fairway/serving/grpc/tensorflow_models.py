"""TensorFlow Serving over gRPC: what a model looks like, its state, and a new list of models to serve.

Sources: tensorflow/serving, apis/{get_model_metadata,get_model_status,model_management}.proto,
model_servers/model_service_impl.cc.
"""

from __future__ import annotations

from typing import Any

from fairway.core.contract import Contract, Field, Output
from fairway.core.errors import MalformedInput, NotSupported, VersionNotFound
from fairway.inference.live import LiveModel
from fairway.inference.repository import State
from fairway.inference.work import now
from fairway.serving.grpc.method import Asking, Method
from fairway.serving.grpc.repository import repository_of
from fairway.serving.grpc.tensorflow import PROTOCOL, SERVICE, version_of
from fairway.serving.grpc.tensorflow_tensors import NUMBER_OF
from fairway.serving.tensorflow_serving import DEFAULT_SIGNATURE, signatures

MODEL_SERVICE = "/tensorflow.serving.ModelService/"
_STATES = {
    State.loading: "LOADING",
    State.ready: "AVAILABLE",
    State.unloaded: "START",  # the first request loads it
    State.failed: "END",
}
_UNKNOWN_ERROR = 2


def metadata(asking: Asking) -> bytes:
    asked = _parse("GetModelMetadataRequest", asking.message)
    spec = asked.model_spec
    asking.admit(spec.name)
    if not asked.metadata_field:
        raise MalformedInput("GetModelMetadataRequest must specify at least one metadata_field.")
    wrong = [name for name in asked.metadata_field if name != "signature_def"]
    if wrong:
        raise MalformedInput(f"Metadata field {wrong[0][:100]} is not supported; there is signature_def.")
    model, wanted = asking.host.plane.table[spec.name], version_of(spec)
    if model.needs_loading(wanted) and wanted is not None:
        model = model.load(wanted, asking.arrival.deadline or now() + 60.0)
    chosen = model.primary if wanted is None else model.pick(wanted, "")
    answer = _message("GetModelMetadataResponse")
    answer.model_spec.name = spec.name
    answer.model_spec.version.value = chosen.version
    described = _message("SignatureDefMap")
    _fill_signatures(described.signature_def, chosen.contract)
    packed = answer.metadata["signature_def"]
    packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.value = described.SerializeToString()
    return bytes(answer.SerializeToString())


def _fill_signatures(signature_def: Any, contract: Contract) -> None:
    every = tuple(output.name for output in contract.outputs)
    for name, (verb, given) in {DEFAULT_SIGNATURE: ("predict", every), **signatures(contract)}.items():
        signature = signature_def[name]
        signature.method_name = f"tensorflow/serving/{verb}"
        for field in contract:
            _fill_info(signature.inputs[field.name], field)
        for output in contract.outputs:
            if output.name in given:
                _fill_info(signature.outputs[output.name], output)


def _fill_info(info: Any, described: Field | Output) -> None:
    info.name = described.name
    info.dtype = NUMBER_OF[described.dtype]
    for size in (-1, *described.shape):
        info.tensor_shape.dim.add(size=size)


def status(asking: Asking) -> bytes:
    asked = _parse("GetModelStatusRequest", asking.message)
    spec = asked.model_spec
    asking.admit(spec.name)
    model, wanted = asking.host.plane.table[spec.name], version_of(spec)
    number = None if wanted is None else _number(model, wanted)
    states: dict[int, tuple[State, str]] = {
        version: (State.ready if version in model.versions else State.unloaded, "")
        for version in model.numbers
    }
    if asking.host.repository is not None:
        for known in asking.host.repository.index():
            if known.model == spec.name:
                states[known.version] = (known.state, known.reason)
    answer = _message("GetModelStatusResponse")
    for version, (state, reason) in sorted(states.items()):
        if number in (None, version):
            told = answer.model_version_status.add(version=version, state=_STATES[state])
            failed = state is State.failed
            told.status.error_code = _UNKNOWN_ERROR if failed else 0
            told.status.error_message = reason if failed else ""
    return bytes(answer.SerializeToString())


def _number(model: LiveModel, wanted: str) -> int:
    if wanted.isdecimal() and len(wanted) < 10 and int(wanted) in model.numbers:
        return int(wanted)
    if wanted in model.aliases:
        return model.aliases[wanted]
    raise VersionNotFound(
        f"Could not find version {wanted[:100]} of model {model.route.model}; there is "
        f"{', '.join(map(str, model.numbers))}."
    )


def reload_config(asking: Asking) -> bytes:
    """Loads the models listed and unloads those that are not. Models are found in the registry by name; where their
    files lie and which version is live is its business, so `base_path` and version policies are not looked at."""
    asked = _parse("ReloadConfigRequest", asking.message)
    if asked.config.WhichOneof("config") != "model_config_list":
        raise MalformedInput(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is."
        )
    listed = [config.name for config in asked.config.model_config_list.config]
    if "" in listed or len(set(listed)) < len(listed):
        raise MalformedInput("Every ModelConfig needs a name of its own.")
    if any(config.version_labels for config in asked.config.model_config_list.config):
        raise NotSupported(
            "Labels cannot be set here.", hint="They are aliases: fairway alias MODEL ALIAS VERSION."
        )
    repository = repository_of(asking)
    for name in listed:
        asking.admit(name)
    ready = {known.model for known in repository.index() if known.state in (State.ready, State.loading)}
    for name in sorted(ready - set(listed)):
        asking.admit(name)
    for name in listed:
        if name not in ready:
            repository.load(name)
    for name in sorted(ready - set(listed)):
        repository.unload(name)
    answer = _message("ReloadConfigResponse")
    answer.status.error_code = 0
    return bytes(answer.SerializeToString())


def _parse(name: str, data: bytes) -> Any:
    # As in tensorflow.py: for the first caller who needs it.
    from fairway.serving.grpc.messages import parse

    return parse(f"tensorflow.serving.{name}", data)


def _message(name: str) -> Any:
    from fairway.serving.grpc.messages import message  # as above

    return message(f"tensorflow.serving.{name}")()


METHODS = (
    Method(SERVICE + "GetModelMetadata", "infer", handle=metadata, protocol=PROTOCOL),
    Method(MODEL_SERVICE + "GetModelStatus", "infer", handle=status, protocol=PROTOCOL),
    Method(MODEL_SERVICE + "HandleReloadConfigRequest", "admin", handle=reload_config, protocol=PROTOCOL),
)
