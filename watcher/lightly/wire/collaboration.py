"""With whom a dataset is shared."""

from __future__ import annotations

from typing import Literal

from watcher.lightly.wire.base import ObjectId, TimestampMs, Wire
from watcher.lightly.wire.datasets import Creator

AccessType = Literal["WRITE"]


class SharedAccessRequest(Wire, frozen=True, kw_only=True):
    """All whom a dataset is shared with from now on."""

    access_type: AccessType
    users: list[str] | None = None
    teams: list[str] | None = None
    creator: Creator | None = None


class SharedAccessData(Wire, frozen=True, kw_only=True):
    """Whom a dataset is shared with; `id` names this list of a dataset, not the dataset alone."""

    id: ObjectId
    owner: str
    access_type: AccessType
    users: list[str]
    teams: list[str]
    created_at: TimestampMs
    last_modified_at: TimestampMs
