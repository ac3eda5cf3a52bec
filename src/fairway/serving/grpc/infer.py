"""ModelInfer of Open Inference Protocol V2.

Where a request came raw its answer is raw, and typed where it came typed, as KServe and MLServer do; an output that
typed contents cannot carry makes the whole answer raw.

Sources: kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto; for the request parameter
`timeout` and classification, Triton, docs/protocol/extension_{schedule_policy,classification}.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fairway.core.columns import Array, Outputs
from fairway.core.conform import Values
from fairway.core.contract import Contract, DType, Output
from fairway.core.errors import MalformedInput, NotSupported, Problem
from fairway.core.request import Inputs, Request
from fairway.inference.entries import keys_of
from fairway.inference.live import LiveVersion, Table
from fairway.inference.work import now
from fairway.serving.entrance import Reading
from fairway.serving.formats.text import iso_texts
from fairway.serving.grpc import wire
from fairway.serving.grpc.method import Admit, Arrival, Method
from fairway.serving.grpc.tensors import FIELDS, add_contents, read_contents
from fairway.serving.keyed import take_column
from fairway.serving.v2_answer import classified
from fairway.serving.v2_raw import DATATYPES, read_raw, write_raw, write_texts

SERVICE = "/inference.GRPCInferenceService/"


class Form(msgspec.Struct, frozen=True, gc=False):
    """How the answer is wanted: with this id, raw or typed, some outputs as their `classes` highest."""

    id: str
    raw: bool
    classes: dict[str, int] | None = None


class Infer:
    """Predictions of V2."""

    protocol = "grpc"

    def read(self, message: bytes, arrival: Arrival, admit: Admit, table: Table) -> Reading:
        asked = wire.read_infer(message)
        if asked is None:
            return _read_fully(message, arrival, admit, table)
        model = asked.model
        caller = admit(model)
        primary = table[model].primary
        contract = primary.contract
        if asked.wanted is not None:
            _check_wanted(asked.wanted, contract)
        inputs = _read_tensors(asked.inputs, asked.raw)
        keys: list[bytes] | None = None
        if primary.key_name:
            inputs, keys = take_column(inputs, primary.key_name, contract)
        request = Request(
            model=model,
            inputs=inputs,
            request_id=arrival.request_id,
            version=asked.version or None,
            key=arrival.key or (keys[0].decode() if keys else None),
            wanted=asked.wanted,
            protocol=self.protocol,
            deadline=arrival.deadline,
            caller=caller,
            keys=keys,
        )
        return Reading(request, Form(asked.id, True))

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> bytes:
        request, form = reading.request, reading.notes
        wanted = request.wanted
        chosen = [output for output in live.contract.outputs if wanted is None or output.name in wanted]
        if form.classes or not form.raw:
            return _write_otherwise(request.model, live, form, chosen, outputs)
        described, raw = [], []
        for output in chosen:
            values = outputs[output.name]
            described.append((output.name, DATATYPES[output.dtype], values.shape))
            raw.append(write_raw(output, values))
        return wire.write_infer(request.model, str(live.version), form.id, described, raw)


INFER = Infer()


def _read_tensors(described: Sequence[wire.Described], contents: Sequence[Any]) -> Inputs:
    """Every tensor by its name. Raises MalformedInput naming all that cannot be read."""
    values: dict[str, Values] = {}
    problems: list[Problem] = []
    for tensor, content in zip(described, contents, strict=True):
        if tensor.name in values:
            problems.append(Problem("stands in inputs more than once", tensor.name))
            continue
        try:
            if type(content) is bytes:
                read = read_raw(tensor.datatype, tensor.shape, content, 0, len(content))
            else:
                read = read_contents(tensor.datatype, tensor.shape, content)
            values[tensor.name] = read
        except MalformedInput as error:
            problems.append(Problem(str(error), tensor.name))
    if problems:
        raise MalformedInput("Some inputs cannot be read.", tuple(problems))
    return values


def _read_fully(message: bytes, arrival: Arrival, admit: Admit, table: Table) -> Reading:
    """Whatever the short reader leaves: typed contents, parameters, and everything that is wrong."""
    # protobuf takes a while to import, and most servers never get a message that needs it.
    from fairway.serving.grpc.messages import parse

    asked = parse("inference.ModelInferRequest", message)
    caller = admit(asked.model_name)
    primary = table[asked.model_name].primary
    contract = primary.contract
    wanted = tuple(output.name for output in asked.outputs) or None
    if wanted is not None:
        _check_wanted(wanted, contract)
    classes = {
        output.name: int(_value(output.parameters["classification"]))
        for output in asked.outputs
        if "classification" in output.parameters
    }
    _check_classes(classes, contract)
    for tensor in [*asked.inputs, *asked.outputs]:
        if any(name.startswith("shared_memory") for name in tensor.parameters):
            raise NotSupported(
                f"{tensor.name!r} is in shared memory, which this server does not use.",
                hint="Send the values in the message.",
            )
    parameters = {name: _value(parameter) for name, parameter in asked.parameters.items()}
    key = parameters.get("key")
    keys: list[bytes] | None = None
    if primary.key_name and primary.key_name in parameters:
        keys = keys_of(parameters[primary.key_name])
    bare = bool(primary.key_name and not asked.inputs and (keys or arrival.key or key is not None))
    contents, raw = ([], True) if bare else _contents(asked)
    described = [wire.Described(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in asked.inputs]
    inputs = _read_tensors(described, contents)
    if primary.key_name:
        inputs, column = take_column(inputs, primary.key_name, contract)
        keys = column if keys is None else keys
    request = Request(
        model=asked.model_name,
        inputs=inputs,
        request_id=arrival.request_id,
        version=asked.model_version or None,
        key=arrival.key or (None if key is None else str(key)) or (keys[0].decode() if keys else None),
        wanted=wanted,
        protocol=Infer.protocol,
        deadline=_earlier(arrival.deadline, parameters.get("timeout")),
        caller=caller,
        keys=keys,
    )
    return Reading(request, Form(asked.id, raw, classes or None))


def _contents(asked: Any) -> tuple[list[Any], bool]:
    """The values of each input, and whether they are raw. Raises MalformedInput."""
    raw = list(asked.raw_input_contents)
    typed = [
        tensor.name for tensor in asked.inputs if tensor.HasField("contents") and tensor.contents.ListFields()
    ]
    if not asked.inputs:
        raise MalformedInput("inputs is empty.")
    if raw and typed:
        raise MalformedInput(
            f"Values stand both in raw_input_contents and in the contents of {', '.join(typed[:5])}.",
            hint="Send all of them in one way.",
        )
    if raw and len(raw) != len(asked.inputs):
        raise MalformedInput(
            f"There are {len(asked.inputs)} inputs and {len(raw)} raw_input_contents.",
            hint="Send one for each input, in the same order.",
        )
    return raw or [tensor.contents for tensor in asked.inputs], bool(raw)


def _value(parameter: Any) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return 0 if kind is None else getattr(parameter, kind)


def _earlier(deadline: float | None, timeout: Any) -> float | None:
    """The call's own deadline, or the request parameter `timeout` (microseconds) if that is earlier."""
    if type(timeout) is not int or timeout <= 0:
        return deadline
    asked = now() + timeout / 1e6
    return asked if deadline is None else min(deadline, asked)


