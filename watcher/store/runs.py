"""Runs: claimed under a lease, ended with an outcome.

A run can be claimed when it is ready, its time has come, and its batch is the oldest open one of its watch: tags and
embeddings of a dataset change in the order of its batches, one at a time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from watcher.domain.models import BatchState, Run, RunState, Step
from watcher.store.tables import batches, runs, watches


def create_run(session: Session, *, batch_id: int, step: Step, now_ms: int, shard: int = 0) -> None:
    """A run that is ready now."""
    session.execute(
        insert(runs).values(
            batch_id=batch_id,
            step=step,
            shard=shard,
            state=RunState.READY,
            available_ms=now_ms,
            created_ms=now_ms,
        )
    )


def claim_run(
    session: Session, *, owner: str, now_ms: int, lease_ms: int, watch_names: Collection[str] | None = None
) -> Run | None:
    """Takes the longest ready run under a lease, and counts an attempt; None if there is none.

    A run whose lease ran out counts as ready again. Runs of paused watches wait.

    Args:
        session: an open transaction.
        owner: who takes it.
        now_ms: the present.
        lease_ms: how long the claim lasts without a heartbeat.
        watch_names: only runs of these watches; None for any. A daemon names those it is configured for, since a
            watch that was taken out of the settings leaves its runs behind.
    """
    _release_expired(session, now_ms=now_ms)
    older = aliased(batches)
    oldest_open = (
        select(func.min(older.c.id))
        .where(older.c.watch_id == batches.c.watch_id, older.c.state == BatchState.OPEN)
        .correlate(batches)
        .scalar_subquery()
    )
    # A replayed batch is older than the one under way, which ends its run first: tags change one run at a time.
    other, other_batch = aliased(runs), aliased(batches)
    is_another_running = (
        select(other.c.id)
        .join(other_batch, other_batch.c.id == other.c.batch_id)
        .where(
            other.c.state == RunState.RUNNING,
            other_batch.c.watch_id == batches.c.watch_id,
            other_batch.c.id != batches.c.id,
        )
        .correlate(batches)
        .exists()
    )
    candidate = (
        select(runs.c.id)
        .join(batches, batches.c.id == runs.c.batch_id)
        .join(watches, watches.c.id == batches.c.watch_id)
        .where(
            runs.c.state == RunState.READY,
            runs.c.available_ms <= now_ms,
            batches.c.id == oldest_open,
            ~is_another_running,
            watches.c.paused_ms.is_(None),
        )
        .order_by(runs.c.available_ms, runs.c.id)
        .limit(1)
        .with_for_update(of=runs, skip_locked=True)
    )
    if watch_names is not None:
        candidate = candidate.where(watches.c.name.in_(watch_names))
    run_id = session.execute(candidate).scalar()
    if run_id is None:
        return None
    claimed: Any = session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.READY)
        .values(
            state=RunState.RUNNING,
            attempt=runs.c.attempt + 1,
            started_ms=now_ms,
            lease_owner=owner,
            lease_until_ms=now_ms + lease_ms,
        )
    )
    return load_run(session, run_id=run_id) if claimed.rowcount == 1 else None


def _release_expired(session: Session, *, now_ms: int) -> None:
    session.execute(
        update(runs)
        .where(runs.c.state == RunState.RUNNING, runs.c.lease_until_ms < now_ms)
        .values(state=RunState.READY, lease_owner=None, lease_until_ms=None, error="the lease ran out")
    )


def release_all(session: Session, *, now_ms: int) -> int:
    """Makes every running run ready: called by the one daemon of a store at its start, when no other can hold one.

    Returns:
        How many a killed process had left.
    """
    result: Any = session.execute(
        update(runs)
        .where(runs.c.state == RunState.RUNNING)
        .values(state=RunState.READY, available_ms=now_ms, lease_owner=None, lease_until_ms=None)
    )
    return int(result.rowcount)


def extend_lease(session: Session, *, run_id: int, owner: str, until_ms: int) -> bool:
    """Keeps a run; False if it is no longer this owner's."""
    result: Any = session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.lease_owner == owner, runs.c.state == RunState.RUNNING)
        .values(lease_until_ms=until_ms)
    )
    return bool(result.rowcount == 1)


def end_run(
    session: Session,
    *,
    run_id: int,
    owner: str,
    state: RunState,
    now_ms: int,
    result: dict[str, object],
    error: str | None,
) -> bool:
    """Ends a run as `done` or `dead`; False, and nothing written, if it is no longer this owner's."""
    return _leave(
        session,
        run_id,
        owner,
        state=state,
        finished_ms=now_ms,
        result=msgspec.json.encode(result).decode(),
        error=error,
    )


def postpone_run(
    session: Session, *, run_id: int, owner: str, available_ms: int, error: str | None, count_attempt: bool
) -> bool:
    """Gives a run back until a time; False if it is no longer this owner's.

    Args:
        session: an open transaction.
        run_id: which run.
        owner: who holds it.
        available_ms: not claimed before this time.
        error: why, None to keep what stands there.
        count_attempt: False when the run asked for a pause or was interrupted by a shutdown.
    """
    values: dict[str, object] = {"state": RunState.READY, "available_ms": available_ms}
    if error is not None:
        values["error"] = error
    if not count_attempt:
        values["attempt"] = runs.c.attempt - 1
    return _leave(session, run_id, owner, **values)


def _leave(session: Session, run_id: int, owner: str, **values: object) -> bool:
    result: Any = session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.lease_owner == owner, runs.c.state == RunState.RUNNING)
        .values(lease_owner=None, lease_until_ms=None, **values)
    )
    return bool(result.rowcount == 1)


def load_run(session: Session, *, run_id: int) -> Run:
    """The run of that id."""
    return _run(session.execute(_select().where(runs.c.id == run_id)).one())


def load_batch_runs(session: Session, *, batch_id: int) -> list[Run]:
    """All runs of a batch, in the order of their making."""
    return [
        _run(row) for row in session.execute(_select().where(runs.c.batch_id == batch_id).order_by(runs.c.id))
    ]


def load_dead_runs(session: Session, *, limit: int) -> list[tuple[str, Run]]:
    """Dead runs as (watch name, run), newest first."""
    statement = (
        _select()
        .add_columns(watches.c.name.label("watch_name"))
        .join(watches, watches.c.id == batches.c.watch_id)
        .where(runs.c.state == RunState.DEAD)
        .order_by(runs.c.id.desc())
        .limit(limit)
    )
    return [(row.watch_name, _run(row)) for row in session.execute(statement)]


def revive_run(session: Session, *, run_id: int, now_ms: int) -> None:
    """Makes a dead run ready again, with all its attempts before it, and opens its batch."""
    run = load_run(session, run_id=run_id)
    session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.DEAD)
        .values(state=RunState.READY, attempt=0, available_ms=now_ms, finished_ms=None)
    )
    session.execute(
        update(batches).where(batches.c.id == run.batch_id).values(state=BatchState.OPEN, finished_ms=None)
    )


def _select() -> Select[Any]:
    return select(runs, batches.c.watch_id).join(batches, batches.c.id == runs.c.batch_id)


def _run(row: Any) -> Run:
    values = {column.name: getattr(row, column.name) for column in runs.c}
    values["watch_id"] = row.watch_id
    values["state"] = RunState(values["state"])
    values["step"] = Step(values["step"])
    values["result"] = msgspec.json.decode(values["result"])
    return Run(**values)
