"""Mappings: the values of all samples in bit order. Position i is bit i of every mask, and never changes."""

from __future__ import annotations

from typing import Literal

from watcher.lightly.paging import fetch_all_pages
from watcher.lightly.transport import Transport

_PAGE_SIZE = 25000


def fetch_mapping(transport: Transport, *, dataset_id: str, field: Literal["_id", "fileName"]) -> list[str]:
    """Ids or file names of all samples in bit order, in pages of 25000 where the server pages.

    Memory: the list itself; about 100 bytes a name.
    """
    return fetch_all_pages(
        transport,
        "/v1/datasets/{datasetId}/mappings",
        page_type=list[str],
        key=lambda value: value,
        page_size=_PAGE_SIZE,
        path_params={"datasetId": dataset_id},
        query={"field": field},
    )


def fetch_file_names(transport: Transport, *, dataset_id: str) -> list[str]:
    """File names of all samples in bit order."""
    return fetch_mapping(transport, dataset_id=dataset_id, field="fileName")


def fetch_sample_ids(transport: Transport, *, dataset_id: str) -> list[str]:
    """Ids of all samples in bit order."""
    return fetch_mapping(transport, dataset_id=dataset_id, field="_id")
