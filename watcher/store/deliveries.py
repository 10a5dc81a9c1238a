"""Deliveries: promised with the batch, claimed under a lease, ended only by the receiver's word.

Each is a row with its own attempts and waits, so that a receiver that is down for days holds up neither the others nor
the next batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select, text, tuple_, update
from sqlalchemy.orm import Session, aliased

from watcher.domain.delivery import Delivery, DeliveryState, SinkKind
from watcher.store.tables import batches, delivered_tasks, handovers, watches

_MOST_TRIES = 5
_OPEN = (DeliveryState.READY, DeliveryState.RUNNING)
_UNCONFIRMED = (*_OPEN, DeliveryState.DEAD)


def promise_deliveries(
    session: Session,
    *,
    batch_id: int,
    watch_id: int,
    sinks: Sequence[tuple[str, SinkKind]],
    n_picks: int,
    picks_digest: str,
    now_ms: int,
) -> int:
    """A delivery that is ready now for each sink that has none of this batch yet.

    Returns:
        How many were made.
    """
    known = set(session.execute(select(handovers.c.sink).where(handovers.c.batch_id == batch_id)).scalars())
    rows = [
        {
            "batch_id": batch_id,
            "watch_id": watch_id,
            "sink": name,
            "kind": kind,
            "state": DeliveryState.READY,
            "n_picks": n_picks,
            "picks_digest": picks_digest,
            "available_ms": now_ms,
            "created_ms": now_ms,
        }
        for name, kind in sinks
        if name not in known
    ]
    if rows:
        session.execute(insert(handovers), rows)
    return len(rows)


def claim_delivery(
    session: Session,
    *,
    owner: str,
    now_ms: int,
    lease_ms: int,
    watch_names: Collection[str],
    sinks: Collection[tuple[str, str]] | None = None,
) -> Delivery | None:
    """Takes the longest ready delivery under a lease, and counts an attempt; None if there is none.

    One whose lease ran out counts as ready again. A sink gets one delivery at a time, so that one that hangs occupies
    one worker; deliveries of paused watches wait.

    Args:
        session: an open transaction.
        owner: who takes it.
        now_ms: the present.
        lease_ms: how long the claim lasts without a heartbeat.
        watch_names: only deliveries of these watches.
        sinks: only deliveries to these, as (watch name, sink); None for any.
    """
    _release_expired(session, now_ms=now_ms)
    ready = _select_ready(now_ms=now_ms, watch_names=watch_names, sinks=sinks)
    for _ in range(_MOST_TRIES):
        found = session.execute(ready.limit(1).with_for_update(of=handovers, skip_locked=True)).one_or_none()
        if found is None:
            return None
        # From here on other claims for this sink wait, so that what is asked again below stays true.
        _lock_sink(session, watch_id=found.watch_id, sink=found.sink)
        still = ready.where(handovers.c.id == found.id).subquery()
        claimed: Any = session.execute(
            update(handovers)
            .where(handovers.c.id == found.id, handovers.c.id.in_(select(still.c.id)))
            .values(
                state=DeliveryState.RUNNING,
                attempt=handovers.c.attempt + 1,
                started_ms=now_ms,
                lease_owner=owner,
                lease_until_ms=now_ms + lease_ms,
            )
        )
        if claimed.rowcount == 1:
            return load_delivery(session, delivery_id=found.id)
    return None


def _release_expired(session: Session, *, now_ms: int) -> None:
    is_expired = and_(handovers.c.state == DeliveryState.RUNNING, handovers.c.lease_until_ms < now_ms)
    expired = select(handovers.c.id).where(is_expired).with_for_update(skip_locked=True)
    session.execute(
        update(handovers)
        .where(handovers.c.id.in_(expired), is_expired)
        .values(state=DeliveryState.READY, lease_owner=None, lease_until_ms=None, error="the lease ran out")
    )


def _select_ready(
    *, now_ms: int, watch_names: Collection[str], sinks: Collection[tuple[str, str]] | None
) -> Select[Any]:
    """The deliveries that may be claimed, the next one first, as (id, watch_id, sink)."""
    other = aliased(handovers)
    is_sink_busy = (
        select(other.c.id)
        .where(
            other.c.state == DeliveryState.RUNNING,
            other.c.watch_id == handovers.c.watch_id,
            other.c.sink == handovers.c.sink,
        )
        .correlate(handovers)
        .exists()
    )
    statement = (
        select(handovers.c.id, handovers.c.watch_id, handovers.c.sink)
        .join(watches, watches.c.id == handovers.c.watch_id)
        .where(
            handovers.c.state == DeliveryState.READY,
            handovers.c.available_ms <= now_ms,
            ~is_sink_busy,
            watches.c.paused_ms.is_(None),
            watches.c.name.in_(watch_names),
        )
        .order_by(handovers.c.available_ms, handovers.c.id)
    )
    if sinks is not None:
        statement = statement.where(tuple_(watches.c.name, handovers.c.sink).in_(sorted(sinks)))
    return statement


def _lock_sink(session: Session, *, watch_id: int, sink: str) -> None:
    """SQLite has one writer anyway."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"delivery {watch_id} {sink}"},
        )


