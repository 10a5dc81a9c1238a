"""The Lightly API: shapes, transport, one module a resource, workflows, and `ApiWorkflowClient`.

Names are loaded when they are first used, so importing `watcher.lightly.wire` alone costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watcher.domain.bitmask import BitMask as BitMask
    from watcher.domain.errors import ApiException as ApiException
    from watcher.domain.errors import EmbeddingDoesNotExistError as EmbeddingDoesNotExistError
    from watcher.domain.errors import TagDoesNotExistError as TagDoesNotExistError
    from watcher.domain.errors import WatcherError as WatcherError
    from watcher.lightly.transport import Transport as Transport

_HOMES = {
    "ApiException": "watcher.domain.errors",
    "BitMask": "watcher.domain.bitmask",
    "EmbeddingDoesNotExistError": "watcher.domain.errors",
    "TagDoesNotExistError": "watcher.domain.errors",
    "Transport": "watcher.lightly.transport",
    "WatcherError": "watcher.domain.errors",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
