"""Runs: made, kept under a lease, ended with an outcome. Which run is claimed next tells `watcher.store.claims`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.models import PROCESS_ENDED, BatchState, Run, RunState, Step
from watcher.store.tables import batches, runs, watches

# Left in `session.info` by whatever may make a run ready, for those who tell a queue of it.
READY = "runs_became_ready"


def create_run(session: Session, *, batch_id: int, step: Step, now_ms: int, shard: int = 0) -> None:
    """A run that is ready now."""
    session.info[READY] = True
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


def create_shards(
    session: Session, *, batch_id: int, step: Step, bounds: Sequence[tuple[int, int]], now_ms: int
) -> None:
    """Runs 1, 2, ... of a step, ready now, over the ranges of sample ids."""
    session.info[READY] = True
    session.execute(
        insert(runs),
        [
            {
                "batch_id": batch_id,
                "step": step,
                "shard": shard,
                "first_sample_id": first,
                "last_sample_id": last,
                "state": RunState.READY,
                "available_ms": now_ms,
                "created_ms": now_ms,
            }
            for shard, (first, last) in enumerate(bounds, 1)
        ],
    )


def release_all(session: Session, *, now_ms: int, owner_start: str | None = None) -> int:
    """Makes running runs ready that a killed process left, before their leases run out.

    Args:
        session: an open transaction.
        now_ms: the present.
        owner_start: only runs of owners whose name begins so; None for all, where no other process can hold one.

    Returns:
        How many.
    """
    theirs = runs.c.state == RunState.RUNNING
    if owner_start is not None:
        theirs &= runs.c.lease_owner.startswith(owner_start, autoescape=True)
    result: Any = session.execute(
        update(runs)
        .where(theirs)
        .values(
            state=RunState.READY,
            available_ms=now_ms,
            lease_owner=None,
            lease_until_ms=None,
            dispatched_ms=None,
            error=PROCESS_ENDED,
        )
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
    values: dict[str, object] = {
        "state": RunState.READY,
        "available_ms": available_ms,
        "dispatched_ms": None,
    }
    if error is not None:
        values["error"] = error
    if not count_attempt:
        values["attempt"] = runs.c.attempt - 1
    return _leave(session, run_id, owner, **values)


def _leave(session: Session, run_id: int, owner: str, **values: object) -> bool:
    session.info[READY] = True  # of a watch with a limit another one may go now
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


def load_finished_steps(session: Session, *, batch_id: int) -> set[Step]:
    """The steps of a batch that ended well: those whose run 0 is done."""
    statement = select(runs.c.step).where(
        runs.c.batch_id == batch_id, runs.c.shard == 0, runs.c.state == RunState.DONE
    )
    return {Step(step) for step in session.execute(statement).scalars()}


def load_shard_results(session: Session, *, batch_id: int, step: Step) -> list[dict[str, Any]]:
    """What the shards of a step left behind that ended well, in their order; empty for a step of one run."""
    statement = (
        select(runs.c.result)
        .where(
            runs.c.batch_id == batch_id,
            runs.c.step == step,
            runs.c.shard > 0,
            runs.c.state == RunState.DONE,
        )
        .order_by(runs.c.shard)
    )
    return [msgspec.json.decode(result) for result in session.execute(statement).scalars()]


def load_dead_runs(session: Session, *, limit: int, watch_id: int | None = None) -> list[tuple[str, Run]]:
    """Dead runs of a watch, or of all, as (watch name, run), newest first."""
    statement = (
        _select()
        .add_columns(watches.c.name.label("watch_name"))
        .join(watches, watches.c.id == batches.c.watch_id)
        .where(runs.c.state == RunState.DEAD)
        .order_by(runs.c.id.desc())
        .limit(limit)
    )
    if watch_id is not None:
        statement = statement.where(batches.c.watch_id == watch_id)
    return [(row.watch_name, _run(row)) for row in session.execute(statement)]


def revive_run(session: Session, *, run_id: int, now_ms: int) -> None:
    """Makes a dead run ready again, with all its attempts before it, and opens its batch."""
    session.info[READY] = True
    run = load_run(session, run_id=run_id)
    session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.DEAD)
        .values(state=RunState.READY, attempt=0, available_ms=now_ms, finished_ms=None, dispatched_ms=None)
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
