"""Error bodies."""

from __future__ import annotations

from watcher.lightly.wire.base import Wire


class ApiError(Wire, frozen=True, kw_only=True):
    """Body of every answer that is not a success.

    `error` (read by 1.5.26) and `message` (read by 1.2.x) carry the same text.
    """

    code: str = "BAD_REQUEST"
    error: str = ""
    message: str = ""
    request_id: str | None = None
