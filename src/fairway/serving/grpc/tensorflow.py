"""TensorFlow Serving's PredictionService: Predict, Classify, Regress and MultiInference.

Sources: tensorflow/serving, apis/{predict,classification,regression,inference}.proto, servables/tensorflow/
{predict_util,classifier,regressor}.cc. A model's signatures are those of its REST API: `serving_default` gives every
output, an output's own name just that one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.core.columns import Outputs
from fairway.core.conform import Values
from fairway.core.contract import Contract, Task
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs, Request
from fairway.inference.live import LiveVersion, Table
from fairway.serving.entrance import Reading
from fairway.serving.grpc.method import Admit, Arrival, Asking, Method
from fairway.serving.grpc.tensorflow_tensors import fill_tensor, read_example, read_tensor
from fairway.serving.keyed import take_column, take_keys
from fairway.serving.tensorflow_serving import DEFAULT_SIGNATURE, signature, signatures
from fairway.serving.tensorflow_values import from_examples

SERVICE = "/tensorflow.serving.PredictionService/"
PROTOCOL = "tfs-grpc"
_METHODS = {"tensorflow/serving/classify": "classify", "tensorflow/serving/regress": "regress"}


class Form(msgspec.Struct, frozen=True, gc=False):
    """What the answer repeats and holds."""

    signature: str
    outputs: tuple[str, ...]


class Predict:
    """Named tensors in and out."""

    protocol = PROTOCOL

    def read(self, message: bytes, arrival: Arrival, admit: Admit, table: Table) -> Reading:
        asked = _parse("PredictRequest", message)
        spec = asked.model_spec
        caller = admit(spec.name)
        primary = table[spec.name].primary
        contract = primary.contract
        form = Form(spec.signature_name or DEFAULT_SIGNATURE, _predicted(asked, contract))
        inputs: dict[str, Values] = {}
        problems: list[Problem] = []
        for name, tensor in asked.inputs.items():
            try:
                inputs[name] = read_tensor(tensor)
            except MalformedInput as error:
                problems.append(Problem(str(error), name))
        if problems:
            raise MalformedInput("Some inputs cannot be read.", tuple(problems))
        if not primary.key_name:
            return Reading(_request(spec, inputs, form, arrival, caller), form)
        left, keys = take_column(inputs, primary.key_name, contract)
        return Reading(_request(spec, left, form, arrival, caller, keys), form)

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> bytes:
        form: Form = reading.notes
        answer = _message("PredictResponse")
        _fill_spec(answer.model_spec, live, form.signature)
        for output in live.contract.outputs:
            if output.name in form.outputs:
                fill_tensor(answer.outputs[output.name], output, outputs[output.name])
        return bytes(answer.SerializeToString())


class Judge:
    """Classify and Regress: examples in, labels with scores or one number out."""

    protocol = PROTOCOL

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._name = "Classification" if verb == "classify" else "Regression"

    def read(self, message: bytes, arrival: Arrival, admit: Admit, table: Table) -> Reading:
        asked = _parse(f"{self._name}Request", message)
        spec = asked.model_spec
        caller = admit(spec.name)
        return judged(self._verb, spec, asked.input, table[spec.name].primary, arrival, caller)

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> bytes:
        form: Form = reading.notes
        answer = _message(f"{self._name}Response")
        _fill_spec(answer.model_spec, live, form.signature)
        fill_result(answer.result, self._verb, form, outputs, live)
        return bytes(answer.SerializeToString())


def judged(verb: str, spec: Any, given: Any, primary: LiveVersion, arrival: Arrival, caller: str) -> Reading:
    """A request to classify or regress the examples of an Input; nothing is left of them where all there is are keys of
    precomputed answers, as a feature or in the metadata. Raises MalformedInput."""
    contract = primary.contract
    form = Form(
        spec.signature_name or DEFAULT_SIGNATURE, _judged_outputs(verb, spec.signature_name, contract)
    )
    kind = given.WhichOneof("kind")
    sent = None if kind is None else getattr(given, kind)
    if sent is None or not sent.examples:
        if primary.key_name and arrival.key is not None:
            return Reading(_request(spec, {}, form, arrival, caller), form)
        raise MalformedInput("Input is empty.")
    context = read_example(sent.context, contract) if kind == "example_list_with_context" else None
    rows = [read_example(example, contract) for example in sent.examples]
    keys = None
    if primary.key_name:
        left: dict[str, Any] = {"examples": [_with_plain_key(row, primary.key_name) for row in rows]}
        keys = take_keys(left, primary.key_name, contract, ("examples",)).keys
        rows = left.get("examples", rows if keys is None else [])
    inputs = from_examples(rows, context, contract, verb) if rows else {}
    return Reading(_request(spec, inputs, form, arrival, caller, keys), form)


def _with_plain_key(row: dict[str, Any], name: str) -> dict[str, Any]:
    """An Example's feature is a list even of one value."""
    value = row.get(name)
    return {**row, name: value[0]} if isinstance(value, list) and len(value) == 1 else row


