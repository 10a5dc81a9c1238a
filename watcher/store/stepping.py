"""Which runs a step of a batch is made of, and when the step has ended.

A small batch has one run a step, number 0. A step that works sample by sample cuts a large batch into runs 1, 2, ...
over ranges of sample ids; when the last of them is done, run 0 follows, which finds the samples worked on and does
what is done once a batch. The unique key (batch, step, shard) is its natural key: it is made once.
"""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from watcher.domain.models import BatchState, Run, RunState, SampleState, Step
from watcher.domain.pipeline import SHARDED_STEPS
from watcher.store import runs
from watcher.store.tables import batches, samples
from watcher.store.tables import runs as runs_table


def start_step(session: Session, *, batch_id: int, step: Step, shard_samples: int, now_ms: int) -> int:
    """Makes the first runs of a step.

    Args:
        session: an open transaction.
        batch_id: whose.
        step: which.
        shard_samples: no shard has more.
        now_ms: the present.

    Returns:
        How many runs were made.
    """
    bounds: list[tuple[int, int]] = []
    if step in SHARDED_STEPS:
        bounds = _load_shard_bounds(session, batch_id=batch_id, size=shard_samples)
    if len(bounds) < 2:
        runs.create_run(session, batch_id=batch_id, step=step, now_ms=now_ms)
        return 1
    runs.create_shards(session, batch_id=batch_id, step=step, bounds=bounds, now_ms=now_ms)
    return len(bounds)


def end_shard(session: Session, *, run: Run, now_ms: int) -> bool:
    """Makes run 0 of the step if `run` was its last shard; called in the transaction that ends `run`.

    Two shards that end at once: the second waits for the first at the batch's row, and then sees it done.

    Returns:
        Whether the step's last run was made.
    """
    state = session.execute(
        select(batches.c.state).where(batches.c.id == run.batch_id).with_for_update(key_share=True)
    ).scalar_one()
    if state != BatchState.OPEN:
        return False  # another shard gave up; a replay opens the batch again
    open_shards = session.execute(
        select(func.count()).where(
            runs_table.c.batch_id == run.batch_id,
            runs_table.c.step == run.step,
            (runs_table.c.state != RunState.DONE) | (runs_table.c.shard == 0),
        )
    ).scalar_one()
    if open_shards:
        return False
    runs.create_run(session, batch_id=run.batch_id, step=run.step, now_ms=now_ms)
    return True


def _load_shard_bounds(session: Session, *, batch_id: int, size: int) -> list[tuple[int, int]]:
    """Cuts the samples of a batch into ranges of ids, both ends included, of at most `size` samples each.

    The ranges cover the batch without gaps. Linear in the batch; memory holds only the ranges.
    """
    numbered = (
        select(samples.c.id, func.row_number().over(order_by=samples.c.id).label("place"))
        .where(samples.c.batch_id == batch_id, samples.c.state == SampleState.PROCESSING)
        .subquery()
    )
    last = select(func.max(numbered.c.place)).scalar_subquery()
    ends = session.execute(
        select(numbered.c.id)
        .where(or_(numbered.c.place % size == 0, numbered.c.place == last))
        .order_by(numbered.c.id)
    ).scalars()
    bounds: list[tuple[int, int]] = []
    for end in ends:
        bounds.append((bounds[-1][1] + 1 if bounds else 1, end))
    return bounds
