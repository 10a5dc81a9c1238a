"""`/openapi.json`: what is served, drawn from the declarations of the operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from watcher.lightly.wire.errors import ApiError
from watcher.platform.calls import Operation

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_REF = "#/components/schemas/{name}"


def build_document(operations: Iterable[Operation]) -> bytes:
    """The document as JSON."""
    operations = list(operations)
    shapes = [
        shape for each in operations for shape in (*_alternatives(each.reply), *_alternatives(each.body))
    ]
    schemas, components = msgspec.json.schema_components([*shapes, ApiError], ref_template=_REF)
    found = dict(zip((_key(shape) for shape in [*shapes, ApiError]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _build_operation(operation, found)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Datasource Watcher platform",
            "version": "1.0.0",
            "description": "A self-hosted server for the Lightly API.",
        },
        "security": [{"token": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "query", "name": "token"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": components,
        },
    }
    return msgspec.json.encode(document)


def _alternatives(shape: Any) -> tuple[Any, ...]:
    if shape is None:
        return ()
    return shape if isinstance(shape, tuple) else (shape,)


def _key(shape: Any) -> str:
    return str(shape)


def _build_operation(operation: Operation, found: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in _PARAMETER.findall(operation.path)
    ]
    parameters += [
        {"name": query.name, "in": "query", "required": query.required, "schema": dict(query.schema)}
        for query in operation.query
    ]
    success: dict[str, Any] = {"description": "Success."}
    if operation.reply is not None:
        schemas = [found[_key(shape)] for shape in _alternatives(operation.reply)]
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
        success["content"] = {"application/json": {"schema": schema}}
    error = {
        "description": "Refused; the body tells why.",
        "content": {"application/json": {"schema": found[_key(ApiError)]}},
    }
    statuses = (
        ("403", "404", "422", "503")
        if operation.public
        else ("401", "403", "404", "409", "413", "422", "503")
    )
    statuses = (*statuses, *map(str, operation.codes))
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {str(operation.status): success, **dict.fromkeys(statuses, error)},
    }
    if operation.public:
        described["security"] = []
    if operation.own:
        described["x-own"] = True
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": found[_key(operation.body)]}},
        }
    return described


def _path_schema(name: str) -> dict[str, Any]:
    if name.endswith("Id"):
        return {"type": "string", "pattern": "^[a-f0-9]{24}$"}
    return {"type": "string", "minLength": 1}
