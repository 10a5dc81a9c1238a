"""Quarantined and vanished samples, newest first, of a watch or of all, whatever the size of the ledger."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy.orm import Session

from watcher.domain.models import Sample, SampleState
from watcher.store.newest import select_newest
from watcher.store.samples import build_sample
from watcher.store.tables import samples

# One state at a time, so that the index on (watch, state, id) gives the newest without a sort.
_STATES = (SampleState.QUARANTINED, SampleState.GONE)


def load_troubled(
    session: Session, *, limit: int, watch_id: int | None = None
) -> defaultdict[int, list[Sample]]:
    """At most `limit` samples of a watch, or of each, by the watch's id, the last discovered first."""
    troubled: defaultdict[int, list[Sample]] = defaultdict(list)
    for state in _STATES:
        newest = select_newest(session, samples, limit=limit, watch_id=watch_id, equal={"state": state.value})
        for row in session.execute(newest):
            troubled[row.watch_id].append(build_sample(row))
    for found in troubled.values():
        found.sort(key=lambda sample: sample.id, reverse=True)
        del found[limit:]
    return troubled


def load_last_troubled(session: Session, *, limit: int, watch_id: int | None = None) -> list[Sample]:
    """At most `limit` of the samples of a watch, or of all together, the last set aside first.

    Of each watch only the last discovered ones are looked at, so that the cost has a bound.
    """
    found: list[Sample] = []
    for state in _STATES:
        newest = select_newest(session, samples, limit=limit, watch_id=watch_id, equal={"state": state.value})
        changed_ms = newest.selected_columns["changed_ms"]
        found += map(build_sample, session.execute(newest.order_by(changed_ms.desc()).limit(limit)))
    return sorted(found, key=lambda sample: sample.changed_ms, reverse=True)[:limit]
