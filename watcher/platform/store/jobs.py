"""Jobs: claimed with a lease by conditional updates, ended in the transaction that stores what they made."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from watcher.platform.store.tables import jobs

JobRow = Row[Any]
MAX_ATTEMPTS = 5


def insert_job(session: Session, *, values: Mapping[str, Any]) -> None:
    """Adds a waiting job."""
    session.execute(insert(jobs).values(status="WAITING", attempts=0, cancel_requested=False, **values))


def load_job(session: Session, *, job_id: str) -> JobRow | None:
    """One job."""
    return session.execute(select(jobs).where(jobs.c.id == job_id)).first()


def load_jobs(session: Session, *, user_id: str, limit: int) -> list[JobRow]:
    """The newest jobs of a user."""
    query = (
        select(jobs)
        .where(jobs.c.user_id == user_id)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(limit)
    )
    return list(session.execute(query))


def is_claimed(session: Session, *, dataset_id: str, claim_key: str) -> bool:
    """Whether an unfinished job will make that thing."""
    found = select(exists().where(jobs.c.dataset_id == dataset_id, jobs.c.claim_key == claim_key))
    return bool(session.execute(found).scalar_one())


def count_waiting(session: Session, *, user_id: str, kind: str, limit: int) -> int:
    """How many jobs of that kind of a user wait; counts no further than `limit`."""
    waiting = select(jobs.c.id).where(
        jobs.c.status == "WAITING", jobs.c.user_id == user_id, jobs.c.type == kind
    )
    count: int = session.execute(
        select(func.count()).select_from(waiting.limit(limit).subquery())
    ).scalar_one()
    return count


def claim_job(session: Session, *, kind: str, owner: str, now_ms: int, lease_ms: int) -> JobRow | None:
    """Takes a job of that kind that waits or whose owner went silent.

    Users take turns: the next one is whose last turn is the longest ago, with their oldest job.
    """
    earlier = jobs.alias()
    last_turn = (
        select(func.coalesce(func.max(earlier.c.started_at), 0))
        .where(earlier.c.user_id == jobs.c.user_id, earlier.c.type == kind)
        .scalar_subquery()
    )
    query = (
        select(jobs.c.id)
        .where(_is_ready(kind, now_ms))
        .order_by(last_turn, jobs.c.created_at, jobs.c.id)
        .limit(1)
    )
    job_id = session.execute(query.with_for_update(skip_locked=True)).scalar()
    if job_id is None:
        return None
    session.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(
            status="RUNNING",
            lease_owner=owner,
            lease_until=now_ms + lease_ms,
            attempts=jobs.c.attempts + 1,
            modified_at=now_ms,
            started_at=now_ms,
        )
    )
    return load_job(session, job_id=job_id)


def renew_lease(
    session: Session, *, job_id: str, owner: str, now_ms: int, lease_ms: int, n_processed: int, n_total: int
) -> bool | None:
    """Reports progress and keeps the job; tells whether it shall stop, None if another one has it."""
    changed: Any = session.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.lease_owner == owner, jobs.c.status == "RUNNING")
        .values(lease_until=now_ms + lease_ms, modified_at=now_ms, n_processed=n_processed, n_total=n_total)
    )
    if not changed.rowcount:
        return None
    return bool(session.execute(select(jobs.c.cancel_requested).where(jobs.c.id == job_id)).scalar_one())


def finish_job(
    session: Session,
    *,
    job_id: str,
    owner: str | None,
    now_ms: int,
    error: str | None,
    result: str | None = None,
    progress: tuple[int, int] | None = None,
) -> bool:
    """Ends the job if `owner` still has it (None: whoever has it); tells whether it did.

    Args:
        session: the transaction.
        job_id: which job.
        owner: of the lease.
        now_ms: the time.
        error: why it failed; None if it did what was asked.
        result: what it made, as JSON.
        progress: how much is done, and of how much; None leaves what was told last.
    """
    query = update(jobs).where(jobs.c.id == job_id, jobs.c.status.in_(("WAITING", "RUNNING")))
    if owner is not None:
        query = query.where(jobs.c.lease_owner == owner)
    if progress is not None:
        query = query.values(n_processed=progress[0], n_total=progress[1])
    changed: Any = session.execute(
        query.values(
            status="FAILED" if error is not None else "FINISHED",
            error=error,
            result=result,
            claim_key=None,
            lease_owner=None,
            lease_until=None,
            modified_at=now_ms,
            finished_at=now_ms,
        )
    )
    return bool(changed.rowcount)


def release_job(session: Session, *, job_id: str, owner: str, now_ms: int, counted: bool = False) -> None:
    """Gives the job back for the next worker; the attempt counts only if `counted`."""
    session.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.lease_owner == owner, jobs.c.status == "RUNNING")
        .values(
            status="WAITING",
            lease_owner=None,
            lease_until=None,
            modified_at=now_ms,
            attempts=jobs.c.attempts - (0 if counted else 1),
        )
    )


def request_cancel(session: Session, *, job_id: str, now_ms: int) -> None:
    """Asks the worker to stop."""
    session.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True, modified_at=now_ms))


def has_ready(session: Session, *, kind: str, now_ms: int) -> bool:
    """Whether there is a job of that kind to take; a look that locks nothing."""
    return bool(session.execute(_build_look(), {"kind": kind, "now_ms": now_ms}).scalar_one())


@functools.cache
def _build_look() -> Select[Any]:
    """Built once, since idle workers ask all the time."""
    return select(exists().where(_is_ready(bindparam("kind"), bindparam("now_ms"))))


def is_owner(session: Session, *, job_id: str, owner: str) -> bool:
    """Whether the job still runs under this owner; other takers wait until the end of the transaction."""
    query = select(jobs.c.id).where(
        jobs.c.id == job_id, jobs.c.lease_owner == owner, jobs.c.status == "RUNNING"
    )
    return session.execute(query.with_for_update()).first() is not None


def delete_jobs_of(session: Session, *, user_id: str) -> None:
    """Removes all jobs of a user; a worker that has one finds it lost, and stores nothing."""
    session.execute(delete(jobs).where(jobs.c.user_id == user_id))


def delete_ended(session: Session, *, before_ms: int, limit: int) -> int:
    """Removes that many jobs at the most that ended before; gives their number."""
    ended = (
        select(jobs.c.id)
        .where(
            jobs.c.status.in_(("FINISHED", "FAILED")),
            # A job was made before it ended: so far the index leads.
            jobs.c.created_at < before_ms,
            jobs.c.finished_at < before_ms,
        )
        .limit(limit)
    )
    found = list(session.execute(ended.with_for_update(skip_locked=True)).scalars())
    session.execute(delete(jobs).where(jobs.c.id.in_(found)))
    return len(found)


def _is_ready(kind: Any, now_ms: Any) -> ColumnElement[bool]:
    silent = and_(jobs.c.status == "RUNNING", jobs.c.lease_until < now_ms)
    return and_(jobs.c.type == kind, or_(jobs.c.status == "WAITING", silent))