def release_all(session: Session, *, now_ms: int, owner_start: str | None = None) -> int:
    """Makes running deliveries ready that a killed process left, as for runs.

    Args:
        session: an open transaction.
        now_ms: the present.
        owner_start: only of owners whose name begins so; None for all, where no other process can hold one.

    Returns:
        How many.
    """
    theirs = handovers.c.state == DeliveryState.RUNNING
    if owner_start is not None:
        theirs &= handovers.c.lease_owner.startswith(owner_start, autoescape=True)
    result: Any = session.execute(
        update(handovers)
        .where(theirs)
        .values(state=DeliveryState.READY, available_ms=now_ms, lease_owner=None, lease_until_ms=None)
    )
    return int(result.rowcount)


def extend_lease(session: Session, *, delivery_id: int, owner: str, until_ms: int) -> bool:
    """Keeps a delivery; False if it is no longer this owner's."""
    return _update_held(session, delivery_id, owner, lease_until_ms=until_ms)


def save_progress(session: Session, *, delivery_id: int, owner: str, progress: Mapping[str, Any]) -> bool:
    """Keeps what the next attempt should know; False if the delivery is no longer this owner's."""
    return _update_held(session, delivery_id, owner, progress=msgspec.json.encode(progress).decode())


def record_tasks(session: Session, *, delivery_id: int, tasks: Mapping[int, str]) -> None:
    """Keeps the receiver's own ids as (sample id: task id), in the place of earlier ones of these samples."""
    if not tasks:
        return
    session.execute(
        delete(delivered_tasks).where(
            delivered_tasks.c.delivery_id == delivery_id, delivered_tasks.c.sample_id.in_(tasks)
        )
    )
    session.execute(
        insert(delivered_tasks),
        [
            {"delivery_id": delivery_id, "sample_id": sample_id, "task_id": task_id}
            for sample_id, task_id in tasks.items()
        ],
    )


def end_delivery(
    session: Session,
    *,
    delivery_id: int,
    owner: str,
    state: DeliveryState,
    now_ms: int,
    location: str | None = None,
    error: str | None = None,
) -> bool:
    """Ends a delivery; False if it is no longer this owner's."""
    values: dict[str, Any] = {"state": state, "finished_ms": now_ms, "error": error}
    if location is not None:
        values["location"] = location
    return _update_held(session, delivery_id, owner, lease_owner=None, lease_until_ms=None, **values)


def postpone_delivery(
    session: Session,
    *,
    delivery_id: int,
    owner: str,
    available_ms: int,
    error: str | None,
    count_attempt: bool,
) -> bool:
    """Gives a delivery back until a time; False if it is no longer this owner's.

    Args:
        session: an open transaction.
        delivery_id: which one.
        owner: who holds it.
        available_ms: not claimed before this time.
        error: why, None to keep what stands there.
        count_attempt: False when it was interrupted by a shutdown.
    """
    values: dict[str, Any] = {"state": DeliveryState.READY, "available_ms": available_ms}
    if error is not None:
        values["error"] = error
    if not count_attempt:
        values["attempt"] = handovers.c.attempt - 1
    return _update_held(session, delivery_id, owner, lease_owner=None, lease_until_ms=None, **values)


def _update_held(session: Session, delivery_id: int, owner: str, **values: Any) -> bool:
    result: Any = session.execute(
        update(handovers)
        .where(
            handovers.c.id == delivery_id,
            handovers.c.lease_owner == owner,
            handovers.c.state == DeliveryState.RUNNING,
        )
        .values(**values)
    )
    return bool(result.rowcount == 1)


def revive_deliveries(
    session: Session, *, watch_id: int, now_ms: int, batch_key: str | None = None, sink: str | None = None
) -> int:
    """Makes deliveries ready again, with all their attempts and days before them; dropped ones only by their batch.

    Args:
        session: an open transaction.
        watch_id: of this watch.
        now_ms: the present.
        batch_key: absent: all dead ones. Given: those of this batch, delivered ones too, but for one under way.
        sink: only those to this sink.

    Returns:
        How many.
    """
    state = (
        handovers.c.state == DeliveryState.DEAD
        if batch_key is None
        else handovers.c.state != DeliveryState.RUNNING
    )
    chosen = _choose(watch_id, batch_key, sink)
    result: Any = session.execute(
        update(handovers)
        .where(*chosen, state)
        .values(
            state=DeliveryState.READY,
            attempt=0,
            available_ms=now_ms,
            created_ms=now_ms,
            finished_ms=None,
            error=None,
            progress="{}",
        )
    )
    return int(result.rowcount)


