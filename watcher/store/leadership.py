"""Who leads: one row with an epoch that grows with every new leader, and a lease by the database's own clock.

Every transaction of a leader asks for its epoch first (`require_epoch`). On Postgres that holds the row until the
transaction ends, and a new leader waits for it there; so nothing of an old leader is committed after a new one began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, cast, func, literal_column, select, text, update
from sqlalchemy.orm import Session

from watcher.domain.errors import FencedError
from watcher.store.inserting import build_insert
from watcher.store.tables import leadership

_ROW = 1
# A transaction of the old leader that is under way may end; one that hangs is ended (see `_end_sessions`).
_TAKE_OVER_WAIT_MS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The present leader.

    Attributes:
        epoch: the term of office, from 1.
        holder: name of the process; None if it left.
        left_ms: how long its lease still holds; 0 or less if it ran out.
        work_version: what its runs mean, see `watcher.domain.pipeline.WORK_VERSION`.
    """

    epoch: int
    holder: str | None
    left_ms: int
    work_version: int | None

    @property
    def is_in_office(self) -> bool:
        """Whether nobody else may lead."""
        return self.holder is not None and self.left_ms > 0


def tell_who_does_it(leader: Leader) -> str:
    """Who does what only the leader can."""
    if leader.is_in_office:
        return f"{leader.holder} leads and begins within seconds"
    return "nobody leads at present, so the next leader does it"


def load_leader(session: Session) -> Leader:
    """The leader; epoch 0 if there never was one."""
    row = session.execute(
        select(leadership, (leadership.c.until_ms - _now_ms(session)).label("left_ms")).where(
            leadership.c.id == _ROW
        )
    ).one_or_none()
    if row is None:
        return Leader(epoch=0, holder=None, left_ms=0, work_version=None)
    return Leader(epoch=row.epoch, holder=row.holder, left_ms=row.left_ms, work_version=row.work_version)


def take_lead(
    session: Session, *, holder: str, lease_ms: int, work_version: int, force: bool = False
) -> int | None:
    """Begins a new term of office.

    Args:
        session: an open transaction.
        holder: name of the process that wants to lead, which is also that of its connections.
        lease_ms: how long it leads without a sign of life.
        work_version: what its runs mean.
        force: also if another one's lease still holds; for SQLite, whose file lock tells better.

    Returns:
        The new epoch; None if another process leads.
    """
    before = load_leader(session)
    if before.is_in_office and not force:
        return None
    session.execute(
        build_insert(session, leadership).values(id=_ROW, epoch=0, until_ms=0).on_conflict_do_nothing()
    )
    if not _is_sqlite(session):
        if before.holder is not None:
            _end_sessions(session, holder=before.holder)
        session.execute(text(f"SET LOCAL lock_timeout = {_TAKE_OVER_WAIT_MS}"))
        session.execute(select(leadership.c.id).where(leadership.c.id == _ROW).with_for_update())
    result: Any = session.execute(
        update(leadership)
        .where(leadership.c.id == _ROW, leadership.c.epoch == before.epoch)
        .values(
            epoch=before.epoch + 1,
            holder=holder,
            until_ms=_now_ms(session) + lease_ms,
            work_version=work_version,
        )
    )
    return before.epoch + 1 if result.rowcount == 1 else None


def _end_sessions(session: Session, *, holder: str) -> None:
    """Ends what the old leader left open, as a frozen process would hold the row for ever; it is rolled back."""
    session.execute(
        text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"
            " AND usename = current_user AND datname = current_database() AND state = 'idle in transaction'"
        ),
        {"name": holder},
    )


def extend_lead(session: Session, *, holder: str, epoch: int, lease_ms: int) -> bool:
    """A sign of life; False if another process leads."""
    result: Any = session.execute(
        update(leadership)
        .where(leadership.c.id == _ROW, leadership.c.epoch == epoch, leadership.c.holder == holder)
        .values(until_ms=_now_ms(session) + lease_ms)
    )
    return bool(result.rowcount == 1)


def give_up_lead(session: Session, *, holder: str, epoch: int) -> None:
    """Ends the term of office, so that another process need not wait for the lease."""
    session.execute(
        update(leadership)
        .where(leadership.c.id == _ROW, leadership.c.epoch == epoch, leadership.c.holder == holder)
        .values(until_ms=0, holder=None)
    )


def require_epoch(session: Session, *, epoch: int) -> None:
    """Holds the term of office until the end of the transaction.

    Raises:
        FencedError: another process leads; nothing of this transaction may be kept.
    """
    statement = (
        select(leadership.c.epoch).where(leadership.c.id == _ROW).with_for_update(read=True, key_share=True)
    )
    present = session.execute(statement).scalar()
    if present != epoch or epoch == 0:
        raise FencedError(
            f"this process led in epoch {epoch}, but epoch {present} has begun: another replica leads, and this "
            "write is dropped"
        )


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _now_ms(session: Session) -> Any:
    """The database's clock, in unix milliseconds."""
    if _is_sqlite(session):
        return cast((func.julianday("now") - 2440587.5) * 86_400_000, Integer)
    return literal_column("(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
