"""Custom metadata against a JSON schema; loaded only by watches that have one, as jsonschema is slow to load."""

from __future__ import annotations

from typing import Any

import jsonschema
import referencing
import referencing.jsonschema

from watcher.domain.errors import ConfigError


def find_outside_reference(schema: dict[str, Any]) -> str | None:
    """A reference of the schema to something that is not in it, such as an address; None if there is none."""
    kind: Any = jsonschema.validators.validator_for(schema)
    specification = referencing.jsonschema.specification_with(kind.META_SCHEMA["$schema"])
    root = specification.create_resource(schema)
    left = [(root, referencing.Registry[Any]().resolver_with_root(root))]
    while left:
        part, resolver = left.pop()
        for key in ("$ref", "$dynamicRef"):
            reference = part.contents.get(key) if isinstance(part.contents, dict) else None
            if not isinstance(reference, str):
                continue
            try:
                resolver.lookup(reference)
            except (referencing.exceptions.Unresolvable, ValueError):
                return reference
        left += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
    return None


class SchemaValidator:
    """A JSON schema of any draft; `$ref` is followed inside it alone, never over the network."""

    def __init__(self, schema: dict[str, Any]) -> None:
        kind: Any = jsonschema.validators.validator_for(schema)
        # An empty registry: a reference to an address is an error, not a request.
        self._validator = kind(schema, registry=referencing.Registry())

    def find_fault(self, metadata: object) -> str | None:
        """What does not fit, with its place; None if all does.

        Raises:
            ConfigError: the schema refers to something that is not in it, or to itself without end.
        """
        try:
            error = jsonschema.exceptions.best_match(self._validator.iter_errors(metadata))
        except (referencing.exceptions.Unresolvable, RecursionError) as unresolved:
            raise ConfigError(
                f"the JSON schema of the metadata cannot be followed: {unresolved}"
            ) from unresolved
        if error is None:
            return None
        where = "/".join(str(part) for part in error.absolute_path)
        return f"its metadata does not fit the schema{f' at {where}' if where else ''}: {error.message}"
