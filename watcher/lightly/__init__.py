"""The Lightly API: shapes, transport, one module a resource, workflows, and `ApiWorkflowClient`.

Names are loaded when they are first used, so importing `watcher.lightly.wire` alone costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watcher.domain.bitmask import BitMask as BitMask
    from watcher.domain.errors import ApiException as ApiException
    from watcher.domain.errors import CancelledError as CancelledError
    from watcher.domain.errors import ConfigError as ConfigError
    from watcher.domain.errors import DatasetDoesNotExistError as DatasetDoesNotExistError
    from watcher.domain.errors import DatasetError as DatasetError
    from watcher.domain.errors import DeadlineExceededError as DeadlineExceededError
    from watcher.domain.errors import EmbeddingDoesNotExistError as EmbeddingDoesNotExistError
    from watcher.domain.errors import MetadataFormatError as MetadataFormatError
    from watcher.domain.errors import NotFoundException as NotFoundException
    from watcher.domain.errors import ProtocolError as ProtocolError
    from watcher.domain.errors import SamplingError as SamplingError
    from watcher.domain.errors import TagDoesNotExistError as TagDoesNotExistError
    from watcher.domain.errors import TransportError as TransportError
    from watcher.domain.errors import WatcherError as WatcherError
    from watcher.lightly.client import ApiWorkflowClient as ApiWorkflowClient
    from watcher.lightly.samplers import SamplerConfig as SamplerConfig
    from watcher.lightly.samplers import SamplingMethod as SamplingMethod
    from watcher.lightly.transport import Transport as Transport
    from watcher.lightly.wire.datasources import RawSample as RawSample
    from watcher.lightly.wire.tags import TagData as TagData
    from watcher.lightly.workflows.csv_files import check_embeddings_csv as check_embeddings_csv
    from watcher.lightly.workflows.csv_files import write_embeddings_csv as write_embeddings_csv
    from watcher.lightly.workflows.download import DownloadReport as DownloadReport
    from watcher.lightly.workflows.metadata import MetadataReport as MetadataReport
    from watcher.lightly.workflows.metadata import format_custom_metadata as format_custom_metadata
    from watcher.lightly.workflows.upload import UploadIncompleteError as UploadIncompleteError
    from watcher.lightly.workflows.upload import UploadReport as UploadReport

_HOMES = {
    "ApiException": "watcher.domain.errors",
    "ApiWorkflowClient": "watcher.lightly.client",
    "BitMask": "watcher.domain.bitmask",
    "CancelledError": "watcher.domain.errors",
    "ConfigError": "watcher.domain.errors",
    "DatasetDoesNotExistError": "watcher.domain.errors",
    "DatasetError": "watcher.domain.errors",
    "DeadlineExceededError": "watcher.domain.errors",
    "DownloadReport": "watcher.lightly.workflows.download",
    "EmbeddingDoesNotExistError": "watcher.domain.errors",
    "MetadataFormatError": "watcher.domain.errors",
    "MetadataReport": "watcher.lightly.workflows.metadata",
    "NotFoundException": "watcher.domain.errors",
    "ProtocolError": "watcher.domain.errors",
    "RawSample": "watcher.lightly.wire.datasources",
    "SamplerConfig": "watcher.lightly.samplers",
    "SamplingError": "watcher.domain.errors",
    "SamplingMethod": "watcher.lightly.samplers",
    "TagData": "watcher.lightly.wire.tags",
    "TagDoesNotExistError": "watcher.domain.errors",
    "Transport": "watcher.lightly.transport",
    "TransportError": "watcher.domain.errors",
    "UploadIncompleteError": "watcher.lightly.workflows.upload",
    "UploadReport": "watcher.lightly.workflows.upload",
    "WatcherError": "watcher.domain.errors",
    "check_embeddings_csv": "watcher.lightly.workflows.csv_files",
    "format_custom_metadata": "watcher.lightly.workflows.metadata",
    "write_embeddings_csv": "watcher.lightly.workflows.csv_files",
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
