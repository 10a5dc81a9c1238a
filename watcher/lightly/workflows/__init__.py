"""Sequences of calls that keep their promise when any of the calls fails. Stateless; the caller holds the state.

Modules are loaded when they are first used, so whoever only lists does not pay for uploads.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watcher.lightly.workflows import choosing as choosing
    from watcher.lightly.workflows import csv_files as csv_files
    from watcher.lightly.workflows import csv_index as csv_index
    from watcher.lightly.workflows import download as download
    from watcher.lightly.workflows import embedding_upload as embedding_upload
    from watcher.lightly.workflows import embeddings as embeddings
    from watcher.lightly.workflows import listing as listing
    from watcher.lightly.workflows import metadata as metadata
    from watcher.lightly.workflows import picking as picking
    from watcher.lightly.workflows import raw_samples as raw_samples
    from watcher.lightly.workflows import register as register
    from watcher.lightly.workflows import sampling as sampling
    from watcher.lightly.workflows import scoring as scoring
    from watcher.lightly.workflows import sources as sources
    from watcher.lightly.workflows import upload as upload
    from watcher.lightly.workflows import window as window

_MODULES = frozenset(
    {
        "choosing",
        "csv_files",
        "csv_index",
        "download",
        "embedding_upload",
        "embeddings",
        "listing",
        "metadata",
        "picking",
        "raw_samples",
        "register",
        "sampling",
        "scoring",
        "sources",
        "upload",
        "window",
    }
)


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
