"""What waits to be run, summed up for gauges."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, func, or_, select, text
from sqlalchemy.orm import Session

from watcher.domain.models import LEASE_RAN_OUT, RunState
from watcher.store.tables import batches, runs, watches

_NO_OUTCOME = "UnknownOutcomeError:%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The unfinished runs of one watch.

    Attributes:
        n_ready: could be claimed now.
        n_delayed: wait for their time, after a failure or at their own wish.
        n_running: under a lease.
        oldest_ready_ms: since when the first of the ready ones waits.
        oldest_unknown_ms: making of the oldest one whose last attempt had no known outcome.
    """

    n_ready: int = 0
    n_delayed: int = 0
    n_running: int = 0
    oldest_ready_ms: int | None = None
    oldest_unknown_ms: int | None = None


def load_queues(session: Session, *, now_ms: int) -> dict[str, Queue]:
    """The queues by watch name; watches without unfinished runs are left out. Linear in the unfinished runs."""
    is_ready = (runs.c.state == RunState.READY) & (runs.c.available_ms <= now_ms)
    is_delayed = (runs.c.state == RunState.READY) & (runs.c.available_ms > now_ms)
    is_unknown = or_(runs.c.error.like(_NO_OUTCOME), runs.c.error == LEASE_RAN_OUT)
    statement = (
        select(
            watches.c.name,
            func.sum(case((is_ready, 1), else_=0)),
            func.sum(case((is_delayed, 1), else_=0)),
            func.sum(case((runs.c.state == RunState.RUNNING, 1), else_=0)),
            func.min(case((is_ready, runs.c.available_ms))),
            func.min(case((is_unknown, runs.c.created_ms))),
        )
        .select_from(
            runs.join(batches, batches.c.id == runs.c.batch_id).join(
                watches, watches.c.id == batches.c.watch_id
            )
        )
        .where(
            text("runs.state IN ('ready', 'running')")
        )  # as in the partial index, which bound values would miss
        .group_by(watches.c.name)
    )
    return {
        name: Queue(
            n_ready=int(ready),
            n_delayed=int(delayed),
            n_running=int(running),
            oldest_ready_ms=oldest,
            oldest_unknown_ms=unknown,
        )
        for name, ready, delayed, running, oldest, unknown in session.execute(statement)
    }


def measure_postgres(session: Session) -> int:
    """Bytes of the whole database on its server."""
    return int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
