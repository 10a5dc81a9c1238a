"""Listings of a datasource for those who want samples rather than pages: shards, and names fit to be used."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing

from watcher.domain.errors import ApiException, DatasetError
from watcher.lightly import datasources
from watcher.lightly.answers import is_missing_endpoint
from watcher.lightly.progress import Progress
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasources import RawSample
from watcher.lightly.workflows.listing import ListingPage, iter_pages

_MAX_SHARDS = 64
_PAGES_AHEAD = 4


def iter_raw_samples(
    transport: Transport,
    *,
    dataset_id: str,
    from_s: int,
    to_s: int,
    n_shards: int = 1,
    relevant_filenames_file_name: str | None = None,
    use_redirected_read_url: bool | None = None,
) -> Generator[RawSample, None, None]:
    """The objects last written within `[from_s, to_s]`, in constant memory.

    Args:
        transport: the way.
        dataset_id: whose datasource.
        from_s: first second, unix time.
        to_s: last second.
        n_shards: listings at a time, where the server can cut one; more than 1 gives no defined order.
        relevant_filenames_file_name: text file in the datasource that restricts the listing.
        use_redirected_read_url: whether read URLs should lead through the server.

    Yields:
        Objects whose names are relative paths. Others are left out, and counted in a warning at the end.

    Raises:
        ListingLoopError: the listing has no end.
    """
    n_odd = 0
    first_odd = ""
    pages = _iter_all_pages(
        transport,
        dataset_id=dataset_id,
        from_s=from_s,
        to_s=to_s,
        n_shards=n_shards,
        relevant_filenames_file_name=relevant_filenames_file_name,
        use_redirected_read_url=use_redirected_read_url,
    )
    with closing(pages):
        for page in pages:
            for row in page.rows:
                if row.file_name.startswith(("/", "./", "../")):
                    n_odd += 1
                    first_odd = first_odd or row.file_name
                else:
                    yield row
    if n_odd:
        warnings.warn(
            f"{n_odd} names in the listing are no relative paths, the first is {first_odd[:200]!r}; they are left out",
            stacklevel=2,
        )


def list_raw_samples(
    transport: Transport,
    *,
    dataset_id: str,
    from_s: int,
    to_s: int,
    n_shards: int = 1,
    relevant_filenames_file_name: str | None = None,
    use_redirected_read_url: bool | None = None,
    verbose: bool = False,
) -> list[tuple[str, str]]:
    """The same as a list of (file name, read URL), each name once with its first URL."""
    found: dict[str, str] = {}
    n_repeated = 0
    rows = iter_raw_samples(
        transport,
        dataset_id=dataset_id,
        from_s=from_s,
        to_s=to_s,
        n_shards=n_shards,
        relevant_filenames_file_name=relevant_filenames_file_name,
        use_redirected_read_url=use_redirected_read_url,
    )
    with Progress("listing", 0, verbose=verbose) as progress, closing(rows):
        for row in rows:
            if row.file_name in found:
                n_repeated += 1
            else:
                found[row.file_name] = row.read_url
            if verbose:
                progress.add()
    if n_repeated:
        warnings.warn(
            f"{n_repeated} names came more than once in the listing; each is kept once", stacklevel=3
        )
    return list(found.items())


def _iter_all_pages(
    transport: Transport,
    *,
    dataset_id: str,
    from_s: int,
    to_s: int,
    n_shards: int,
    relevant_filenames_file_name: str | None,
    use_redirected_read_url: bool | None,
) -> Generator[ListingPage, None, None]:
    if from_s > to_s:
        return
    if not 1 <= n_shards <= _MAX_SHARDS:
        raise DatasetError(f"the number of shards must lie between 1 and {_MAX_SHARDS}, got {n_shards}")
    cursors: list[str | None] = [None]
    endpoint = f"GET {datasources.SHARDS_ENDPOINT}"
    if n_shards > 1 and not transport.lacks(endpoint):
        try:
            cursors = list(
                datasources.fetch_shard_cursors(
                    transport,
                    dataset_id=dataset_id,
                    from_s=from_s,
                    to_s=to_s,
                    n_shards=n_shards,
                    relevant_filenames_file_name=relevant_filenames_file_name,
                )
            )
        except ApiException as error:
            if not is_missing_endpoint(error):
                raise
            transport.remember_missing(endpoint)
    iterators = [
        iter_pages(
            transport,
            dataset_id=dataset_id,
            from_s=from_s,
            to_s=to_s,
            cursor=cursor,
            relevant_filenames_file_name=relevant_filenames_file_name,
            use_redirected_read_url=use_redirected_read_url,
        )
        for cursor in dict.fromkeys(cursors)
        if cursor != ""
    ]
    if len(iterators) == 1:
        yield from iterators[0]
    elif iterators:
        yield from _merge(iterators)


def _merge(iterators: list[Iterator[ListingPage]]) -> Iterator[ListingPage]:
    """Pages of several listings, each in a thread of its own, as they come."""
    pages: queue.Queue[ListingPage | Exception | None] = queue.Queue(maxsize=_PAGES_AHEAD)
    stop = threading.Event()

    def put(item: ListingPage | Exception | None) -> None:
        while not stop.is_set():
            try:
                pages.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def run(iterator: Iterator[ListingPage]) -> None:
        try:
            for page in iterator:
                put(page)
                if stop.is_set():
                    return
            put(None)
        except Exception as error:  # noqa: BLE001 - raised again where the pages are taken
            put(error)

    threads = [threading.Thread(target=run, args=(iterator,), daemon=True) for iterator in iterators]
    for thread in threads:
        thread.start()
    try:
        n_open = len(threads)
        while n_open:
            item = pages.get()
            if item is None:
                n_open -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()
