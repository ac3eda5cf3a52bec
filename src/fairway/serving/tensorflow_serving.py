"""TensorFlow Serving's REST API and KServe's V1 protocol, which share their paths: predict, classify, regress.

Sources: tensorflow/serving, g3doc/api_rest.md and model_servers/http_rest_api_util.cc; kserve/kserve,
python/kserve/kserve/protocol/rest/v1_endpoints.py.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NamedTuple

import numpy as np

from fairway.core.columns import Outputs
from fairway.core.contract import Contract, DType, Task
from fairway.core.errors import AnswerNotFound, MalformedInput, NotFound, NotSupported
from fairway.core.request import Inputs
from fairway.inference.live import LiveVersion
from fairway.serving.entrance import Entry, Headers, Heading, Reading, Target, Written
from fairway.serving.errors import error_answer, error_text
from fairway.serving.json_rows import read_body
from fairway.serving.keyed import take_keys
from fairway.serving.row_answers import by_name, by_row, to_json, wanted_outputs
from fairway.serving.tensorflow_types import exact_limit, shown
from fairway.serving.tensorflow_values import from_columns, from_examples, from_rows

DEFAULT_SIGNATURE = "serving_default"
_ROWS = ("instances", "inputs")
_NAMES = {"predict": "predict", "classify": "classification", "regress": "regression"}


class Form(NamedTuple):
    """How the answer is to be written: `kind` is predictions, outputs, classes or values."""

    kind: str
    outputs: tuple[str, ...]


class TensorflowCodec:
    """JSON in whatever content type it comes: curl calls it a form, and TensorFlow Serving does not look."""

    protocol = "v1"

    def read(
        self, target: Target, heading: Heading, body: bytes, headers: Headers, contract: Contract
    ) -> Reading:
        verb = target.verb.lower()
        if verb == "explain":
            raise NotSupported(
                f"{heading.model} has no explainer.",
                hint="Ask for predictions: POST the same body to :predict.",
            )
        if verb not in _NAMES:
            raise MalformedInput(f"Malformed request: there is no method {verb!r} of a model.")
        keyed = bool(heading.key_name and heading.key)
        sent = read_body(body, _ROWS, exact=exact_limit(contract)) if body or not keyed else {}
        if not isinstance(sent, dict):
            raise MalformedInput(f"JSON Value: {shown(sent)} Is not object")
        named = _signature_outputs(sent, contract, verb)
        keys: list[bytes] | None = None
        inputs: Inputs = {}
        emptied = ""
        if heading.key_name:
            keys, emptied = take_keys(sent, heading.key_name, contract, (*_ROWS, "examples"))
        nothing_else = (keyed or keys is not None) and not any(name in sent for name in (*_ROWS, "examples"))
        if verb == "predict" and nothing_else:
            kind = "outputs" if emptied == "inputs" else "predictions"
            form = Form(kind, wanted_outputs(contract, headers, named))
        elif verb == "predict":
            form, inputs = _predict(sent, contract, wanted_outputs(contract, headers, named))
        else:
            form = (
                Form(*_classes(contract)) if verb == "classify" else Form("values", (_regressed(contract),))
            )
            if not nothing_else:
                inputs = from_examples(sent.get("examples"), sent.get("context"), contract, verb)
        return Reading(heading.request(inputs, self.protocol, form.outputs, keys), form)

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> Written:
        kind, names = reading.notes
        contract = live.contract
        outputs = _bytes_as_base64(contract, outputs, names)
        body: dict[str, Any]
        if kind == "predictions":
            body = {kind: by_row(contract, outputs, names)}
        elif kind == "outputs":
            columns = by_name(contract, outputs, names)
            body = {kind: columns if len(names) > 1 else columns[names[0]]}
        elif kind == "classes":
            body = {"results": _labelled(contract, outputs)}
        else:
            body = {"results": by_row(contract, outputs, names)}
        return Written(to_json(body, outputs, names, tokens=True))

    def word(self, error: Exception, request_id: str, *, safe: bool) -> tuple[int, Written]:
        text = error_text(error, safe=safe)
        if isinstance(error, NotFound) and not isinstance(error, AnswerNotFound):
            text = f"Servable not found for request: {text}"
        status, body = error_answer(error, request_id, safe=safe, text=text)
        return int(status), Written(body)


def signatures(contract: Contract) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What `signature_name` may say: the verb it goes with, and the outputs it gives. An output's own name is a
    signature that gives just that one."""
    names = tuple(output.name for output in contract.outputs)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    if len(names) > 1:
        found = {name: ("predict", (name,)) for name in names}
    if contract.task is Task.classification and "probabilities" in names:
        for name in ("classification", "tensorflow/serving/classify"):
            found[name] = ("classify", ("probabilities",))
    if contract.task is Task.regression:
        for name in ("regression", "tensorflow/serving/regress"):
            found[name] = ("regress", names[:1])
    return found


