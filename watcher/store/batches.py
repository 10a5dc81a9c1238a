"""Batches."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.models import Batch, BatchState, RunState, Step
from watcher.store.newest import select_newest
from watcher.store.tables import batches, runs, watches


def create_batch(
    session: Session, *, watch_id: int, watch_name: str, steps: tuple[Step, ...], now_ms: int
) -> Batch:
    """An empty batch with the next number of its watch; its key is `<watch>-<number>`."""
    last = session.execute(select(func.max(batches.c.number)).where(batches.c.watch_id == watch_id)).scalar()
    number = (last or 0) + 1
    batch_id = session.execute(
        insert(batches)
        .values(
            watch_id=watch_id,
            number=number,
            key=f"{watch_name}-{number:06d}",
            state=BatchState.OPEN,
            steps=",".join(steps),
            n_samples=0,
            created_ms=now_ms,
        )
        .returning(batches.c.id)
    ).scalar_one()
    return load_batch(session, batch_id=batch_id)


def load_batch(session: Session, *, batch_id: int) -> Batch:
    """The batch of that id."""
    return _batch(session.execute(select(batches).where(batches.c.id == batch_id)).one())


def count_open(session: Session, *, watch_id: int) -> int:
    """How many batches of a watch are under way."""
    statement = select(func.count()).where(batches.c.watch_id == watch_id, batches.c.state == BatchState.OPEN)
    return session.execute(statement).scalar_one()


def load_unsampled(session: Session, *, watch_id: int, from_ms: int, to_ms: int) -> list[tuple[int, int]]:
    """Batches under way that were cut in [from_ms, to_ms) and will be sampled, as (id, samples), oldest first."""
    is_sampled = (
        select(runs.c.id)
        .where(runs.c.batch_id == batches.c.id, runs.c.step == Step.SAMPLING, runs.c.state == RunState.DONE)
        .correlate(batches)
        .exists()
    )
    statement = (
        select(batches.c.id, batches.c.n_samples, batches.c.steps)
        .where(
            batches.c.watch_id == watch_id,
            batches.c.state == BatchState.OPEN,
            batches.c.created_ms >= from_ms,
            batches.c.created_ms < to_ms,
            ~is_sampled,
        )
        .order_by(batches.c.id)
    )
    return [
        (row.id, row.n_samples)
        for row in session.execute(statement)
        if Step.SAMPLING in _split_steps(row.steps)
    ]


def update_size(session: Session, *, batch_id: int, n_samples: int) -> None:
    """Notes how many samples were put in."""
    _update(session, batch_id, n_samples=n_samples)


def record_query_tag(session: Session, *, batch_id: int, tag_id: str) -> None:
    """Notes the tag that holds the batch's samples."""
    _update(session, batch_id, query_tag_id=tag_id)


def record_embedding(session: Session, *, batch_id: int, embedding_id: str) -> None:
    """Notes the embedding that covers the dataset up to this batch."""
    _update(session, batch_id, embedding_id=embedding_id)


def record_sampling_tag(session: Session, *, batch_id: int, tag_id: str, tag_name: str) -> None:
    """Notes the tag of the picks."""
    _update(session, batch_id, sampling_tag_id=tag_id, sampling_tag_name=tag_name)


def load_last_sampling_tag(session: Session, *, watch_id: int, but_batch_id: int) -> str | None:
    """The tag of the newest sampling of a watch, leaving out one batch; None if there was none."""
    return session.execute(
        select(batches.c.sampling_tag_id)
        .where(
            batches.c.watch_id == watch_id,
            batches.c.sampling_tag_id.is_not(None),
            batches.c.id != but_batch_id,
        )
        .order_by(batches.c.id.desc())
        .limit(1)
    ).scalar()


def load_embeddings_before(
    session: Session, *, watch_id: int, before_batch_id: int, keep: int
) -> list[tuple[int, str]]:
    """Older embeddings of a watch as (batch id, embedding id), newest first, without the newest `keep`."""
    statement = (
        select(batches.c.id, batches.c.embedding_id)
        .where(
            batches.c.watch_id == watch_id,
            batches.c.embedding_id.is_not(None),
            batches.c.id < before_batch_id,
        )
        .order_by(batches.c.id.desc())
        .offset(keep)
        .limit(10)
    )
    return [(row.id, row.embedding_id) for row in session.execute(statement)]


def forget_embedding(session: Session, *, batch_id: int) -> None:
    """Notes that a batch's embedding was deleted from the server."""
    session.execute(update(batches).where(batches.c.id == batch_id).values(embedding_id=None))


def finish_batch(session: Session, *, batch_id: int, state: BatchState, now_ms: int) -> None:
    """Ends a batch."""
    _update(session, batch_id, state=state, finished_ms=now_ms)


def load_recent_batches(
    session: Session, *, limit: int, watch_id: int | None = None
) -> defaultdict[int, list[Batch]]:
    """The last batches of a watch, or of each, by the watch's id, newest first."""
    recent: defaultdict[int, list[Batch]] = defaultdict(list)
    for row in session.execute(select_recent(session, limit=limit, watch_id=watch_id)):
        recent[row.watch_id].append(_batch(row))
    for found in recent.values():
        found.sort(key=lambda batch: batch.number, reverse=True)
    return recent


def select_recent(session: Session, *, limit: int, watch_id: int | None) -> Select[Any]:
    """The rows of the last batches of a watch, or of each, for statements that join them with other tables."""
    return select_newest(session, batches, limit=limit, watch_id=watch_id, by="number")


def count_by_state(session: Session) -> dict[tuple[str, BatchState], int]:
    """Batches by (watch name, state)."""
    statement = (
        select(watches.c.name, batches.c.state, func.count())
        .join(watches, watches.c.id == batches.c.watch_id)
        .group_by(watches.c.name, batches.c.state)
    )
    return {(name, BatchState(state)): n for name, state, n in session.execute(statement)}


def _update(session: Session, batch_id: int, **values: object) -> None:
    session.execute(update(batches).where(batches.c.id == batch_id).values(**values))


def _batch(row: Any) -> Batch:
    values = {column.name: getattr(row, column.name) for column in batches.c}
    values["state"] = BatchState(values["state"])
    values["steps"] = _split_steps(values["steps"])
    return Batch(**values)


def _split_steps(text: str) -> tuple[Step, ...]:
    return tuple(Step(step) for step in text.split(",") if step)
