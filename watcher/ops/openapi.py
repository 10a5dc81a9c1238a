"""`/api/v1/openapi.json`: what is served, drawn from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from watcher.ops.faults import Problem
from watcher.ops.operations import Operation

_PARAMETER = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/{name}"


def build_document(operations: Iterable[Operation], *, version: str, reading_needs_token: bool) -> bytes:
    """The document as JSON.

    Args:
        operations: what is served.
        version: of the program.
        reading_needs_token: whether `WATCHER_CONTROL__READ_NEEDS_TOKEN` is set.
    """
    operations = list(operations)
    shapes = [shape for each in operations for shape in (each.reply, each.body) if shape is not None]
    schemas, components = msgspec.json.schema_components([*shapes, Problem], ref_template=_REF)
    found = dict(zip(map(str, [*shapes, Problem]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _describe(operation, found, is_open=not (operation.changes or reading_needs_token))
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Datasource Watcher control",
                "version": version,
                "description": "What the daemon does, and the changes a person may ask of it.",
            },
            "security": [{"bearer": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
                "schemas": components,
            },
        }
    )


def _describe(operation: Operation, found: dict[str, Any], *, is_open: bool) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(operation.path)
    ]
    parameters += [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.summary,
            "schema": dict(query.schema),
        }
        for query in operation.query
    ]
    error = {
        "description": "Refused; the body tells why.",
        "content": {"application/json": {"schema": found[str(Problem)]}},
    }
    statuses = (
        ["404", "422", "503"] + ([] if is_open else ["401"]) + (["409", "413"] if operation.body else [])
    )
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            str(operation.status): {
                "description": "Success.",
                "content": {"application/json": {"schema": found[str(operation.reply)]}},
            },
            **dict.fromkeys(sorted(statuses), error),
        },
    }
    if is_open:
        described["security"] = []
    if operation.body is not None:
        described["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(operation.body)),
            "content": {"application/json": {"schema": found[str(operation.body)]}},
        }
    return described
