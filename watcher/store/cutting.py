"""Waiting samples become batches."""

from __future__ import annotations

from sqlalchemy.orm import Session

from watcher.domain.models import WatchConfig
from watcher.domain.pipeline import compute_batch_size
from watcher.store import batches, runs, samples, watches


def cut_batches(session: Session, *, watch_id: int, config: WatchConfig, now_ms: int) -> int:
    """Cuts waiting samples into batches as the rules allow, each with its first run.

    Called at the end of a poll and whenever a batch ends, inside their transactions.

    Returns:
        How many batches were made.
    """
    # A poll and a worker may cut at once: the second one must see what the first one took.
    watches.lock_watch(session, watch_id=watch_id)
    n_open = batches.count_open(session, watch_id=watch_id)
    n_cut = 0
    while True:
        n_waiting, oldest_ms = samples.load_waiting(
            session, watch_id=watch_id, now_ms=now_ms, limit=config.batch.max_samples
        )
        size = compute_batch_size(
            n_waiting=n_waiting,
            oldest_wait_s=0.0 if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            n_open=n_open + n_cut,
            rules=config.batch,
        )
        if size == 0:
            return n_cut
        batch = batches.create_batch(
            session, watch_id=watch_id, watch_name=config.name, steps=config.steps, now_ms=now_ms
        )
        n = samples.assign_batch(session, watch_id=watch_id, batch_id=batch.id, limit=size, now_ms=now_ms)
        batches.update_size(session, batch_id=batch.id, n_samples=n)
        runs.create_run(session, batch_id=batch.id, step=batch.steps[0], now_ms=now_ms)
        n_cut += 1
