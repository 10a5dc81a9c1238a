"""Waiting samples become batches."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from watcher.domain.cron import find_last_time_s
from watcher.domain.models import SampleState, WatchConfig
from watcher.domain.pipeline import compute_batch_size, compute_most_samples
from watcher.store import batches, samples, watches
from watcher.store.stepping import start_step
from watcher.store.tables import samples as samples_table
from watcher.store.tables import watches as watches_table

# Counted of a sample while nothing of the watch has been read.
FIRST_MEAN_BYTES = 1_000_000.0


def cut_batches(session: Session, *, watch_id: int, config: WatchConfig, now_ms: int) -> int:
    """Cuts waiting samples into batches as the rules allow, each with its first runs.

    Called at the end of a poll, whenever a batch ends, inside their transactions, and every few seconds.

    Returns:
        How many batches were made.
    """
    # A poll and a worker may cut at once: the second one must see what the first one took.
    watches.lock_watch(session, watch_id=watch_id)
    n_cut = 0
    while True:
        size, until_ms = _compute_next(session, watch_id=watch_id, config=config, now_ms=now_ms)
        if size == 0:
            return n_cut
        batch = batches.create_batch(
            session, watch_id=watch_id, watch_name=config.name, steps=config.steps, now_ms=now_ms
        )
        n = samples.assign_batch(
            session, watch_id=watch_id, batch_id=batch.id, limit=size, now_ms=now_ms, until_ms=until_ms
        )
        batches.update_size(session, batch_id=batch.id, n_samples=n)
        start_step(
            session,
            batch_id=batch.id,
            step=batch.steps[0],
            shard_samples=config.batch.shard_samples,
            now_ms=now_ms,
        )
        n_cut += 1


def find_waiting(session: Session, *, now_ms: int) -> dict[str, int]:
    """Ids of the watches, by name, that are not paused and have samples for a batch; one read over all watches."""
    waiting = (
        select(samples_table.c.id)
        .where(
            samples_table.c.watch_id == watches_table.c.id,
            samples_table.c.state == SampleState.WAITING,
            samples_table.c.available_ms <= now_ms,
        )
        .exists()
    )
    statement = select(watches_table.c.name, watches_table.c.id).where(
        watches_table.c.paused_ms.is_(None), waiting
    )
    return {row.name: row.id for row in session.execute(statement)}


def is_batch_due(session: Session, *, watch_id: int, config: WatchConfig, now_ms: int) -> bool:
    """Whether `cut_batches` would make a batch; a few indexed reads."""
    return _compute_next(session, watch_id=watch_id, config=config, now_ms=now_ms)[0] > 0


def _compute_next(session: Session, *, watch_id: int, config: WatchConfig, now_ms: int) -> tuple[int, int]:
    """The size of the next batch, 0 for none, and until when its samples may have begun to wait."""
    rules = config.batch
    oldest_ms = samples.load_oldest_waiting(session, watch_id=watch_id, now_ms=now_ms)
    if oldest_ms is None:
        return 0, now_ms
    until_ms = now_ms
    if rules.cron is not None:
        # Any time of the line since the oldest began to wait counts, also one at which nobody was there to cut.
        last_s = find_last_time_s(rules.cron, after_s=oldest_ms / 1000, until_s=now_ms / 1000)
        if last_s is None:
            return 0, now_ms
        until_ms = last_s * 1000
    mean_bytes = FIRST_MEAN_BYTES
    if rules.max_bytes is not None:
        mean_bytes = samples.load_mean_size(session, watch_id=watch_id) or FIRST_MEAN_BYTES
    most = compute_most_samples(rules, mean_bytes=mean_bytes)
    size = compute_batch_size(
        n_waiting=samples.count_waiting(session, watch_id=watch_id, until_ms=until_ms, limit=most),
        oldest_wait_s=(now_ms - oldest_ms) / 1000,
        n_open=batches.count_open(session, watch_id=watch_id),
        rules=rules,
        most_samples=most,
    )
    return size, until_ms
