"""The few bytes around an answer: request ids, header blocks, and reading a predict body by its content type."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

import msgspec

from fairway.core.contract import Contract
from fairway.core.errors import MalformedInput, UnsupportedContent
from fairway.core.request import Inputs, Request
from fairway.inference.rows import SplitFrame, from_csv, from_instances, from_records, from_split
from fairway.serving.v2 import check_wanted, decode_body, tensors

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}\Z")
_serial = itertools.count()
_process = ""


def new_request_id() -> str:
    """Unique across processes and restarts: 16 random hex digits of the process, then a serial number."""
    global _process  # noqa: PLW0603 - made at first use, so that a forked worker has its own
    if not _process:
        _process = os.urandom(8).hex()
    return f"{_process}-{next(_serial):x}"


def request_id_from(header: bytes | None) -> str:
    """The caller's `X-Request-Id` if it is short and plain, else a new one."""
    if header is not None and _REQUEST_ID.match(header):
        return header.decode("ascii")
    return new_request_id()


def read_request(
    model: str, version: str | None, contract: Contract, body: bytes, headers: Mapping[bytes, bytes]
) -> tuple[Request, str | None]:
    """A predict body of any form accepted on the infer path, and V2's `id` to echo.

    JSON: V2 `inputs`, or exactly one of `dataframe_split`, `dataframe_records`, `instances`. CSV: `text/csv` or
    `application/csv`. Raises MalformedInput, ContractViolation or UnsupportedContent.
    """
    request_id = request_id_from(headers.get(b"x-request-id"))
    key = headers.get(b"x-fairway-key")
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedContent("Compressed bodies are not supported.", hint="Send the body as it is.")
    echoed: str | None = None
    wanted: tuple[str, ...] | None = None
    key_text = key.decode("latin-1") if key is not None else None
    if kind == b"application/json" or kind.endswith(b"+json") or not kind:
        parsed = decode_body(body)
        inputs = _json_inputs(
            parsed.inputs, parsed.dataframe_split, parsed.dataframe_records, parsed.instances, contract
        )
        if inputs is None:
            assert parsed.inputs is not None
            inputs = tensors(parsed.inputs)
        echoed = parsed.id
        if parsed.outputs is not None:
            wanted = tuple(output.name for output in parsed.outputs)
            check_wanted(wanted, contract)
        if key_text is None and parsed.parameters is not None and "key" in parsed.parameters:
            key_text = str(parsed.parameters["key"])
    elif kind in (b"text/csv", b"application/csv"):
        inputs = from_csv(body, contract)
    else:
        raise UnsupportedContent(
            f"Content type {kind.decode('latin-1')!r} is not read here.",
            hint="Send application/json or text/csv.",
        )
    request = Request(
        model=model,
        version=version,
        inputs=inputs,
        request_id=request_id,
        key=key_text,
        wanted=wanted,
        protocol="rest",
    )
    return request, echoed


def _json_inputs(
    inputs: object,
    split: msgspec.Raw | None,
    records: msgspec.Raw | None,
    instances: msgspec.Raw | None,
    contract: Contract,
) -> Inputs | None:
    """Row forms as inputs; None when the body is V2. Exactly one form may be there."""
    forms = {"inputs": inputs, "dataframe_split": split, "dataframe_records": records, "instances": instances}
    given = [name for name, value in forms.items() if value is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} at once" if given else "none of them"
        raise MalformedInput(f"The body needs exactly one of {', '.join(forms)}; it has {found}.")
    try:
        if split is not None:
            return from_split(msgspec.json.decode(split, type=SplitFrame))
        if records is not None:
            return from_records(msgspec.json.decode(records, type=list[dict[str, object]]), contract)
        if instances is not None:
            return from_instances(msgspec.json.decode(instances, type=list[object]), contract)
    except msgspec.DecodeError as error:
        raise MalformedInput(f"{given[0]} cannot be read: {error}.") from None
    except RecursionError:
        raise MalformedInput(f"{given[0]} is nested too deeply.") from None
    return None
