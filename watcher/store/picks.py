"""What was picked of a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, delete, func, insert, select, true, tuple_
from sqlalchemy.orm import Session

from watcher.domain.delivery import compute_picks_digest
from watcher.domain.models import Pick
from watcher.store.tables import batches, picks, samples, watches


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


def load_latest_picks(
    session: Session, *, limit: int, watch_id: int | None = None
) -> defaultdict[int, list[Pick]]:
    """The newest picks of a watch, or of each, by the watch's id, best first within a batch.

    In one statement: of each watch the newest batches that were sampled are read, until there are enough.
    """
    batch, pick = batches.alias("sampled"), picks.alias("newest")
    newest = (
        select(pick.c.batch_id, pick.c.sample_id)
        .join(batch, batch.c.id == pick.c.batch_id)
        .where(batch.c.watch_id == watches.c.id, batch.c.sampling_tag_id.is_not(None))
        .order_by(batch.c.id.desc(), pick.c.rank)
        .limit(limit)
        .correlate(watches)
    )
    if session.get_bind().dialect.name == "sqlite":  # it knows no LATERAL, see `watcher.store.newest`
        chosen = watches.join(picks, tuple_(picks.c.batch_id, picks.c.sample_id).in_(newest))
    else:
        found = newest.lateral("found")
        is_chosen = (picks.c.batch_id == found.c.batch_id) & (picks.c.sample_id == found.c.sample_id)
        chosen = watches.join(found, true()).join(picks, is_chosen)
    statement = select(
        picks, samples.c.file_name, samples.c.remote_id, watches.c.id.label("watch_id")
    ).select_from(chosen.join(samples, samples.c.id == picks.c.sample_id))
    if watch_id is not None:
        statement = statement.where(watches.c.id == watch_id)
    latest: defaultdict[int, list[Pick]] = defaultdict(list)
    for row in session.execute(statement):
        latest[row.watch_id].append(_pick(row))
    for made in latest.values():
        made.sort(key=lambda pick: (-pick.batch_id, pick.rank))
    return latest


def load_picks_of_sample(session: Session, *, sample_id: int) -> list[Pick]:
    """Every time a sample was picked."""
    return [_pick(row) for row in session.execute(_select().where(picks.c.sample_id == sample_id))]


def count_picks(session: Session, *, batch_id: int) -> int:
    """How many samples of a batch were picked."""
    return session.execute(
        select(func.count()).select_from(picks).where(picks.c.batch_id == batch_id)
    ).scalar_one()


def load_picks_digest(session: Session, *, batch_id: int) -> str:
    """`compute_picks_digest` of the picks of a batch; reads all their names, a piece at a time."""
    statement = (
        select(samples.c.file_name)
        .join(picks, picks.c.sample_id == samples.c.id)
        .where(picks.c.batch_id == batch_id)
        .order_by(picks.c.rank)
        .execution_options(yield_per=1000)
    )
    return compute_picks_digest(session.execute(statement).scalars())


def load_picked_names(
    session: Session, *, watch_id: int, but_batch_id: int, file_names: Sequence[str]
) -> set[str]:
    """Which of the names were picked in any other batch of the watch."""
    found: set[str] = set()
    for start in range(0, len(file_names), 500):
        statement = (
            select(samples.c.file_name)
            .join(picks, picks.c.sample_id == samples.c.id)
            .where(
                samples.c.watch_id == watch_id,
                samples.c.file_name.in_(file_names[start : start + 500]),
                picks.c.batch_id != but_batch_id,
            )
        )
        found.update(session.execute(statement).scalars())
    return found


def count_picks_between(
    session: Session, *, watch_id: int, from_ms: int, to_ms: int, but_batch_id: int | None = None
) -> int:
    """Picks of the watch's batches that were cut in [from_ms, to_ms), of all or of all but one."""
    statement = (
        select(func.count())
        .select_from(picks)
        .join(batches, batches.c.id == picks.c.batch_id)
        .where(
            batches.c.watch_id == watch_id,
            batches.c.created_ms >= from_ms,
            batches.c.created_ms < to_ms,
        )
    )
    if but_batch_id is not None:
        statement = statement.where(batches.c.id != but_batch_id)
    return session.execute(statement).scalar_one()


def load_picks_after(session: Session, *, batch_id: int, rank: int, limit: int) -> list[Pick]:
    """The next picks of a batch behind a rank."""
    statement = _select().where(picks.c.batch_id == batch_id, picks.c.rank > rank).limit(limit)
    return [_pick(row) for row in session.execute(statement)]


def _select() -> Select[Any]:
    return (
        select(picks, samples.c.file_name, samples.c.remote_id)
        .join(samples, samples.c.id == picks.c.sample_id)
        .order_by(picks.c.batch_id, picks.c.rank)
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
