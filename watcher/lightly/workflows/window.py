"""New samples since the mark, and the mark moved only when the caller is done with them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from watcher.lightly import datasources
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasources import RawSample
from watcher.lightly.workflows.listing import ListingPage, iter_pages

HOLD_BACK_S = 5


@dataclass
class Window:
    """A window of time over a datasource, frozen before its listing begins.

    Iterating gives its pages; each page is asked for when it is needed.

    Attributes:
        from_s: first second, unix time.
        to_s: last second; before `from_s` when nothing can be new yet.
        mark_s: the mark as it was found; 0 means never.
        complete: whether all pages were handed out.
        acknowledged: whether the mark was moved.
    """

    transport: Transport
    dataset_id: str
    from_s: int
    to_s: int
    mark_s: int
    complete: bool = False
    acknowledged: bool = False

    def __iter__(self) -> Iterator[ListingPage]:
        """The pages; starts anew each time."""
        self.complete = False
        yield from iter_pages(self.transport, dataset_id=self.dataset_id, from_s=self.from_s, to_s=self.to_s)
        self.complete = True

    def iter_samples(self) -> Iterator[RawSample]:
        """The objects of all pages."""
        for page in self:
            yield from page.rows


@contextmanager
def new_raw_samples_window(
    transport: Transport,
    *,
    dataset_id: str,
    hold_back_s: int = HOLD_BACK_S,
    overlap_s: int = 0,
) -> Iterator[Window]:
    """Opens the window of what is new, and moves the mark to its end when it is left in peace.

    In peace means: without an exception, and after the last page was taken. Otherwise the mark stays, and the next
    window holds everything once more. The window ends by the server's clock, some seconds back, because objects of
    the present second may still be on their way.

        with new_raw_samples_window(transport, dataset_id=dataset_id) as window:
            for page in window:
                save(page.rows)

    Args:
        transport: the way.
        dataset_id: whose datasource.
        hold_back_s: how far the window ends before the server's present, in seconds.
        overlap_s: how far it reaches back behind the mark, for objects that show up late; names seen before come
            again then, and telling them apart is the caller's.

    Yields:
        The window; nothing is listed before it is iterated.

    Raises:
        ProtocolError: the server tells no time.
    """
    path = "/v1/datasets/{datasetId}/datasource/processedUntilTimestamp"
    server_time = transport.fetch_server_time(path, path_params={"datasetId": dataset_id})
    mark_s = datasources.fetch_processed_until(transport, dataset_id=dataset_id)
    window = Window(
        transport=transport,
        dataset_id=dataset_id,
        from_s=max(0, mark_s + 1 - overlap_s) if mark_s else 0,
        to_s=server_time.date_s - hold_back_s,
        mark_s=mark_s,
    )
    yield window
    if not window.complete or window.to_s <= mark_s:
        return
    present_s = datasources.fetch_processed_until(transport, dataset_id=dataset_id)
    if present_s != mark_s:
        warnings.warn(
            f"the mark of dataset {dataset_id} was moved from {mark_s} to {present_s} while a window was open: "
            "somebody else consumes the same datasource, and each of you may get samples of the other",
            stacklevel=3,
        )
    if window.to_s > present_s:
        datasources.update_processed_until(transport, dataset_id=dataset_id, timestamp_s=window.to_s)
    window.acknowledged = True
