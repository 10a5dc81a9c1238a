"""The probe: which unit a server's listing takes, and whether the ends of a window belong to it.

A listing row has a name and a read URL and no time, so facts are found by asking for windows round an object whose
time its read URL tells (`Last-Modified`). Nothing is written on the server. Requests: about six where the server
counts in seconds, about thirty in milliseconds; no more than 150 at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from watcher.database.engine import Database
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ProbeError, WatcherError
from watcher.domain.listing_facts import ListingFacts, TimeUnit, WindowEnd
from watcher.domain.models import Watch
from watcher.domain.redaction import redact
from watcher.domain.window import format_s
from watcher.lightly import datasources
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasources import RawSample
from watcher.lightly.workflows.listing import iter_pages
from watcher.logs import get_logger
from watcher.store import watches

_log = get_logger("probe")

_MOST_PAGES = 3
_MOST_OBJECTS = 3
_RECENT_S = 86_400
_MOST_OFFSET_S = 60
_OFFSETS_TO_TELL = 2
_AGAIN_MS = 60_000
_DOCUMENTED = ListingFacts()


@dataclass(frozen=True, slots=True)
class _Object:
    name: str
    modified_s: int


def probe_if_due(
    database: Database,
    transport: Transport,
    *,
    watch_id: int,
    now_ms: int,
    probed: dict[int, int],
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Probes at a start, before a full comparison, after a rewind, and each minute while there is nothing to go by.

    Args:
        database: the store.
        transport: the API.
        watch_id: which watch.
        now_ms: our time.
        probed: when this process probed which watch; kept here.
        beat: called whenever the server answered.

    Raises:
        WatcherError: as `probe_watch`; it is noted with the watch.
    """
    with database.read() as session:
        watch = watches.load_watch_by_id(session, watch_id=watch_id)
    last_ms = probed.get(watch_id)
    if last_ms is not None and (watch.listing_unit is not None or now_ms - last_ms < _AGAIN_MS):
        return
    try:
        probe_watch(database, transport, watch=watch, now_ms=now_ms, beat=beat)
    except WatcherError as error:
        with database.write() as session:
            watches.record_problem(session, watch_id=watch_id, problem=redact(str(error)))
        crash_point("probe.problem_stored")
        raise
    probed[watch_id] = now_ms


def probe_watch(
    database: Database,
    transport: Transport,
    *,
    watch: Watch,
    now_ms: int,
    beat: Callable[[], None] = lambda: None,
) -> bool:
    """Probes the listing of a watch's dataset and keeps what was found.

    A mark that was moved while the documented protocol was assumed in vain is taken back: nothing was seen by it.

    Args:
        database: the store.
        transport: the API.
        watch: its row.
        now_ms: our time.
        beat: called whenever the server answered.

    Returns:
        Whether the facts are known now; False while there is no object to find them by.

    Raises:
        ProbeError: the listing contradicts itself, or what was known of it.
        WatcherError: the server or the store failed.
    """
    server = transport.fetch_server_time(
        datasources.MARK_ENDPOINT, path_params={"datasetId": watch.dataset_id}
    )

    def find() -> ListingFacts | None:
        listing = _Listing(transport, watch.dataset_id, beat)
        return _find_facts(transport, listing, server_now_s=server.date_s, mark_s=watch.mark_s)

    def is_another(found: ListingFacts | None) -> bool:
        return watch.listing_unit is not None and found is not None and found != watch.listing

    found = find()
    if is_another(found):
        found = find()  # an object that is written again meanwhile looks like another way to list
    if is_another(found):
        raise ProbeError(
            f"the server of the watch {watch.name!r} took windows as {watch.listing} until now, and takes them as "
            f"{found} since it was asked again: objects may have been passed over. Set the mark back to a time before "
            f"it changed with `watcher rewind {watch.name} --to TIME`; the listing is probed anew then"
        )
    with database.write() as session:
        watches.record_probe(session, watch_id=watch.id, facts=found, now_ms=now_ms)
        if watch.listing_unit is None and found not in (None, _DOCUMENTED) and watch.mark_s is not None:
            watches.update_mark(session, watch_id=watch.id, mark_s=0, now_ms=now_ms)
    crash_point("probe.recorded")
    if found is None:
        _log.info("probe.undecided", watch=watch.name)
    else:
        _log.info("probe.ended", watch=watch.name, listing=str(found))
    return found is not None