def _check_wanted(wanted: tuple[str, ...], contract: Contract) -> None:
    known = [output.name for output in contract.outputs]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise MalformedInput(
            f"This model's outputs are {', '.join(known)}.",
            tuple(Problem("is not an output", name) for name in unknown),
        )


def _check_classes(classes: dict[str, int], contract: Contract) -> None:
    for output in contract.outputs:
        count = classes.get(output.name)
        if count is not None and (count < 1 or not output.dtype.is_numeric):
            raise MalformedInput(
                f"{output.name!r} cannot be answered as {count} classes: it must hold numbers."
            )


def _write_otherwise(
    model: str, live: LiveVersion, form: Form, chosen: Sequence[Output], outputs: Outputs
) -> bytes:
    """An answer that is typed, or has outputs as classes."""
    # What is answered this way came through protobuf's classes: see `_read_fully`.
    from fairway.serving.grpc.messages import message

    answer = message("inference.ModelInferResponse")(
        model_name=model, model_version=str(live.version), id=form.id
    )
    shown: list[tuple[Output, str, Array]] = []
    for output in chosen:
        values, datatype = outputs[output.name], DATATYPES[output.dtype]
        top = (form.classes or {}).get(output.name)
        if top is not None:
            values, datatype = classified(output, values, top), "BYTES"
        elif output.dtype is DType.timestamp:
            values = iso_texts(values)
        shown.append((output, datatype, values))
    raw = form.raw or any(datatype not in FIELDS for _, datatype, _ in shown)
    for output, datatype, values in shown:
        tensor = answer.outputs.add(name=output.name, datatype=datatype, shape=values.shape)
        if not raw:
            add_contents(datatype, values, tensor.contents)
        else:
            answer.raw_output_contents.append(
                write_texts(values) if datatype == "BYTES" else write_raw(output, values)
            )
    return bytes(answer.SerializeToString())


METHODS = (Method(SERVICE + "ModelInfer", "infer", predict=INFER),)
