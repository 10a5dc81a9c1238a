"""How far each sample and each batch lies from what was known, and which samples were dark."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from watcher.domain.models import BatchNovelty, SampleNovelty
from watcher.domain.sampling_rules import Lack
from watcher.store.inserting import build_insert
from watcher.store.lacks import count_lacks
from watcher.store.tables import (
    batch_novelties,
    batches,
    dark_counts,
    dark_samples,
    sample_novelties,
    samples,
    watches,
)


def record_sample_novelties(session: Session, *, batch_id: int, rows: Sequence[SampleNovelty]) -> None:
    """Stores what samples were measured; a measurement that is there stays."""
    if not rows:
        return
    session.execute(
        build_insert(session, sample_novelties).on_conflict_do_nothing(),
        [
            {
                "sample_id": row.sample_id,
                "batch_id": batch_id,
                "distance": row.distance,
                "nearest": row.nearest,
                "is_near_duplicate": row.is_near_duplicate,
                "is_repeat": row.is_repeat,
            }
            for row in rows
        ],
    )


def load_measured(session: Session, *, sample_ids: Sequence[int]) -> set[int]:
    """Which of the samples were measured already."""
    found: set[int] = set()
    for start in range(0, len(sample_ids), 500):
        statement = select(sample_novelties.c.sample_id).where(
            sample_novelties.c.sample_id.in_(sample_ids[start : start + 500])
        )
        found.update(session.execute(statement).scalars())
    return found


def load_sample_novelty(session: Session, *, sample_id: int) -> SampleNovelty | None:
    """What a sample was measured."""
    row = session.execute(
        select(sample_novelties).where(sample_novelties.c.sample_id == sample_id)
    ).one_or_none()
    return None if row is None else _sample_novelty(row)


def count_measured(
    session: Session, *, watch_id: int, from_ms: int, to_ms: int, up_to_batch_id: int | None = None
) -> int:
    """Samples measured in batches of the watch that were cut in [from_ms, to_ms), up to and with one, or in all."""
    statement = (
        select(func.coalesce(func.sum(batch_novelties.c.n_samples), 0))
        .join(batches, batches.c.id == batch_novelties.c.batch_id)
        .where(
            batches.c.watch_id == watch_id,
            batches.c.created_ms >= from_ms,
            batches.c.created_ms < to_ms,
        )
    )
    if up_to_batch_id is not None:
        statement = statement.where(batches.c.id <= up_to_batch_id)
    return int(session.execute(statement).scalar_one())


def load_batch_sample_novelties(session: Session, *, batch_id: int) -> dict[str, SampleNovelty]:
    """What the samples of a batch were measured, by file name."""
    statement = (
        select(sample_novelties, samples.c.file_name)
        .join(samples, samples.c.id == sample_novelties.c.sample_id)
        .where(sample_novelties.c.batch_id == batch_id)
    )
    return {row.file_name: _sample_novelty(row) for row in session.execute(statement)}


def record_batch_novelty(
    session: Session,
    *,
    batch_id: int,
    watch_id: int,
    embedder: str,
    n_history: int,
    floor: float,
    now_ms: int,
) -> BatchNovelty:
    """Sums up a batch whose samples were all measured.

    The ratio is the batch's mean distance divided by the median of the mean distances of the `n_history` batches
    before it; None without any. `floor` is the least that is divided by, so that a stuck camera's batches count 0
    however long it has been stuck.
    """
    known = load_batch_novelty(session, batch_id=batch_id)
    if known is not None:
        return known
    row = session.execute(
        select(
            func.count().label("n"),
            func.count().filter(sample_novelties.c.is_near_duplicate).label("n_near"),
            func.count().filter(sample_novelties.c.is_repeat).label("n_repeats"),
            func.avg(sample_novelties.c.distance).label("mean"),
        ).where(sample_novelties.c.batch_id == batch_id)
    ).one()
    n_without_vector = count_lacks(session, lack=Lack.VECTOR, batch_id=batch_id)
    history = (
        session.execute(
            select(batch_novelties.c.mean_distance)
            .where(
                batch_novelties.c.watch_id == watch_id,
                batch_novelties.c.embedder == embedder,
                batch_novelties.c.batch_id < batch_id,
                batch_novelties.c.mean_distance.is_not(None),
            )
            .order_by(batch_novelties.c.batch_id.desc())
            .limit(n_history)
        )
        .scalars()
        .all()
    )
    ratio = None if row.mean is None or not history else row.mean / max(floor, median(history))
    session.execute(
        insert(batch_novelties).values(
            batch_id=batch_id,
            watch_id=watch_id,
            embedder=embedder,
            n_samples=row.n,
            n_near_duplicates=row.n_near,
            n_repeats=row.n_repeats,
            mean_distance=row.mean,
            ratio=ratio,
            measured_ms=now_ms,
            n_without_vector=n_without_vector,
        )
    )
    return BatchNovelty(
        embedder=embedder,
        n_samples=row.n,
        n_near_duplicates=row.n_near,
        n_repeats=row.n_repeats,
        mean_distance=row.mean,
        ratio=ratio,
        measured_ms=now_ms,
        n_without_vector=n_without_vector,
    )


def load_batch_novelty(session: Session, *, batch_id: int) -> BatchNovelty | None:
    """What a batch was measured; None before."""
    row = session.execute(select(batch_novelties).where(batch_novelties.c.batch_id == batch_id)).one_or_none()
    if row is None:
        return None
    return BatchNovelty(
        embedder=row.embedder,
        n_samples=row.n_samples,
        n_near_duplicates=row.n_near_duplicates,
        n_repeats=row.n_repeats,
        mean_distance=row.mean_distance,
        ratio=row.ratio,
        measured_ms=row.measured_ms,
        n_without_vector=row.n_without_vector,
    )


def count_measurements(session: Session) -> dict[str, tuple[int, int, int, int]]:
    """By watch, since the beginning: samples measured, and the near-duplicates, repeats and vectorless among them."""
    statement = (
        select(
            watches.c.name,
            func.sum(batch_novelties.c.n_samples),
            func.sum(batch_novelties.c.n_near_duplicates),
            func.sum(batch_novelties.c.n_repeats),
            func.sum(batch_novelties.c.n_without_vector),
        )
        .join(watches, watches.c.id == batch_novelties.c.watch_id)
        .group_by(watches.c.name)
    )
    return {
        name: (int(n), int(near), int(repeats), int(without))
        for name, n, near, repeats, without in session.execute(statement)
    }


def load_last_ratios(session: Session) -> dict[str, float]:
    """The novelty of the newest measured batch by watch name; watches without one are left out."""
    newest = (
        select(func.max(batch_novelties.c.batch_id)).group_by(batch_novelties.c.watch_id).scalar_subquery()
    )
    statement = (
        select(watches.c.name, batch_novelties.c.ratio)
        .join(batches, batches.c.watch_id == watches.c.id)
        .join(batch_novelties, batch_novelties.c.batch_id == batches.c.id)
        .where(batch_novelties.c.batch_id.in_(newest), batch_novelties.c.ratio.is_not(None))
    )
    return {name: ratio for name, ratio in session.execute(statement)}  # noqa: C416 - rows, not pairs


def record_dark_sample(
    session: Session, *, sample_id: int, watch_id: int, brightness: float, contrast: float, now_ms: int
) -> None:
    """Notes that a sample shows next to nothing; harmless to repeat."""
    session.execute(
        build_insert(session, dark_samples)
        .values(
            sample_id=sample_id,
            watch_id=watch_id,
            brightness=brightness,
            contrast=contrast,
            seen_ms=now_ms,
        )
        .on_conflict_do_nothing()
    )


def load_dark_sample(session: Session, *, sample_id: int) -> tuple[float, float, int] | None:
    """(brightness, contrast, when it was seen) of a dark sample; None for any other."""
    row = session.execute(select(dark_samples).where(dark_samples.c.sample_id == sample_id)).one_or_none()
    return None if row is None else (row.brightness, row.contrast, row.seen_ms)


def count_dark_samples(session: Session) -> dict[str, int]:
    """Dark samples since the beginning, by watch name; watches without one are left out.

    The cost does not depend on their number: see `watcher.store.counts`.
    """
    statement = (
        select(watches.c.name, func.sum(dark_counts.c.n))
        .join(dark_counts, dark_counts.c.watch_id == watches.c.id)
        .group_by(watches.c.name)
    )
    return {name: int(n) for name, n in session.execute(statement)}


def _sample_novelty(row: object) -> SampleNovelty:
    names = ("sample_id", "distance", "nearest", "is_near_duplicate", "is_repeat")
    return SampleNovelty(**{name: getattr(row, name) for name in names})
