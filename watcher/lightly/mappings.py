"""Mappings: the values of all samples in bit order. Position i is bit i of every mask, and never changes."""

from __future__ import annotations

from collections.abc import Iterator
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


def iter_file_names(
    transport: Transport, *, dataset_id: str, page_size: int = _PAGE_SIZE
) -> Iterator[list[str]]:
    """File names of all samples in bit order, page by page, for datasets whose names should not all be in memory.

    A server that does not page answers everything at once, and that is the only page then.
    """
    offset = 0
    first: str | None = None
    while True:
        page = transport.get_json(
            "/v1/datasets/{datasetId}/mappings",
            type=list[str],
            path_params={"datasetId": dataset_id},
            query={"field": "fileName", "pageSize": page_size, "pageOffset": offset},
        )
        if offset and page and page[0] == first:
            return  # it does not page, and the first answer was all
        if page:
            first = first or page[0]
            yield page
        if len(page) != page_size:
            return
        offset += page_size


def fetch_file_names(transport: Transport, *, dataset_id: str) -> list[str]:
    """File names of all samples in bit order."""
    return fetch_mapping(transport, dataset_id=dataset_id, field="fileName")


def fetch_sample_ids(transport: Transport, *, dataset_id: str) -> list[str]:
    """Ids of all samples in bit order."""
    return fetch_mapping(transport, dataset_id=dataset_id, field="_id")
