"""`/invocations`: MLflow's scoring server, SageMaker's and Vertex AI's containers, which all post there or alike.

They differ in bodies and agree in meaning, so the content type decides: MLflow's JSON (Vertex' is among it), CSV with
a header row (MLflow) or without (SageMaker), JSON Lines, npy, Arrow, Parquet. The answer is JSON unless `Accept` likes
another form better. Errors carry MLflow's keys and Fairway's own.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any, NamedTuple

import msgspec

from fairway.core.columns import Outputs
from fairway.core.contract import Contract
from fairway.core.errors import ContractViolation, UnsupportedContent
from fairway.inference.live import LiveVersion
from fairway.inference.rows import from_cells
from fairway.serving import formats, mlflow_values
from fairway.serving.entrance import JSON, Entry, Headers, Heading, Reading, Target, Written
from fairway.serving.errors import error_answer, error_text
from fairway.serving.keyed import take_column
from fairway.serving.mlflow_values import Wrapping
from fairway.serving.row_answers import by_row, to_json, wanted_outputs

ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_OUTPUTS = re.compile(r"(?:^|[\s;,&])fairway-outputs=([^\s;&]+)")
_ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}


class Form(NamedTuple):
    """How the answer is to be written; `header` is for CSV."""

    kind: str
    outputs: tuple[str, ...]
    wrapping: Wrapping
    header: bool
    attributes: bytes | None


class InvocationsCodec:
    """`beside` stands beside `predictions` in every JSON answer; `bare` takes JSON rows without a name too."""

    def __init__(
        self, beside: dict[str, str] | None = None, *, bare: bool = False, protocol: str = "invocations"
    ) -> None:
        self.protocol = protocol
        self._beside = beside or {}
        self._bare = bare

    def read(
        self, target: Target, heading: Heading, body: bytes, headers: Headers, contract: Contract
    ) -> Reading:
        content_type = headers.get(b"content-type")
        keyed = bool(heading.key_name and heading.key)
        if keyed and not body:  # whatever type curl says it has
            content_type = None
        kind = formats.kind_of(content_type)
        accept = headers.get(b"accept")
        attributes = headers.get(ATTRIBUTES)
        named = None
        wrapping = Wrapping.named
        keys: list[bytes] | None = None
        if kind == formats.JSON:
            _check_parameters(content_type)
            inputs, named, wrapping, keys = mlflow_values.read_rows(
                body,
                contract,
                bare=self._bare,
                key_name=heading.key_name,
                keyed=keyed,
            )
        elif kind == "csv":
            inputs = formats.read_rows(kind, _with_header(body, contract, content_type), contract)
        else:
            inputs = formats.read_rows(kind, body, contract)
        if heading.key_name and keys is None:
            inputs, keys = take_column(inputs, heading.key_name, contract)
        if named is None and attributes is not None:
            found = _OUTPUTS.search(attributes.decode("latin-1"))
            named = None if found is None else tuple(found[1].split(","))
        form = Form(
            formats.negotiate(accept),
            wanted_outputs(contract, headers, named),
            wrapping,
            b"header=present" in (accept or b"").replace(b" ", b"").lower(),
            attributes,
        )
        return Reading(heading.request(inputs, self.protocol, form.outputs, keys), form)

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> Written:
        form: Form = reading.notes
        names = form.outputs
        headers = () if form.attributes is None else ((ATTRIBUTES, form.attributes),)
        if form.kind != formats.JSON:
            body = formats.write_outputs(form.kind, outputs, live.contract, names)
            if form.kind == "csv" and not form.header:
                body = body.partition(b"\n")[2]
            return Written(body, formats.content_type(form.kind), headers)
        predictions = by_row(live.contract, outputs, names)
        answer: Any = {"predictions": predictions, **self._beside}
        if form.wrapping is not Wrapping.named:
            answer = predictions if form.wrapping is Wrapping.bare else predictions[0]
        return Written(to_json(answer, outputs, names, tokens=False), JSON, headers)

    def word(self, error: Exception, request_id: str, *, safe: bool) -> tuple[int, Written]:
        text = error_text(error, safe=safe)
        status, body = error_answer(error, request_id, safe=safe, text=text)
        if isinstance(error, UnsupportedContent):
            return int(status), Written(text.encode(), b"text/plain; charset=utf-8")
        code = _ERROR_CODES.get(status, "BAD_REQUEST")
        if isinstance(error, ContractViolation):
            code = "INVALID_PARAMETER_VALUE"
        told: dict[str, Any] = {"error_code": code, "message": text, **msgspec.json.decode(body)}
        return int(status), Written(msgspec.json.encode(told))


def _check_parameters(content_type: bytes | None) -> None:
    """A parameter that is not understood may change what the body means (MLflow 1's `format=pandas-split` did)."""
    if content_type is None or b";" not in content_type:
        return
    given = [part.partition("=")[0].strip().lower() for part in content_type.decode("latin-1").split(";")[1:]]
    unknown = [name for name in given if name not in ("charset", "")]
    if unknown:
        raise UnsupportedContent(f"Unrecognized content type parameters: {', '.join(unknown)[:100]}.")


def _with_header(body: bytes, contract: Contract, content_type: bytes | None) -> bytes:
    """CSV with a header row: the one it has, or, for rows without (RFC 4180's `header=absent`, and whatever begins
    with a row of numbers that names no field), the fields in their order."""
    told = (content_type or b"").replace(b" ", b"").lower()
    if b"header=present" in told:
        return body
    body = body.removeprefix(b"\xef\xbb\xbf")
    if b"header=absent" not in told and not _begins_with_data(body, contract):
        return body
    header = io.StringIO(newline="")
    csv.writer(header, lineterminator="\n").writerow([field.name for field in contract])
    return header.getvalue().encode() + body


def _begins_with_data(body: bytes, contract: Contract) -> bool:
    """Whether the first line has a cell for each field, names none of them, and fits every number."""
    line = body.lstrip(b"\r\n").partition(b"\n")[0].rstrip(b"\r")
    try:
        cells = next(csv.reader([line.decode()], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return False
    names = {field.name for field in contract}
    if len(cells) != len(contract.inputs) or not names.isdisjoint(cell.strip() for cell in cells):
        return False
    read = from_cells({field.name: [cell] for field, cell in zip(contract, cells, strict=True)}, contract)
    numbers = [read[field.name][0] for field in contract if field.dtype.is_numeric]
    return any(value is not None for value in numbers) and not any(isinstance(v, str) for v in numbers)


CODEC = InvocationsCodec()
ENTRIES = (Entry("POST", "/invocations", "infer", codec=CODEC),)