def _find_facts(
    transport: Transport, listing: _Listing, *, server_now_s: int, mark_s: int | None
) -> ListingFacts | None:
    """Finds out how a server takes windows.

    Returns:
        The facts; None if no object is listed, or none tells its time.

    Raises:
        ProbeError: the windows make no difference, or the listing's times are not those of the objects.
        WatcherError: the server failed.
    """
    rows = _find_rows(listing, server_now_s=server_now_s, mark_s=mark_s)
    offsets = []
    for row in rows:
        modified_s = _fetch_modified_s(transport, row)
        if modified_s is None or modified_s < 2:
            continue
        probed = _Object(row.file_name, modified_s)
        in_seconds = listing.holds(probed.name, modified_s - 1, modified_s + 1)
        in_milliseconds = listing.holds(probed.name, 1000 * (modified_s - 1), 1000 * (modified_s + 2))
        if in_seconds is None or in_milliseconds is None:
            continue  # too many objects of one second to tell
        if in_seconds and in_milliseconds:
            raise ProbeError(
                f"the server lists {probed.name[:200]!r} whatever window it is asked for: its listing does not look at "
                "`from` and `to`, so polls cannot tell new objects from old ones. Ask its operator which version of "
                "the API it speaks"
            )
        if in_seconds:
            return _find_ends_in_seconds(listing, probed)
        if in_milliseconds:
            return _find_ends_in_milliseconds(listing, probed)
        offset_s = _find_offset(listing, probed, server_now_s=server_now_s)
        if offset_s is not None:
            offsets.append(offset_s)
        if len(offsets) == _OFFSETS_TO_TELL:
            break
    if (
        len(offsets) == _OFFSETS_TO_TELL
        and min(map(abs, offsets)) > _MOST_OFFSET_S
        and max(offsets) - min(offsets) <= 2
    ):
        raise ProbeError(
            f"the server's listing dates objects {offsets[0]} s away from what their read URLs tell "
            f"(its clock says {format_s(server_now_s)}): its clock and its listing do not agree, and a poll by the "
            "one would miss objects in the other. Set the clocks of the server and of its datasource right"
        )
    return None


class _Listing:
    """Looks for names in windows given in the server's own numbers."""

    def __init__(self, transport: Transport, dataset_id: str, beat: Callable[[], None]) -> None:
        self._transport = transport
        self._dataset_id = dataset_id
        self._beat = beat

    def load(self, first: int, last: int, *, n_pages: int) -> tuple[list[RawSample], bool]:
        """The rows of the first pages, and whether there are no more."""
        pages = iter_pages(self._transport, dataset_id=self._dataset_id, from_s=first, to_s=last)
        rows: list[RawSample] = []
        for page in itertools.islice(pages, n_pages):
            self._beat()
            rows += page.rows
            if page.cursor_next is None:
                return rows, True
        return rows, first > last

    def holds(self, name: str, first: int, last: int) -> bool | None:
        """Whether the window holds the object; None if its first pages do not tell."""
        rows, complete = self.load(max(0, first), last, n_pages=_MOST_PAGES)
        if any(row.file_name == name for row in rows):
            return True
        return False if complete else None


def _find_rows(listing: _Listing, *, server_now_s: int, mark_s: int | None) -> list[RawSample]:
    """A few objects to go by, from the last day before the mark if it has any."""
    starts = [0] if mark_s is None else [max(0, mark_s - _RECENT_S), 0]
    for unit, start in itertools.product((1, 1000), starts):
        rows, _ = listing.load(unit * start, unit * server_now_s, n_pages=1)
        if rows:
            places = {0, len(rows) // 2, len(rows) - 1}
            return [rows[place] for place in sorted(places)][:_MOST_OBJECTS]
    return []


def _fetch_modified_s(transport: Transport, row: RawSample) -> int | None:
    try:
        with transport.open_read_url(row.read_url) as stream:
            return stream.last_modified_s
    except WatcherError:
        return None


def _find_ends_in_seconds(listing: _Listing, probed: _Object) -> ListingFacts:
    second = probed.modified_s
    facts = ListingFacts(
        from_end=_name_end(listing.holds(probed.name, second, second + 1)),
        to_end=_name_end(listing.holds(probed.name, second - 1, second)),
    )
    if listing.holds(probed.name, *facts.compute_range(second, second)) is False:
        raise ProbeError(
            f"the server's listing contradicts itself: {probed.name[:200]!r} of {format_s(second)} is listed between "
            f"the seconds before and behind it, but not as the ends of its windows ({facts}) tell"
        )
    return facts


def _name_end(held: bool | None) -> WindowEnd:
    return WindowEnd.EXCLUSIVE if held is False else WindowEnd.INCLUSIVE


def _find_ends_in_milliseconds(listing: _Listing, probed: _Object) -> ListingFacts:
    """By the width of the narrowest window that holds the object: 0 both ends included, 1 one of them, 2 none.

    Which one of them cannot be told from outside, so both are taken for excluded: at the worst a millisecond is listed
    twice.
    """
    earliest, latest = 1000 * (probed.modified_s - 1), 1000 * (probed.modified_s + 2)
    first = _find_last(lambda at: bool(listing.holds(probed.name, at, latest)), earliest, latest)
    last = -_find_last(lambda at: bool(listing.holds(probed.name, earliest, -at)), -latest, -earliest)
    width = last - first
    if width not in (0, 1, 2):
        raise ProbeError(
            f"the server's listing contradicts itself: {probed.name[:200]!r} is listed by milliseconds, but the "
            f"narrowest window that holds it is {width} ms wide"
        )
    return ListingFacts(
        unit=TimeUnit.MILLISECONDS,
        from_end=WindowEnd.INCLUSIVE if width == 0 else WindowEnd.EXCLUSIVE,
        to_end=WindowEnd.INCLUSIVE if width == 0 else WindowEnd.EXCLUSIVE,
    )


def _find_last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number at which it holds, given that it does at `low`, and at no number once it does not."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _find_offset(listing: _Listing, probed: _Object, *, server_now_s: int) -> int | None:
    """How far the listing's time of the object is from what its read URL tells; None if it is not listed at all."""
    horizon = 2 * server_now_s
    if not listing.holds(probed.name, 0, horizon):
        return None
    return (
        _find_last(lambda at: bool(listing.holds(probed.name, at, horizon)), 0, horizon) - probed.modified_s
    )
