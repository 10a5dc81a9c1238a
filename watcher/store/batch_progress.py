"""How the newest batches of the watches stand: steps, deliveries, novelty; a statement each for all of them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from watcher.domain.delivery import DeliveryState, SinkKind
from watcher.domain.models import RunState, Step
from watcher.store import batches
from watcher.store.tables import batch_novelties, handovers, runs


class RunGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a step that are in one state, counted in the database: a large batch has thousands of shards.

    Attributes:
        is_shard: whether they are shards; a step's run over the whole batch is in a group of its own.
        attempt: the most that any of them had.
        error: of one of them, if any has one.
        first_id: the smallest id of a run among them.
    """

    step: Step
    is_shard: bool
    state: RunState
    n: int
    attempt: int
    error: str | None
    first_id: int


class DeliveryStand(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery without its progress, which may be long."""

    sink: str
    kind: SinkKind
    state: DeliveryState
    attempt: int
    location: str | None
    error: str | None


class BatchProgress(msgspec.Struct, kw_only=True):
    """What became of a batch so far; deliveries by sink, runs in the order of their making."""

    runs: list[RunGroup] = msgspec.field(default_factory=list)
    deliveries: list[DeliveryStand] = msgspec.field(default_factory=list)
    ratio: float | None = None
    n_near_duplicates: int | None = None
    n_without_vector: int | None = None


def load_progress(
    session: Session, *, limit: int, watch_id: int | None = None
) -> defaultdict[int, BatchProgress]:
    """By batch id, for the newest `limit` batches of a watch, or of each."""
    recent = batches.select_recent(session, limit=limit, watch_id=watch_id).subquery("recent")
    ids: Select[Any] = select(recent.c.id)
    progress: defaultdict[int, BatchProgress] = defaultdict(BatchProgress)
    is_shard = (runs.c.shard > 0).label("is_shard")
    grouped = (
        select(
            runs.c.batch_id,
            runs.c.step,
            is_shard,
            runs.c.state,
            func.count().label("n"),
            func.max(runs.c.attempt).label("attempt"),
            func.min(runs.c.error).label("error"),
            func.min(runs.c.id).label("first_id"),
        )
        .where(runs.c.batch_id.in_(ids))
        .group_by(runs.c.batch_id, runs.c.step, is_shard, runs.c.state)
        .order_by(func.min(runs.c.id))
    )
    for row in session.execute(grouped):
        progress[row.batch_id].runs.append(
            RunGroup(
                step=Step(row.step),
                is_shard=bool(row.is_shard),
                state=RunState(row.state),
                n=row.n,
                attempt=row.attempt,
                error=row.error,
                first_id=row.first_id,
            )
        )
    under_way = select(
        handovers.c.batch_id,
        handovers.c.sink,
        handovers.c.kind,
        handovers.c.state,
        handovers.c.attempt,
        handovers.c.location,
        handovers.c.error,
    ).where(handovers.c.batch_id.in_(ids))
    for row in session.execute(under_way.order_by(handovers.c.batch_id, handovers.c.sink)):
        progress[row.batch_id].deliveries.append(
            DeliveryStand(
                sink=row.sink,
                kind=SinkKind(row.kind),
                state=DeliveryState(row.state),
                attempt=row.attempt,
                location=row.location,
                error=row.error,
            )
        )
    measured = select(
        batch_novelties.c.batch_id,
        batch_novelties.c.ratio,
        batch_novelties.c.n_near_duplicates,
        batch_novelties.c.n_without_vector,
    ).where(batch_novelties.c.batch_id.in_(ids))
    for row in session.execute(measured):
        progress[row.batch_id].ratio = row.ratio
        progress[row.batch_id].n_near_duplicates = row.n_near_duplicates
        progress[row.batch_id].n_without_vector = row.n_without_vector
    return progress