def fill_result(result: Any, verb: str, form: Form, outputs: Outputs, live: LiveVersion) -> None:
    """Writes a ClassificationResult or RegressionResult."""
    values = outputs[form.outputs[0]]
    if verb == "regress":
        for value in values.tolist():
            result.regressions.add(value=value)
        return
    [output] = [output for output in live.contract.outputs if output.name == form.outputs[0]]
    labels = output.labels or tuple(map(str, range(values.shape[-1])))
    for row in values.tolist():
        classes = result.classifications.add().classes
        for label, score in zip(labels, row, strict=True):
            classes.add(label=label, score=score)


def multi_inference(asking: Asking) -> bytes:
    """Several ways of judging the same examples, as far as one model knows them."""
    asked = _parse("MultiInferenceRequest", asking.message)
    if not asked.tasks:
        raise MalformedInput("Inference request must have at least one task.")
    names = {task.model_spec.name for task in asked.tasks}
    if len(names) > 1:
        raise MalformedInput(
            f"All tasks must be for one model; these are for {', '.join(sorted(names))[:200]}."
        )
    plane = asking.host.plane
    answer = _message("MultiInferenceResponse")
    for task in asked.tasks:
        spec = task.model_spec
        verb = _METHODS.get(task.method_name)
        if verb is None:
            raise MalformedInput(
                f"Unsupported signature method_name {task.method_name[:100]!r}.",
                hint=f"Use {' or '.join(_METHODS)}.",
            )
        caller = asking.admit(spec.name)
        primary = plane.table[spec.name].primary
        reading = judged(verb, spec, asked.input, primary, asking.arrival, caller)
        given = plane.infer(reading.request)
        live = plane.table[spec.name].pick(str(given.version), "")
        result = answer.results.add()
        _fill_spec(result.model_spec, live, reading.notes.signature)
        filled = result.classification_result if verb == "classify" else result.regression_result
        fill_result(filled, verb, reading.notes, given.outputs, live)
    return bytes(answer.SerializeToString())


def version_of(spec: Any) -> str | None:
    """The version number or label that a ModelSpec asks for."""
    choice = spec.WhichOneof("version_choice")
    if choice is None:
        return None
    return str(spec.version.value) if choice == "version" else str(spec.version_label)


def _predicted(asked: Any, contract: Contract) -> tuple[str, ...]:
    """The outputs of the signature that pass the output filter, in the contract's order."""
    every = tuple(output.name for output in contract.outputs)
    name = asked.model_spec.signature_name
    given = every if name in ("", DEFAULT_SIGNATURE) else _signature(name, "predict", contract)
    wanted = set(asked.output_filter)
    unknown = sorted(wanted - set(given))
    if unknown:
        raise MalformedInput(
            f"output tensor alias not found in signature: {unknown[0][:100]}; outputs are {', '.join(given)}."
        )
    return tuple(output for output in given if not wanted or output in wanted)


def _judged_outputs(verb: str, name: str, contract: Contract) -> tuple[str, ...]:
    wanted = Task.classification if verb == "classify" else Task.regression
    known = [outputs for belongs, outputs in signatures(contract).values() if belongs == verb]
    if contract.task is not wanted or not known or (verb == "regress" and contract.outputs[0].shape):
        raise MalformedInput(
            f"Expected {'classification' if verb == 'classify' else 'regression'} signature: this model has none.",
            hint="Ask for Predict.",
        )
    return known[0] if name in ("", DEFAULT_SIGNATURE) else _signature(name, verb, contract)


def _signature(name: str, verb: str, contract: Contract) -> tuple[str, ...]:
    belongs, outputs = signature(name, contract)
    if belongs != verb:
        raise MalformedInput(
            f'The signature "{name}" is for tensorflow/serving/{belongs}, not tensorflow/serving/{verb}.'
        )
    return outputs


def _request(
    spec: Any,
    inputs: Inputs,
    form: Form,
    arrival: Arrival,
    caller: str,
    keys: list[bytes] | None = None,
) -> Request:
    return Request(
        model=spec.name,
        inputs=inputs,
        request_id=arrival.request_id,
        version=version_of(spec),
        key=arrival.key or (keys[0].decode() if keys else None),
        wanted=form.outputs,
        protocol=PROTOCOL,
        deadline=arrival.deadline,
        caller=caller,
        keys=keys,
    )


def _fill_spec(spec: Any, live: LiveVersion, signature: str) -> None:
    spec.name = live.model
    spec.version.value = live.version
    spec.signature_name = signature


def _parse(name: str, data: bytes) -> Any:
    # protobuf takes a while to import: a worker does it for the first caller who needs it.
    from fairway.serving.grpc.messages import parse

    return parse(f"tensorflow.serving.{name}", data)


def _message(name: str) -> Any:
    from fairway.serving.grpc.messages import message  # as above

    return message(f"tensorflow.serving.{name}")()


METHODS = (
    Method(SERVICE + "Predict", "infer", predict=Predict()),
    Method(SERVICE + "Classify", "infer", predict=Judge("classify")),
    Method(SERVICE + "Regress", "infer", predict=Judge("regress")),
    Method(SERVICE + "MultiInference", "infer", handle=multi_inference, protocol=PROTOCOL),
)
