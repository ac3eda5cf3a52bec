"""OpenAPI 3.1 documents made from contracts: what each model takes and gives, with an answer it really gave.

Source: https://spec.openapis.org/oas/v3.1.0, whose schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from fairway.core.bundle import GoldenRows
from fairway.core.conform import EXACT_IN_FLOAT64
from fairway.core.contract import Action, Contract, DType, Field, Output, Task
from fairway.core.release import VERSION
from fairway.serving.formats import TYPES
from fairway.serving.v2 import described_shape
from fairway.serving.v2_raw import DATATYPES

Json = dict[str, Any]


class Described(msgspec.Struct, frozen=True):
    """A model as a document tells of it."""

    name: str
    versions: tuple[str, ...]
    contract: Contract
    golden: GoldenRows
    description: str = ""


def document(models: Sequence[Described], *, title: str, server: bool) -> Json:
    """The document of these models; with `server`, of the paths that belong to no model too."""
    paths: Json = {}
    schemas: Json = {"Error": _ERROR}
    for model in models:
        schemas |= _schemas(model)
        paths |= _paths(model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": VERSION,
            "description": "Predictions by the Open Inference Protocol V2, and by rows in other forms.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"key": []}, {"bearer": []}],
        "tags": [{"name": model.name} for model in models],
        "paths": (_SERVER_PATHS if server else {}) | paths,
        "components": {
            "schemas": schemas,
            "parameters": _PARAMETERS,
            "responses": _RESPONSES,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def example_row(contract: Contract, golden: GoldenRows) -> Json | None:
    """The first golden row by field, in wire form; None where there is none."""
    if not all(golden.inputs.get(field.name) for field in contract) or not contract.inputs:
        return None
    return {field.name: golden.inputs[field.name][0] for field in contract}


def row_schema(contract: Contract) -> Json:
    """One row as an object by field name."""
    return {
        "type": "object",
        "required": [field.name for field in contract],
        "properties": {field.name: field_schema(field, matrix=contract.is_matrix) for field in contract},
        "additionalProperties": contract.extra_fields != "reject",
    }


def field_schema(field: Field, *, matrix: bool = False) -> Json:
    """What one value of a field may be: what the contract refuses is refused here, the rest is said in words."""
    if field.shape:
        schema = _value_schema(msgspec.structs.replace(field, shape=()), matrix=False)
        for size in reversed(field.shape):
            schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    else:
        schema = _value_schema(field, matrix=matrix)
    words = [field.description] if field.description else []
    if not field.shape:
        words += _told(field)
    return schema | ({"description": " ".join(words)} if words else {})


def _value_schema(field: Field, *, matrix: bool) -> Json:
    schema: Json
    if field.dtype is DType.string:
        schema = {"type": "string"}
    elif field.dtype is DType.timestamp:
        schema = {"type": "string", "format": "date-time"}
    elif field.dtype is DType.bool:
        schema = {"type": ["boolean", "integer"], "minimum": 0, "maximum": 1}  # 0 and 1 stand for them
    else:
        low, high = _limits(field, matrix=matrix)
        schema = {"type": "integer" if field.dtype.is_integer else "number"}
        schema |= {"minimum": low} if low is not None else {}
        schema |= {"maximum": high} if high is not None else {}
    if field.categories and field.rules.on_category is Action.reject:
        schema["enum"] = [category.value for category in field.categories]
        if field.dtype is DType.bool:
            schema["enum"] += [int(value) for value in schema["enum"]]
    if field.rules.on_null is not Action.reject:
        types = schema["type"]
        schema["type"] = [*([types] if isinstance(types, str) else types), "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _limits(field: Field, *, matrix: bool) -> tuple[float | None, float | None]:
    """The numbers beyond which a value is refused."""
    lows: list[float] = []
    highs: list[float] = []
    if field.dtype.is_integer:
        kind = np.iinfo(field.dtype.value)
        exact = EXACT_IN_FLOAT64 if field.nullable or matrix else kind.max
        lows.append(max(kind.min, -exact))
        highs.append(min(kind.max, exact))
    elif field.dtype is not DType.float64:
        highs.append(float(np.finfo(np.dtype(field.dtype.value)).max))
        lows.append(-highs[0])
    limits = [(field.minimum, field.maximum)] if field.rules.on_range is Action.reject else []
    if field.fence is not None and field.rules.on_outlier is Action.reject:
        limits.append(field.fence)
    lows += [low for low, _ in limits if low is not None]
    highs += [high for _, high in limits if high is not None]
    return max(lows, default=None), min(highs, default=None)


def _told(field: Field) -> list[str]:
    """What is let through, mended or counted."""
    words = []
    if field.rules.on_null is Action.impute:
        words.append(f"Null becomes {field.impute_with!r}.")
    numeric = field.dtype.is_numeric and field.dtype is not DType.bool
    if numeric and None not in (field.minimum, field.maximum) and field.rules.on_range is not Action.reject:
        words.append(
            f"Seen in training: {field.minimum:g} to {field.maximum:g}; {_DOES[field.rules.on_range]}."
        )
    if field.categories and field.rules.on_category is not Action.reject:
        shown = ", ".join(repr(category.value) for category in field.categories[:12])
        more = ", ..." if len(field.categories) > 12 else ""
        words.append(f"Seen in training: {shown}{more}; {_DOES[field.rules.on_category]}.")
    return words


_DOES = {
    Action.warn: "others are let through and counted",
    Action.clip: "others are moved to the nearest limit",
    Action.impute: "others are replaced",
}


def _schemas(model: Described) -> Json:
    contract, name = model.contract, model.name
    names = [field.name for field in contract]
    refer = f"#/components/schemas/{name}.row"
    whole = [names] if not contract.is_matrix or len(names) < 2 else None
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"} | ({"enum": names} if whole else {}),
            "datatype": {"enum": sorted({*DATATYPES.values(), "BF16"})},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    more: Json = {
        "id": {"type": ["string", "null"], "description": "Comes back in the answer."},
        "outputs": {
            "type": ["array", "null"],
            "description": "The outputs wanted; all without it.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"enum": [output.name for output in contract.outputs]},
                    "parameters": {"type": ["object", "null"], "properties": _OUTPUT_PARAMETERS},
                },
            },
        },
        "parameters": {
            "type": ["object", "null"],
            "properties": _REQUEST_PARAMETERS,
            "description": "Others are passed over, but for `timeout`, the microseconds to answer in.",
        },
    }
    forms = ("inputs", "dataframe_records", "dataframe_split", "instances")

    def body(form: str, schema: Json) -> Json:
        others = {other: {"type": "null"} for other in forms if other != form}
        return {"type": "object", "required": [form], "properties": {form: schema} | more | others}

    matrix = ", or one [rows, fields] matrix under any other name." if not whole else "."
    v2 = {
        "type": "array",
        "minItems": 1,
        "items": tensor,
        "description": f"One tensor a field{matrix}",
        "examples": [[_tensor_of(field) for field in contract]],
    }
    rows = {"type": "array", "minItems": 1, "items": {"$ref": refer}}
    return {
        f"{name}.row": row_schema(contract),
        f"{name}.rows": body("dataframe_records", rows),
        f"{name}.v2": body("inputs", v2),
        f"{name}.answer": _answer_schema(model),
    }


def _tensor_of(field: Field) -> Json:
    return {"name": field.name, "datatype": DATATYPES[field.dtype], "shape": described_shape(field)}


def _answer_schema(model: Described) -> Json:
    names = [output.name for output in model.contract.outputs]
    output = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"enum": names},
            "datatype": {"enum": sorted(set(DATATYPES.values()))},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {"type": "array", "description": "Row by row; NaN and infinity are null."},
            "parameters": {"type": "object"},
        },
    }
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": model.name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": output},
        },
        "description": _ANSWERS[model.contract.task],
    }


_ANSWERS = {
    Task.classification: "`label` [rows] and `probabilities` [rows, classes].",
    Task.regression: "`prediction` [rows].",
    Task.anomaly: "`label` [rows] and `score` [rows].",
    Task.other: "The model's own outputs.",
}


def _paths(model: Described) -> Json:
    base, tag = f"/v2/models/{_escaped(model.name)}", [model.name]
    version = {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "A number or an alias.",
        "schema": {"type": "string", "examples": list(model.versions)},
    }

    def described(suffix: str, summary: str, schema: Json) -> Json:
        return {
            "tags": tag,
            "summary": summary,
            "operationId": f"{model.name}.{suffix}",
            "responses": {"200": _json(schema, "Said."), **_errors("401", "403", "404", "429", "503")},
        }

    metadata = described("metadata", "Inputs and outputs", {"type": "object", "required": ["name", "inputs"]})
    ready = described("ready", "Whether it can answer", {"type": "object", "required": ["name", "ready"]})
    return {
        f"{base}/infer": {"post": _infer(model, "infer")},
        f"{base}/versions/{{version}}/infer": {
            "parameters": [version],
            "post": _infer(model, "infer_version"),
        },
        base: {"get": metadata},
        f"{base}/ready": {"get": ready},
    }


def _infer(model: Described, operation: str) -> Json:
    return {
        "tags": [model.name],
        "summary": f"Predict with {model.name}",
        "operationId": f"{model.name}.{operation}",
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS],
        "requestBody": {"required": True, "content": _bodies(model)},
        "responses": {
            "200": {
                "description": "One answer a row.",
                "headers": _ANSWER_HEADERS,
                "content": _answers(model),
            },
            **_errors("400", "401", "403", "404", "406", "413", "415", "429", "503", "504"),
        },
    }


def _bodies(model: Described) -> Json:
    contract = model.contract
    row = example_row(contract, model.golden)
    refer = "#/components/schemas/"
    json_body: Json = {
        "schema": {
            "oneOf": [{"$ref": f"{refer}{model.name}.rows"}, {"$ref": f"{refer}{model.name}.v2"}],
        }
    }
    if row is not None:
        json_body["examples"] = {
            "rows": {"summary": "Rows by field name", "value": {"dataframe_records": [row]}},
            "v2": {"summary": "Open Inference Protocol V2", "value": {"inputs": v2_inputs(contract, row)}},
        }
    bodies: Json = {"application/json": json_body}
    for kind, names in TYPES.items():
        if kind == "json":
            continue
        text = kind in ("csv", "jsonlines")
        bodies[names[0]] = {"schema": {"type": "string"} if text else {"type": "string", "format": "binary"}}
        if kind == "jsonlines" and row is not None:
            bodies[names[0]]["example"] = msgspec.json.encode(row).decode() + "\n"
    return bodies


def v2_inputs(contract: Contract, row: Json) -> list[Json]:
    """One row as V2 tensors, a tensor a field."""
    return [
        {
            "name": field.name,
            "shape": [1, *field.shape],
            "datatype": DATATYPES[field.dtype],
            "data": _flat(row[field.name]),
        }
        for field in contract
    ]


def _flat(value: Any) -> list[Any]:
    return [part for inner in value for part in _flat(inner)] if isinstance(value, list) else [value]


def _answers(model: Described) -> Json:
    outputs = model.contract.outputs
    golden = model.golden.outputs
    answers: Json = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.name}.answer"}}}
    if all(golden.get(output.name) for output in outputs) and outputs:
        answers["application/json"]["example"] = {
            "model_name": model.name,
            "model_version": model.versions[-1] if model.versions else "1",
            "outputs": [_example_output(output, golden[output.name][0]) for output in outputs],
        }
    for kind, names in TYPES.items():
        if kind != "json":
            text = kind in ("csv", "jsonlines")
            answers[names[0]] = {
                "schema": {"type": "string"} if text else {"type": "string", "format": "binary"}
            }
    answers["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return answers


def _example_output(output: Output, value: Any) -> Json:
    data = [
        None if part in ("NaN", "Infinity", "-Infinity") and output.dtype.is_float else part
        for part in _flat(value)
    ]
    return {
        "name": output.name,
        "datatype": DATATYPES[output.dtype],
        "shape": [1, *output.shape],
        "data": data,
    }


def _escaped(name: str) -> str:
    """A model's name in a path template (names are letters, digits, `.`, `_` and `-`)."""
    return name.replace("{", "%7B").replace("}", "%7D")


