"""Whole lists from servers that page by offset, and from servers that ignore paging."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from watcher.domain.errors import ProtocolError
from watcher.lightly.transport import QueryValue, Transport

T = TypeVar("T")

_MAX_RESTARTS = 3


def fetch_all_pages(
    transport: Transport,
    path_template: str,
    *,
    page_type: type[list[T]],
    key: Callable[[T], Hashable],
    page_size: int,
    path_params: Mapping[str, str] | None = None,
    query: Mapping[str, QueryValue] | None = None,
) -> list[T]:
    """Fetches a list with `pageSize` and `pageOffset`, which count items.

    Each page begins with the last item of the one before. If it does not, the list changed meanwhile, and offsets
    would skip or repeat items: it is fetched again from the start. A server that ignores paging answers the whole
    list at once, which shows in its length or in its first item.

    Args:
        transport: the way.
        path_template: the endpoint.
        page_type: shape of a page.
        key: what tells two items apart.
        page_size: items a call, at least 2.
        path_params: values of the template's fields.
        query: further parameters.

    Returns:
        All items in the server's order, each once.

    Raises:
        ProtocolError: the list changed under every attempt.
    """
    for _ in range(1 + _MAX_RESTARTS):
        items = _fetch_once(
            transport,
            path_template,
            page_type=page_type,
            key=key,
            page_size=page_size,
            path_params=path_params,
            query=dict(query or {}),
        )
        if items is not None:
            return items
    raise ProtocolError(f"GET {path_template}: the list changed under each of {1 + _MAX_RESTARTS} readings")


def _fetch_once(
    transport: Transport,
    path_template: str,
    *,
    page_type: type[list[T]],
    key: Callable[[T], Hashable],
    page_size: int,
    path_params: Mapping[str, str] | None,
    query: dict[str, QueryValue],
) -> list[T] | None:
    items: list[T] = []
    while True:
        query["pageSize"], query["pageOffset"] = page_size, max(0, len(items) - 1)
        page = transport.get_json(path_template, type=page_type, path_params=path_params, query=query)
        if not items:
            items = page
            if len(page) != page_size:
                return items
            continue
        if not page:
            return None
        if key(page[0]) != key(items[-1]):
            ignores_paging = key(page[0]) == key(items[0]) and len(page) >= len(items)
            return page if ignores_paging else None
        items += page[1:]
        if len(page) < page_size:
            return items