def drop_deliveries(
    session: Session, *, watch_id: int, now_ms: int, batch_key: str | None = None, sink: str | None = None
) -> tuple[int, int]:
    """Lets dead deliveries be, so that nobody is told of them any more; why they died stays with them.

    Args:
        session: an open transaction.
        watch_id: of this watch.
        now_ms: the present.
        batch_key: only those of this batch.
        sink: only those to this sink.

    Returns:
        How many, and how many of those meant are dropped now, before or by this.
    """
    chosen = _choose(watch_id, batch_key, sink)
    result: Any = session.execute(
        update(handovers)
        .where(*chosen, handovers.c.state == DeliveryState.DEAD)
        .values(state=DeliveryState.DROPPED, finished_ms=now_ms)
    )
    dropped = select(func.count()).where(*chosen, handovers.c.state == DeliveryState.DROPPED)
    return int(result.rowcount), session.execute(dropped).scalar_one()


def _choose(watch_id: int, batch_key: str | None, sink: str | None) -> list[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = [handovers.c.watch_id == watch_id]
    if batch_key is not None:
        batch = select(batches.c.id).where(batches.c.watch_id == watch_id, batches.c.key == batch_key)
        chosen.append(handovers.c.batch_id.in_(batch))
    if sink is not None:
        chosen.append(handovers.c.sink == sink)
    return chosen


def load_delivery(session: Session, *, delivery_id: int) -> Delivery:
    """The delivery of that id."""
    return _delivery(session.execute(select(handovers).where(handovers.c.id == delivery_id)).one())


def load_deliveries(session: Session, *, batch_id: int) -> list[Delivery]:
    """The deliveries of a batch, by sink."""
    rows = session.execute(
        select(handovers).where(handovers.c.batch_id == batch_id).order_by(handovers.c.sink)
    )
    return [_delivery(row) for row in rows]


def load_dead_deliveries(
    session: Session, *, limit: int, watch_id: int | None = None
) -> list[tuple[str, str, Delivery]]:
    """Dead deliveries of a watch, or of all, as (watch name, batch key, delivery), newest first."""
    statement = _select_named().where(handovers.c.state == DeliveryState.DEAD)
    if watch_id is not None:
        statement = statement.where(handovers.c.watch_id == watch_id)
    rows = session.execute(statement.order_by(handovers.c.id.desc()).limit(limit))
    return [(row.watch_name, row.batch_key, _delivery(row)) for row in rows]


def load_unconfirmed(session: Session, *, watch_id: int, limit: int) -> list[tuple[str, Delivery]]:
    """Deliveries of a watch that are under way or were given up, as (batch key, delivery), oldest first."""
    statement = _select_named().where(handovers.c.watch_id == watch_id, handovers.c.state.in_(_UNCONFIRMED))
    rows = session.execute(statement.order_by(handovers.c.id).limit(limit))
    return [(row.batch_key, _delivery(row)) for row in rows]


def count_by_state(session: Session) -> dict[tuple[str, str, DeliveryState], int]:
    """Deliveries by (watch name, sink, state)."""
    statement = (
        select(watches.c.name, handovers.c.sink, handovers.c.state, func.count())
        .join(watches, watches.c.id == handovers.c.watch_id)
        .group_by(watches.c.name, handovers.c.sink, handovers.c.state)
    )
    return {(name, sink, DeliveryState(state)): n for name, sink, state, n in session.execute(statement)}


def load_oldest_open(session: Session) -> dict[tuple[str, str], int]:
    """When the oldest delivery that is not confirmed was promised, by (watch name, sink), unix milliseconds."""
    statement = (
        select(watches.c.name, handovers.c.sink, func.min(handovers.c.created_ms))
        .join(watches, watches.c.id == handovers.c.watch_id)
        .where(handovers.c.state.in_(_OPEN))
        .group_by(watches.c.name, handovers.c.sink)
    )
    return {(name, sink): oldest_ms for name, sink, oldest_ms in session.execute(statement)}


def load_task_ids(session: Session, *, sample_id: int) -> dict[int, str]:
    """The receivers' own ids of a sample, as (delivery id: task id)."""
    statement = select(delivered_tasks.c.delivery_id, delivered_tasks.c.task_id).where(
        delivered_tasks.c.sample_id == sample_id
    )
    return {row.delivery_id: row.task_id for row in session.execute(statement)}


def _select_named() -> Select[Any]:
    return (
        select(handovers, watches.c.name.label("watch_name"), batches.c.key.label("batch_key"))
        .join(watches, watches.c.id == handovers.c.watch_id)
        .join(batches, batches.c.id == handovers.c.batch_id)
    )


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row.id,
        batch_id=row.batch_id,
        watch_id=row.watch_id,
        sink=row.sink,
        kind=SinkKind(row.kind),
        state=DeliveryState(row.state),
        attempt=row.attempt,
        n_picks=row.n_picks,
        available_ms=row.available_ms,
        created_ms=row.created_ms,
        location=row.location,
        started_ms=row.started_ms,
        finished_ms=row.finished_ms,
        error=row.error,
        progress=msgspec.json.decode(row.progress),
        picks_digest=row.picks_digest,
    )
