"""A predict body of V2's infer path, in any of its forms, as a request, and how its answer is to be written."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import numpy as np

from fairway.core.contract import Contract
from fairway.core.errors import MalformedInput, Problem
from fairway.core.request import Inputs, Request
from fairway.inference.entries import key_bytes, keys_of
from fairway.inference.rows import SplitFrame, from_instances, from_records, from_split
from fairway.serving import formats
from fairway.serving.entrance import Headers, Heading
from fairway.serving.keyed import take_column
from fairway.serving.v2 import DecodedBody, InferBody, Wanted, decode_body
from fairway.serving.v2_answer import PLAIN, Form
from fairway.serving.v2_raw import DATATYPES, read_raw

_HEADER_LENGTH = b"inference-header-content-length"
_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
_ROW_FORMS = ("dataframe_split", "dataframe_records", "instances")
_SMALL_BODY = 1024
_MOST_CLASSES = 2**31 - 1
_RAW_ANSWER = Form(all_raw=True)


def read_request(heading: Heading, contract: Contract, body: bytes, headers: Headers) -> tuple[Request, Form]:
    """JSON: V2's `inputs` (with or without raw tensors behind), or exactly one of `dataframe_split`,
    `dataframe_records`, `instances`; else rows in one of `formats.TYPES`.

    Raises MalformedInput, ContractViolation, UnsupportedContent or NotAcceptable.
    """
    accept = headers.get(b"accept")
    keys: list[bytes] | None = None
    answer = formats.JSON if accept is None or accept == b"*/*" else formats.negotiate(accept)
    length = headers.get(_HEADER_LENGTH)
    kind = headers.get(b"content-type")
    if heading.key_name and not body and heading.key is not None:  # whatever type curl says it has
        return _request(heading, {}), PLAIN if answer == formats.JSON else Form(kind=answer)
    if length is None and kind != b"application/json":
        form = formats.kind_of(kind)
        if form != formats.JSON:
            inputs = formats.read_rows(form, body, contract)
            if heading.key_name:
                inputs, keys = take_column(inputs, heading.key_name, contract)
            return _request(heading, inputs, keys), PLAIN if answer == formats.JSON else Form(kind=answer)
    if heading.key_name and length is None and len(body) <= _SMALL_BODY and answer == formats.JSON:
        keyed = _read_key(heading, body)
        if keyed is not None:
            return keyed, PLAIN
    size = None if length is None else _header_size(length, body)
    if size == 0:
        return _request(heading, _bare(body, contract)), _RAW_ANSWER
    if heading.key_name:
        decoded, inputs, keys = _read_keyed(heading, contract, body, size)
    else:
        decoded = decode_body(body, size)
        inputs = _one_form(decoded, contract)
    if decoded.outputs is None and decoded.parameters is None:
        plain = decoded.id is None and answer == formats.JSON
        return _request(heading, inputs, keys), PLAIN if plain else Form(decoded.id, answer)
    wanted = None
    raw: tuple[tuple[str, bool], ...] = ()
    classes: tuple[tuple[str, int], ...] = ()
    if decoded.outputs:
        wanted = tuple(output.name for output in decoded.outputs)
        raw, classes = _ways(decoded.outputs, contract)
    parameters = decoded.parameters or {}
    all_raw = parameters.get("binary_data_output", False)
    if type(all_raw) is not bool:
        raise MalformedInput("The parameter binary_data_output must be true or false.")
    request = _with_parameters(heading, inputs, wanted, parameters, keys)
    return request, Form(decoded.id, answer, all_raw, raw, classes)


class _KeyBody(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    parameters: dict[str, str]


_key_body = msgspec.json.Decoder(_KeyBody)


def _read_key(heading: Heading, body: bytes) -> Request | None:
    """A body that is one key of text as a parameter and nothing else, which is what most callers with a key send."""
    try:
        parameters = _key_body.decode(body).parameters
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    text = parameters.get(heading.key_name)
    if text is None or len(parameters) > 1:
        return None
    return heading.request({}, "rest", None, [key_bytes(text)])


def _read_keyed(
    heading: Heading, contract: Contract, body: bytes, size: int | None
) -> tuple[DecodedBody, Inputs, list[bytes] | None]:
    """A body for a model with precomputed answers, which may have keys, or nothing but keys: as the parameter that is
    called as the key is, a member of that name, an input or a column of that name, or the parameter `key`."""
    name = heading.key_name
    decoded = decode_body(body, size, may_be_empty=True)
    parameters = decoded.parameters or {}
    given = parameters.get(name, parameters.get("key"))
    if given is None:
        given = _member(body[:size], name)
    keys = None if given is None else keys_of(given)
    bare = decoded.rows is not None and decoded.inputs is None and not _row_forms(decoded.rows)
    if bare and (keys is not None or heading.key is not None):
        return decoded, {}, keys
    inputs, column = take_column(_one_form(decoded, contract), name, contract)
    return decoded, inputs, column if keys is None else keys


def _member(body: bytes, name: str) -> Any:
    """A member of a JSON object that V2 does not know; None where there is none."""
    if name.encode() not in body:
        return None
    value = _members.decode(body).get(name)
    return None if value is None else msgspec.json.decode(value)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _request(heading: Heading, inputs: Inputs, keys: list[bytes] | None = None) -> Request:
    if keys is not None:
        return heading.request(inputs, "rest", None, keys)
    return Request(
        model=heading.model,
        version=heading.version,
        inputs=inputs,
        request_id=heading.request_id,
        key=heading.key,
        protocol="rest",
        deadline=heading.deadline,
        caller=heading.caller,
    )


def _with_parameters(
    heading: Heading,
    inputs: Inputs,
    wanted: tuple[str, ...] | None,
    parameters: dict[str, Any],
    keys: list[bytes] | None = None,
) -> Request:
    """V2's parameters: `key` decides the arm of a split; Triton's `timeout` is a deadline, in microseconds. What
    nobody here knows is passed over, as the protocol says."""
    used = [name for name in _SEQUENCES if parameters.get(name)]
    if used:
        raise MalformedInput(
            f"{used[0]} makes this part of a sequence, and no model here keeps state between requests.",
            (Problem("is not supported", used[0]),),
        )
    key, timeout, deadline = parameters.get("key"), parameters.get("timeout"), heading.deadline
    if keys is not None:
        key = keys[0].decode() if keys else None
    elif isinstance(key, list | dict):
        raise MalformedInput("The parameter key must be text, a number, true or false.")
    if timeout:
        if type(timeout) is not int or timeout < 0:
            raise MalformedInput("The parameter timeout must be a whole number of microseconds.")
        until = time.perf_counter() + timeout / 1e6
        deadline = until if deadline is None else min(deadline, until)
    return Request(
        model=heading.model,
        version=heading.version,
        inputs=inputs,
        request_id=heading.request_id,
        key=heading.key or (None if key is None else str(key)),
        wanted=wanted,
        protocol="rest",
        deadline=deadline,
        caller=heading.caller,
        keys=keys,
    )


def _header_size(text: bytes, body: bytes) -> int:
    if not text.isdigit() or len(text) > 12 or int(text) > len(body):
        raise MalformedInput(
            f"Inference-Header-Content-Length is {text[:40].decode('latin-1')!r}; it must be how many of the body's "
            f"{len(body)} bytes are JSON."
        )
    return int(text)


def _bare(body: bytes, contract: Contract) -> Inputs:
    """Nothing but raw bytes: the model's only input, as many rows as there are (Triton's raw binary request)."""
    if len(contract.inputs) != 1:
        raise MalformedInput(
            f"Raw bytes without JSON are read for models with one input; this one has {len(contract.inputs)}."
        )
    field = contract.inputs[0]
    datatype = DATATYPES[field.dtype]
    if datatype == "BYTES":
        rows = 1  # as Triton: one element, whose length stands before it
    else:
        width = max(1, math.prod(field.shape) * np.dtype(field.dtype.value).itemsize)
        rows = len(body) // width
    try:
        return {field.name: read_raw(datatype, [rows, *field.shape], body, 0, len(body))}
    except MalformedInput as error:
        raise MalformedInput("The raw bytes cannot be read.", (Problem(str(error), field.name),)) from None


def _ways(
    outputs: list[Wanted], contract: Contract
) -> tuple[tuple[tuple[str, bool], ...], tuple[tuple[str, int], ...]]:
    """Which outputs are to be raw or not, and which as classes. Raises MalformedInput for names nobody knows."""
    known = {output.name: output for output in contract.outputs}
    unknown = [output.name for output in outputs if output.name not in known]
    if unknown:
        raise MalformedInput(
            f"This model's outputs are {', '.join(known)}.",
            tuple(Problem("is not an output", name[:200]) for name in unknown[:100]),
        )
    raw: list[tuple[str, bool]] = []
    classes: list[tuple[str, int]] = []
    for output in outputs:
        options = output.parameters
        if options is None:
            continue
        if options.shared_memory_region is not None:
            raise MalformedInput("Answers are not written to shared memory here.")
        if options.binary_data is not None:
            raw.append((output.name, options.binary_data))
        top = options.classification
        if top:
            if top < 0 or top % 1 or not known[output.name].dtype.is_numeric:
                raise MalformedInput(
                    f"{output.name!r} cannot be answered as {top:g} classes: it must hold numbers, and the number of "
                    "classes be a whole one."
                )
            classes.append((output.name, int(min(top, _MOST_CLASSES))))
    return tuple(raw), tuple(classes)


def _row_forms(sent: InferBody) -> list[str]:
    """The forms of rows that a body has."""
    return [name for name in _ROW_FORMS if bytes(getattr(sent, name)) not in (b"", b"null")]


def _one_form(body: DecodedBody, contract: Contract) -> Inputs:
    """The inputs of a body, which must come in exactly one form."""
    sent = body.rows
    if sent is None:
        assert body.inputs is not None
        return body.inputs
    given = _row_forms(sent)
    if sent.inputs:
        given.insert(0, "inputs")
    if len(given) != 1:
        found = f"{' and '.join(given)} at once" if given else "none of them"
        raise MalformedInput(
            f"The body needs exactly one of inputs, {', '.join(_ROW_FORMS)}; it has {found}."
        )
    try:
        if given == ["dataframe_split"]:
            return from_split(msgspec.json.decode(sent.dataframe_split, type=SplitFrame))
        if given == ["dataframe_records"]:
            return from_records(
                msgspec.json.decode(sent.dataframe_records, type=list[dict[str, object]]), contract
            )
        if given == ["instances"]:
            return from_instances(msgspec.json.decode(sent.instances, type=list[object]), contract)
    except msgspec.DecodeError as error:
        raise MalformedInput(f"{given[0]} cannot be read: {error}.") from None
    except UnicodeDecodeError:
        raise MalformedInput(f"{given[0]} is not valid UTF-8.") from None
    except RecursionError:
        raise MalformedInput(f"{given[0]} is nested too deeply.") from None
    assert body.inputs is not None
    return body.inputs
