"""V2 answers: what is the same in every answer of a version is written once, and only the numbers each time.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; Triton,
docs/protocol/extension_{binary_data,classification}.md.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from fairway.core.columns import Array, Outputs
from fairway.core.contract import Contract, DType, Output
from fairway.serving.formats import JSON
from fairway.serving.formats.text import iso_texts
from fairway.serving.v2_raw import DATATYPES, write_raw, write_texts

_encode = msgspec.json.Encoder().encode
_PLANS = 1024


class Form(msgspec.Struct, frozen=True, gc=False):
    """How a caller wants its answer.

    `kind` is a name of `formats.TYPES`; the rest belongs to V2's JSON: the `id` to echo, whether outputs come as raw
    bytes unless `raw` says otherwise for one, and the number of classes of outputs wanted as classes.
    """

    id: str | None = None
    kind: str = JSON
    all_raw: bool = False
    raw: tuple[tuple[str, bool], ...] = ()
    classes: tuple[tuple[str, int], ...] = ()


PLAIN = Form()


class _Part(msgspec.Struct, frozen=True, gc=False):
    """One output: `opening` goes to where the number of rows stands, `middle` from there to the data."""

    output: Output
    opening: bytes
    middle: bytes
    raw: bool
    classes: int
    as_is: bool
    """Its numbers go into JSON as numpy gives them."""


class Plan:
    """The answers of one version in one form."""

    def __init__(
        self, contract: Contract, model: str, version: str, wanted: tuple[str, ...] | None, form: Form
    ) -> None:
        self.contract = contract
        raw, classes = dict(form.raw), dict(form.classes)
        head = f'{{"model_name":{_json(model)},"model_version":{_json(version)},"outputs":['
        parts: list[_Part] = []
        for output in contract.outputs:
            if wanted is not None and output.name not in wanted:
                continue
            top = classes.get(output.name, 0)
            is_raw = raw.get(output.name, form.all_raw)
            parts.append(
                _Part(
                    output,
                    (head + _opening(output, "BYTES" if top else DATATYPES[output.dtype])).encode(),
                    _middle(output.shape, is_raw),
                    is_raw,
                    top,
                    output.dtype is not DType.timestamp,
                )
            )
            head = "},"
        self._parts = parts
        self._empty = (head + "]").encode()
        self.any_raw = any(part.raw for part in parts)

    def write(self, outputs: Outputs, request_id: str | None) -> tuple[bytes, int | None]:
        """The body, and how many of its bytes are JSON where raw bytes follow."""
        pieces: list[bytes] = []
        data: list[bytes] = []
        for part in self._parts:
            output = part.output
            values = outputs[output.name]
            if part.classes:
                values = classified(output, values, part.classes)
            shape = values.shape
            middle = part.middle if shape[1:] == output.shape else _middle(shape[1:], part.raw)
            pieces.append(part.opening)
            pieces.append(b"%d" % shape[0])
            pieces.append(middle)
            if part.raw:
                raw = write_texts(values) if part.classes else write_raw(output, values)
                data.append(raw)
                pieces.append(b"%d}" % len(raw))
            else:
                flat = values if len(shape) == 1 else values.reshape(-1)
                pieces.append(
                    _encode(flat.tolist() if part.as_is or part.classes else iso_texts(flat).tolist())
                )
        closing = b"}]" if pieces else self._empty
        pieces.append(
            closing + b"}" if request_id is None else closing + b',"id":' + _encode(request_id) + b"}"
        )
        if not self.any_raw:
            return b"".join(pieces), None
        size = sum(map(len, pieces))
        return b"".join(pieces + data), size


_plans: dict[tuple[str, str, int, tuple[str, ...] | None, Form | None], Plan] = {}


def plan(
    contract: Contract, digest: str, model: str, version: int, wanted: tuple[str, ...] | None, form: Form
) -> Plan:
    """The plan of a version's answers, kept for the next one. (By digest, not by the live version: a version that is
    unloaded must not be held here.)"""
    shape = None if not (form.all_raw or form.raw or form.classes) else msgspec.structs.replace(form, id=None)
    key = (digest, model, version, wanted, shape)
    found = _plans.get(key)
    if found is None or found.contract is not contract:
        if len(_plans) >= _PLANS:
            _plans.clear()
        found = _plans[key] = Plan(contract, model, str(version), wanted, form)
    return found


def classified(output: Output, values: Array, top: int) -> Array:
    """Each row's `top` highest values as `value:index` or `value:index:label`, best first: `[n, top]` of text."""
    flat = values.reshape(len(values), -1)
    order = np.argsort(-flat.astype(np.float64), axis=1, kind="stable")[:, :top]
    labels = output.labels if len(output.labels) == flat.shape[1] else ()
    result = np.empty(order.shape, dtype=object)
    for row, places in enumerate(order.tolist()):
        for rank, place in enumerate(places):
            text = f"{flat[row, place]:f}:{place}"
            result[row, rank] = f"{text}:{labels[place]}" if labels else text
    return result


def _json(value: Any) -> str:
    return _encode(value).decode()


def _opening(output: Output, datatype: str) -> str:
    return f'{{"name":{_json(output.name)},"datatype":"{datatype}","shape":['


def _middle(shape: tuple[int, ...], raw: bool) -> bytes:
    rest = "".join(f",{size}" for size in shape)
    return f'{rest}],"{"parameters" if raw else "data"}":'.encode() + (
        b'{"binary_data_size":' if raw else b""
    )
