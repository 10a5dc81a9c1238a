"""First and last samples of the watches: a look into an index each, however large the ledger."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.store.tables import samples, watches

# By a range of the index (watch_id, state, id): by equality Postgres may rather walk the whole table by ids.
_POSTGRES_OLDEST = """
SELECT watches.name, first.discovered_ms FROM watches CROSS JOIN LATERAL (
    SELECT watch_id, state, discovered_ms FROM samples WHERE (watch_id, state, id) >= (watches.id, :state, 0)
    ORDER BY watch_id, state, id LIMIT 1
) AS first WHERE first.watch_id = watches.id AND first.state = :state
"""
_POSTGRES_NEWEST = """
SELECT watches.name, last.discovered_ms FROM watches CROSS JOIN LATERAL (
    SELECT watch_id, state, discovered_ms FROM samples
    WHERE (watch_id, state, id) <= (watches.id, :state, 9223372036854775807)
    ORDER BY watch_id DESC, state DESC, id DESC LIMIT 1
) AS last WHERE last.watch_id = watches.id AND last.state = :state
"""


def load_extremes(session: Session, *, newest: bool, state: SampleState) -> list[tuple[str, int]]:
    """(watch name, discovery of its first or last sample in a state); one look into the index for each watch."""
    if session.get_bind().dialect.name != "sqlite":
        statement = text(_POSTGRES_NEWEST if newest else _POSTGRES_OLDEST)
        return [(row[0], row[1]) for row in session.execute(statement, {"state": state.value})]
    discovered = (
        select(samples.c.discovered_ms)
        .where(samples.c.watch_id == watches.c.id, samples.c.state == state)
        .order_by(samples.c.id.desc() if newest else samples.c.id)
        .limit(1)
        .correlate(watches)
        .scalar_subquery()
    )
    rows = session.execute(select(watches.c.name, discovered))
    return [(name, discovered_ms) for name, discovered_ms in rows if discovered_ms is not None]