def _json(schema: Json, description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> Json:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


_ERROR: Json = {
    "type": "object",
    "required": ["error", "code", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "What was wrong, where, and what to do."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "request_id": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["reason"],
                "properties": {
                    "reason": {"type": "string"},
                    "field": {"type": "string"},
                    "row": {"type": "integer"},
                },
            },
        },
    },
}
_REASONS = {
    "400": "The body cannot be read, or does not fit the contract: every problem with field and row.",
    "401": "An API key is needed.",
    "403": "The API key does not allow this.",
    "404": "No such model or version.",
    "406": "The answer cannot be written as asked.",
    "413": "More bytes or rows than the limit.",
    "415": "Content type or encoding that is not read.",
    "429": "More requests than the key may make.",
    "503": "Not now: the server is full, starting or stopping.",
    "504": "The deadline passed.",
}
_RESPONSES: Json = {
    status: _json({"$ref": "#/components/schemas/Error"}, reason) for status, reason in _REASONS.items()
}
_PARAMETERS: Json = {
    "request_id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Comes back in the answer and stands in the log, where it is at most 128 plain characters.",
        "schema": {"type": "string"},
    },
    "key": {
        "name": "X-Fairway-Key",
        "in": "header",
        "description": "Decides which version answers while traffic is split: the same key, the same version. Of a model "
        "with precomputed answers it is the key that one is found by.",
        "schema": {"type": "string"},
    },
}
_OUTPUT_PARAMETERS: Json = {
    "binary_data": {"type": ["boolean", "null"], "description": "As raw bytes behind the JSON, or not."},
    "classification": {
        "type": "integer",
        "minimum": 0,
        "description": "As this many `value:index:label`, best first.",
    },
}
_REQUEST_PARAMETERS: Json = {
    "key": {"type": ["string", "number", "boolean", "null"], "description": "As X-Fairway-Key."},
    "binary_data_output": {"type": "boolean", "description": "Outputs as raw bytes behind the JSON."},
}
_ANSWER_HEADERS: Json = {
    "X-Request-Id": {"schema": {"type": "string"}},
    "Fairway-Version": {"schema": {"type": "string"}, "description": "MODEL:VERSION that answered."},
    "Fairway-Digest": {"schema": {"type": "string"}, "description": "The version's identity."},
}
_SERVER_PATHS: Json = {
    "/v2": {
        "get": {
            "summary": "Name, version and extensions of the server",
            "operationId": "server",
            "responses": {"200": _json({"type": "object", "required": ["name", "version"]}, "Said.")},
        }
    },
    "/v2/health/live": {
        "get": {
            "summary": "200 while the process runs",
            "operationId": "live",
            "responses": {"200": _json({"type": "object", "required": ["live"]}, "It runs.")},
        }
    },
    "/v2/health/ready": {
        "get": {
            "summary": "200 when every model can answer",
            "operationId": "ready",
            "responses": {
                "200": _json({"type": "object", "required": ["ready"]}, "Ready."),
                "503": _json({"type": "object", "required": ["ready"]}, "Not ready."),
            },
        }
    },
}
