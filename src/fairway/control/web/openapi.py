"""The admin API described in OpenAPI 3.1, from the table that it is answered by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from fairway.control.web.routes import ApiRoute
from fairway.core.release import VERSION

_NAMES = re.compile(r"\{(\w+)\}")
_ERROR: dict[str, Any] = {
    "description": "What is wrong.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error", "code", "request_id"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"reason": {"type": "string"}, "field": {"type": "string"}},
            },
        },
    },
}


def document(routes: Iterable[ApiRoute]) -> dict[str, Any]:
    entries = list(routes)
    kinds = [kind for entry in entries for kind in (entry.takes, entry.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    found = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for entry in entries:
        takes = None if entry.takes is None else next(found)
        gives = None if entry.gives is None else next(found)
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry, takes, gives)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fairway control", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR_SCHEMA},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{"key": []}, {"header": []}],
    }


def _operation(entry: ApiRoute, takes: Any, gives: Any) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _NAMES.findall(entry.path)
    ]
    if "limit=" in entry.summary:
        parameters.append({"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}})
    answer: dict[str, Any] = {"description": entry.summary}
    if gives is not None:
        answer["content"] = {"application/json": {"schema": gives}}
    operation: dict[str, Any] = {
        "summary": entry.summary,
        "operationId": re.sub(r"\W+", "_", f"{entry.method} {entry.path}".lower()).strip("_"),
        "parameters": parameters,
        "responses": {str(entry.status): answer, "4XX": _ERROR, "5XX": _ERROR},
    }
    if takes is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": takes}}}
    if entry.access == "open":
        operation["security"] = []
    return operation