def signature(name: str, contract: Contract) -> tuple[str, tuple[str, ...]]:
    """The one of `signatures` of that name. Raises MalformedInput for a name that is none."""
    known = signatures(contract)
    if name not in known:
        there = ", ".join([DEFAULT_SIGNATURE, *known])
        raise MalformedInput(f'Serving signature key "{name[:100]}" not found. There is {there}.')
    return known[name]


def _signature_outputs(sent: dict[str, Any], contract: Contract, verb: str) -> tuple[str, ...] | None:
    """The outputs that `signature_name` stands for; None for the default ones."""
    name = sent.get("signature_name", "")
    if not isinstance(name, str):
        raise MalformedInput(
            f"JSON Value: {shown(name)} not formatted correctly. 'signature_name' key must be a string value."
        )
    if name in ("", DEFAULT_SIGNATURE, _NAMES[verb], f"tensorflow/serving/{verb}"):
        return None
    belongs, outputs = signature(name, contract)
    if belongs != verb:
        raise MalformedInput(
            f"Expected {_NAMES[verb]} signature method_name to be tensorflow/serving/{verb}. Was: "
            f"tensorflow/serving/{belongs}"
        )
    return outputs


def _predict(sent: dict[str, Any], contract: Contract, outputs: tuple[str, ...]) -> tuple[Form, Inputs]:
    given = [key for key in _ROWS if key in sent]
    if not given:
        raise MalformedInput("Missing 'inputs' or 'instances' key")
    if len(given) > 1:
        raise MalformedInput(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    if given == ["instances"]:
        return Form("predictions", outputs), from_rows(sent["instances"], contract)
    return Form("outputs", outputs), from_columns(sent["inputs"], contract)


def _classes(contract: Contract) -> tuple[str, tuple[str, ...]]:
    if contract.task is not Task.classification or "probabilities" not in (o.name for o in contract.outputs):
        raise MalformedInput(
            "Expected classification signature: this model gives no probabilities of classes.",
            hint="Ask for :predict.",
        )
    return "classes", ("probabilities",)


def _regressed(contract: Contract) -> str:
    if contract.task is not Task.regression or contract.outputs[0].shape:
        raise MalformedInput(
            "Expected regression signature: this model does not give one number a row.",
            hint="Ask for :predict.",
        )
    return contract.outputs[0].name


def _labelled(contract: Contract, outputs: Outputs) -> list[list[list[Any]]]:
    """Pairs of label and score for each row, in the order of the model's classes."""
    [output] = [output for output in contract.outputs if output.name == "probabilities"]
    scores = outputs["probabilities"].tolist()
    labels = output.labels or tuple(map(str, range(outputs["probabilities"].shape[-1])))
    return [[[label, score] for label, score in zip(labels, row, strict=True)] for row in scores]


def _bytes_as_base64(contract: Contract, outputs: Outputs, names: tuple[str, ...]) -> Outputs:
    """Texts of outputs whose names end in `_bytes` as objects with base64."""
    marked = [o.name for o in contract.outputs if o.dtype is DType.string and o.name.endswith("_bytes")]
    if not any(name in names for name in marked):
        return outputs
    encoded = dict(outputs)
    for name in marked:
        values = np.empty(outputs[name].shape, dtype=object)
        for place, text in np.ndenumerate(outputs[name]):
            values[place] = {"b64": b64encode(str(text).encode()).decode()}
        encoded[name] = values
    return encoded


_CODEC = TensorflowCodec()
ENTRIES = (
    Entry("POST", "/v1/models/{model}:{verb}", "infer", codec=_CODEC),
    Entry("POST", "/v1/models/{model}/versions/{version}:{verb}", "infer", codec=_CODEC),
    Entry("POST", "/v1/models/{model}/labels/{label}:{verb}", "infer", codec=_CODEC),
)
