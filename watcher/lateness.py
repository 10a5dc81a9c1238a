"""How late objects show up: read off their read URLs, kept in the store, and the overlap that follows from it."""

from __future__ import annotations

from collections.abc import Iterable

from watcher.database.engine import Database
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import WatcherError
from watcher.domain.models import Watch
from watcher.domain.window import Lateness
from watcher.lightly.transport import Transport
from watcher.logs import get_logger
from watcher.store import watches

_log = get_logger("lateness")

MOST_LOOKED_AT = 5


def build_lateness(watch: Watch) -> Lateness:
    """What the store remembers of a watch."""
    return Lateness(
        since_s=watch.created_ms / 1000,
        seen_s=watch.lateness_s,
        seen_at_s=(watch.lateness_ms or 0) / 1000,
    )


def record_lateness(database: Database, *, watch_id: int, late_s: float, now_ms: int) -> bool:
    """Notes how late an object was; tells whether it is more than all that still counts."""
    with database.read() as session:
        before = build_lateness(watches.load_watch_by_id(session, watch_id=watch_id))
    after = before.add(late_s, now_s=now_ms / 1000)
    if after == before or after.seen_s is None:
        return False
    with database.write() as session:
        watches.record_lateness(session, watch_id=watch_id, lateness_s=after.seen_s, now_ms=now_ms)
    crash_point("lateness.recorded")
    return True


def learn_lateness(
    database: Database,
    transport: Transport,
    *,
    watch: Watch,
    read_urls: Iterable[str],
    server_now_s: float,
    now_ms: int,
) -> None:
    """Looks at a few late objects at once, before any step reads them, so that the next poll reaches further back.

    Only the heads of the answers are read; an object that cannot be looked at tells nothing and is no error.
    """
    for url in read_urls:
        try:
            with transport.open_read_url(url) as stream:
                modified_s = stream.last_modified_s
        except WatcherError:
            continue
        if modified_s is None:
            continue
        late_s = max(0.0, server_now_s - modified_s)
        if record_lateness(database, watch_id=watch.id, late_s=late_s, now_ms=now_ms):
            _log.info("lateness.grown", watch=watch.name, late_s=int(late_s))
