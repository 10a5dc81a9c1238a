"""Objects that were written again under their name: looked at, counted, and by policy processed again.

The hint comes with the listing and is stored with its page, so a crash loses none. Here, after the mark is moved, a few
of those noted are looked at each cycle: the head of the answer of the read URL is compared with what was kept when the
object was read. The same object listed again without a change counts for nothing.
"""

from __future__ import annotations

import threading

from watcher.database.engine import Database
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ReadUrlRefusedError, SampleGoneError, WatcherError
from watcher.domain.models import Watch
from watcher.domain.object_facts import ObjectFacts
from watcher.domain.poll_rules import OverwritePolicy
from watcher.lightly.transport import Transport
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.store import overwrites

_log = get_logger("overwrites")

MOST_LOOKS = 50


def look_at_relisted(
    database: Database,
    transport: Transport,
    *,
    watch: Watch,
    policy: OverwritePolicy,
    now_ms: int,
    metrics: Metrics,
    stop: threading.Event,
) -> int:
    """Looks at up to 50 samples that were listed again; one request each.

    Returns:
        How many were written again. A server that does not answer ends the round without an error: the next poll
        goes on.
    """
    if policy is OverwritePolicy.IGNORE:
        return 0
    with database.read() as session:
        noted = overwrites.load_relisted(session, watch_id=watch.id, limit=MOST_LOOKS)
    n_overwritten = 0
    for sample_id, file_name, read_url, before in noted:
        if stop.is_set():
            break
        facts: ObjectFacts | None = None
        is_refused = False
        try:
            facts = _fetch_facts(transport, read_url)
        except SampleGoneError:
            pass
        except ReadUrlRefusedError:
            is_refused = True
        except WatcherError as error:
            _log.info("relisted.not_looked_at", watch=watch.name, reason=str(error))
            break
        again = policy is OverwritePolicy.AGAIN
        changed = facts is not None and (
            # Of a sample that was never read nothing is known: it is counted only if it gets another chance.
            facts.differs_from(before) if before.is_known else again
        )
        with database.write() as session:
            if is_refused:  # behind the others, until it is listed with a fresh URL
                overwrites.postpone_look(session, sample_id=sample_id, now_ms=now_ms)
            elif facts is not None and changed:
                overwrites.record_overwritten(
                    session, sample_id=sample_id, facts=facts, again=again, now_ms=now_ms
                )
            else:
                overwrites.record_unchanged(session, sample_id=sample_id, facts=facts)
        crash_point("overwrites.looked_at")
        if changed:
            n_overwritten += 1
            metrics.samples_overwritten.labels(watch=watch.name).inc()
            _log.warning("sample.overwritten", watch=watch.name, file_name=file_name, policy=policy.value)
    return n_overwritten


def _fetch_facts(transport: Transport, read_url: str) -> ObjectFacts:
    with transport.open_read_url(read_url) as stream:
        return ObjectFacts(size_bytes=stream.size, modified_s=stream.last_modified_s, etag=stream.etag)
