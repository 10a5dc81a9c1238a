"""Listing a datasource page by page: resumable, in constant memory, and never for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from watcher.domain.errors import ListingLoopError
from watcher.lightly import datasources
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasources import RawSample

MAX_PAGES = 10_000_000
MAX_EMPTY_PAGES = 1000


@dataclass(frozen=True, slots=True)
class ListingPage:
    """One page of a listing.

    Attributes:
        cursor_next: gives the rest of the listing once this page is dealt with; None on the last page.
        rows: the objects, in the server's order; may be empty in the middle of a listing.
    """

    cursor_next: str | None
    rows: list[RawSample]


def iter_pages(
    transport: Transport,
    *,
    dataset_id: str,
    from_s: int,
    to_s: int,
    cursor: str | None = None,
    max_pages: int = MAX_PAGES,
    max_empty_pages: int = MAX_EMPTY_PAGES,
    relevant_filenames_file_name: str | None = None,
    use_redirected_read_url: bool | None = None,
) -> Iterator[ListingPage]:
    """Lists the objects last written within `[from_s, to_s]`, both ends included, unix seconds.

    One call a page, made when the page is asked for. An empty window makes no call.

    Args:
        transport: the way.
        dataset_id: whose datasource.
        from_s: first second.
        to_s: last second.
        cursor: `cursor_next` of the last page dealt with, to go on from there; the window is the cursor's then.
        max_pages: more pages than this are no listing.
        max_empty_pages: more empty pages in a row than this are no listing.
        relevant_filenames_file_name: text file in the datasource that restricts the listing.
        use_redirected_read_url: whether read URLs should lead through the server.

    Raises:
        ListingLoopError: a cursor came back, a page promises more without saying how, or there is no end.
    """
    if cursor is None and from_s > to_s:
        return
    watch = _CursorWatch(cursor)
    n_empty = 0
    for _ in range(max_pages):
        first = cursor is None
        page = datasources.fetch_raw_samples_page(
            transport,
            dataset_id=dataset_id,
            from_s=from_s if first else None,
            to_s=to_s if first else None,
            cursor=cursor,
            relevant_filenames_file_name=relevant_filenames_file_name if first else None,
            use_redirected_read_url=use_redirected_read_url,
        )
        if not page.has_more:
            yield ListingPage(cursor_next=None, rows=page.data)
            return
        if not page.cursor:
            raise ListingLoopError(f"{_WHERE}: the server has more but gave no cursor to it")
        n_empty = 0 if page.data else n_empty + 1
        if n_empty > max_empty_pages:
            raise ListingLoopError(f"{_WHERE}: {n_empty} empty pages in a row")
        watch.check(page.cursor)
        yield ListingPage(cursor_next=page.cursor, rows=page.data)
        cursor = page.cursor
    raise ListingLoopError(f"{_WHERE}: no end after {max_pages} pages")


_WHERE = f"GET {datasources.LIST_ENDPOINT}"


class _CursorWatch:
    """Finds a cursor that comes back, in constant memory: Brent's algorithm, 1980.

    One earlier cursor is remembered and replaced after 1, 2, 4, 8, ... steps, so a cycle of any length is found
    within a few rounds; one of length 1 at once.
    """

    def __init__(self, cursor: str | None) -> None:
        self._previous = cursor
        self._remembered = cursor
        self._power = 1
        self._n_steps = 0

    def check(self, cursor: str) -> None:
        if cursor in (self._previous, self._remembered):
            raise ListingLoopError(f"{_WHERE}: the server repeats a cursor")
        self._previous = cursor
        self._n_steps += 1
        if self._n_steps == self._power:
            self._remembered = cursor
            self._power *= 2
            self._n_steps = 0
