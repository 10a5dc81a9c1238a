"""The newest of each watch in a few statements, for a page over a hundred watches.

No statement here walks through the ledger: polls and batches are found by the largest id of each watch in an index,
picks from the end of their primary key, arrivals in the tail of the polls.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from watcher.domain.models import Pick, RunState
from watcher.store.tables import batch_novelties, batches, picks, polls, runs, samples, watches

_HOUR_MS = 3_600_000


class LastPoll(msgspec.Struct, frozen=True, kw_only=True):
    """The newest poll of a watch."""

    state: str
    started_ms: int
    error: str | None


class LastBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The newest batch of a watch; `novelty` is None before it is known."""

    key: str
    state: str
    n_samples: int
    novelty: float | None


def load_last_polls(session: Session) -> dict[str, LastPoll]:
    """By watch name."""
    newest = (
        select(func.max(polls.c.id))
        .where(polls.c.watch_id == watches.c.id)
        .correlate(watches)
        .scalar_subquery()
    )
    statement = select(watches.c.name, polls.c.state, polls.c.started_ms, polls.c.error).select_from(
        watches.join(polls, polls.c.id == newest)
    )
    return {
        row.name: LastPoll(state=row.state, started_ms=row.started_ms, error=row.error)
        for row in session.execute(statement)
    }


def load_last_batches(session: Session) -> dict[str, LastBatch]:
    """By watch name."""
    newest = (
        select(func.max(batches.c.number))
        .where(batches.c.watch_id == watches.c.id)
        .correlate(watches)
        .scalar_subquery()
    )
    statement = select(
        watches.c.name, batches.c.key, batches.c.state, batches.c.n_samples, batch_novelties.c.ratio
    ).select_from(
        watches.join(batches, (batches.c.watch_id == watches.c.id) & (batches.c.number == newest)).outerjoin(
            batch_novelties, batch_novelties.c.batch_id == batches.c.id
        )
    )
    return {
        row.name: LastBatch(key=row.key, state=row.state, n_samples=row.n_samples, novelty=row.ratio)
        for row in session.execute(statement)
    }


def count_dead_runs(session: Session) -> dict[str, int]:
    """Dead runs by watch name; watches without one are left out. The cost grows with the runs, not the samples."""
    statement = (
        select(watches.c.name, func.count().label("n"))
        .select_from(runs.join(batches, batches.c.id == runs.c.batch_id))
        .join(watches, watches.c.id == batches.c.watch_id)
        .where(runs.c.state == RunState.DEAD)
        .group_by(watches.c.name)
    )
    return {row.name: int(row.n) for row in session.execute(statement)}


def load_latest_picks(session: Session, *, limit: int) -> list[tuple[str, Pick]]:
    """The newest picks of all watches as (watch name, pick), best first within a batch."""
    newest = select(picks).order_by(picks.c.batch_id.desc(), picks.c.rank).limit(limit).subquery()
    statement = (
        select(newest, samples.c.file_name, samples.c.remote_id, watches.c.name.label("watch"))
        .select_from(newest)
        .join(samples, samples.c.id == newest.c.sample_id)
        .join(watches, watches.c.id == samples.c.watch_id)
        .order_by(newest.c.batch_id.desc(), newest.c.rank)
    )
    return [
        (
            row.watch,
            Pick(
                batch_id=row.batch_id,
                sample_id=row.sample_id,
                file_name=row.file_name,
                remote_id=row.remote_id,
                rank=row.rank,
                reason=msgspec.json.decode(row.reason),
            ),
        )
        for row in session.execute(statement)
    ]


def find_first_poll_since(session: Session, *, since_ms: int) -> int:
    """The smallest id of a poll that started at `since_ms` or later; one past the last if there is none.

    Ids grow with the start, so about twenty look-ups of the primary key find it, and no index on the time is needed.
    """
    low = session.execute(select(func.min(polls.c.id))).scalar() or 0
    high = (session.execute(select(func.max(polls.c.id))).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        row = session.execute(
            select(polls.c.id, polls.c.started_ms).where(polls.c.id >= middle).order_by(polls.c.id).limit(1)
        ).one_or_none()
        if row is None or row.started_ms >= since_ms:
            high = middle
        else:
            low = row.id + 1
    return low


def count_arrivals(session: Session, *, first_poll_id: int) -> dict[tuple[str, int], int]:
    """Samples that polls from that one on found, by (watch name, hour since 1970 in which the poll started)."""
    hour = polls.c.started_ms // _HOUR_MS
    # Grouped by a sum, since SQLite would else walk the whole index on (watch, id) for the sake of the order.
    watch_id = polls.c.watch_id + 0
    statement = (
        select(watch_id, hour, func.sum(polls.c.n_new))
        .where(polls.c.id >= first_poll_id, polls.c.n_new > 0)
        .group_by(literal_column("1"), literal_column("2"))
    )
    names = {row.id: row.name for row in session.execute(select(watches.c.id, watches.c.name))}
    return {(names[found_id], int(at)): int(n) for found_id, at, n in session.execute(statement)}
