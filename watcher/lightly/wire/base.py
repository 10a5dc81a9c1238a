"""The base of all shapes, and the rules that names and ids follow on the wire."""

from __future__ import annotations

from typing import Annotated

import msgspec

# Behind each `$`: Python lets it stand before a newline at the end as well, other readers of the protocol do not.
ObjectId = Annotated[str, msgspec.Meta(pattern="^[a-f0-9]{24}$(?!\\n)")]
"""24 lower-case hexadecimal digits; the official client 1.5.26 refuses any other spelling."""

DatasetName = Annotated[str, msgspec.Meta(min_length=3, pattern="^[a-zA-Z0-9][a-zA-Z0-9 _-]+$(?!\\n)")]
TagName = Annotated[str, msgspec.Meta(min_length=3, pattern="^[a-zA-Z0-9][a-zA-Z0-9 .:;=@_-]+$(?!\\n)")]
BitMaskData = Annotated[str, msgspec.Meta(pattern="^0x[a-fA-F0-9]+$(?!\\n)")]
ScoreType = Annotated[str, msgspec.Meta(min_length=1, pattern="^[a-zA-Z0-9_+=,.@:/-]*$(?!\\n)")]
TimestampS = Annotated[int, msgspec.Meta(ge=0)]
TimestampMs = Annotated[int, msgspec.Meta(ge=0)]


class Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A JSON object of the protocol: snake_case here, camelCase on the wire, absent fields left out.

    `kw_only=True` stands and `frozen=True` stand on every shape: msgspec hands the first one down not at all, and
    type checkers want to see the second.
    """
