"""Metadata configurations: which fields of the custom metadata are shown, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from watcher.lightly.wire.base import TimestampMs, Wire

ConfigurationValueDataType = Literal[
    "NUMERIC_INT",
    "NUMERIC_FLOAT",
    "CATEGORICAL_STRING",
    "CATEGORICAL_INT",
    "CATEGORICAL_BOOLEAN",
    "CATEGORICAL_DATETIME",
    "CATEGORICAL_TIMESTAMP",
    "OTHER_STRING",
]


class ConfigurationEntry(Wire, frozen=True, kw_only=True):
    """One field: `path` is dotted and leads into the custom metadata."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    path: Annotated[str, msgspec.Meta(min_length=1)]
    default_value: Any
    value_data_type: ConfigurationValueDataType


class ConfigurationSetRequest(Wire, frozen=True, kw_only=True):
    """A configuration to store."""

    name: str
    configs: list[ConfigurationEntry]


class ConfigurationData(Wire, frozen=True, kw_only=True):
    """A stored configuration."""

    id: str
    name: str
    configs: list[ConfigurationEntry]
    created_at: TimestampMs
    last_modified_at: TimestampMs
