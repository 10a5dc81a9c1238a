"""What was picked of a batch, and where the picks were handed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, delete, insert, select
from sqlalchemy.orm import Session

from watcher.domain.models import Delivery, Pick
from watcher.store.tables import batches, deliveries, picks, samples


def replace_picks(
    session: Session, *, batch_id: int, rows: Sequence[tuple[int, int, dict[str, Any]]]
) -> None:
    """Stores the picks of a batch as (sample id, rank, reason) in the place of earlier ones."""
    session.execute(delete(picks).where(picks.c.batch_id == batch_id))
    if rows:
        session.execute(
            insert(picks),
            [
                {
                    "batch_id": batch_id,
                    "sample_id": sample_id,
                    "rank": rank,
                    "reason": msgspec.json.encode(reason).decode(),
                }
                for sample_id, rank, reason in rows
            ],
        )


def load_picks(session: Session, *, batch_id: int) -> list[Pick]:
    """The picks of a batch by rank."""
    return [_pick(row) for row in session.execute(_select().where(picks.c.batch_id == batch_id))]


def load_latest_picks(session: Session, *, watch_id: int, limit: int) -> list[Pick]:
    """The newest picks of a watch, best first within a batch."""
    statement = (
        _select(newest_first=True)
        .join(batches, batches.c.id == picks.c.batch_id)
        .where(batches.c.watch_id == watch_id)
        .limit(limit)
    )
    return [_pick(row) for row in session.execute(statement)]


def load_picks_of_sample(session: Session, *, sample_id: int) -> list[Pick]:
    """Every time a sample was picked."""
    return [_pick(row) for row in session.execute(_select().where(picks.c.sample_id == sample_id))]


def record_delivery(session: Session, *, delivery: Delivery) -> None:
    """Notes a delivery in the place of an earlier one of the same batch and sink."""
    session.execute(
        delete(deliveries).where(
            deliveries.c.batch_id == delivery.batch_id, deliveries.c.sink == delivery.sink
        )
    )
    session.execute(
        insert(deliveries).values(
            batch_id=delivery.batch_id,
            sink=delivery.sink,
            location=delivery.location,
            n_picks=delivery.n_picks,
            delivered_ms=delivery.delivered_ms,
        )
    )


def load_deliveries(session: Session, *, batch_id: int) -> list[Delivery]:
    """The deliveries of a batch."""
    rows = session.execute(
        select(deliveries).where(deliveries.c.batch_id == batch_id).order_by(deliveries.c.sink)
    )
    return [Delivery(**{column.name: getattr(row, column.name) for column in deliveries.c}) for row in rows]


def _select(*, newest_first: bool = False) -> Select[Any]:
    order = (picks.c.batch_id.desc(), picks.c.rank) if newest_first else (picks.c.batch_id, picks.c.rank)
    return (
        select(picks, samples.c.file_name, samples.c.remote_id)
        .join(samples, samples.c.id == picks.c.sample_id)
        .order_by(*order)
    )


def _pick(row: Any) -> Pick:
    return Pick(
        batch_id=row.batch_id,
        sample_id=row.sample_id,
        file_name=row.file_name,
        remote_id=row.remote_id,
        rank=row.rank,
        reason=msgspec.json.decode(row.reason),
    )
