"""Step `deliver`: promises the picks of the batch to every sink of the watch, each in a row of its own.

The step ends with the promise, so that the next batch goes on whatever a receiver does. Who keeps the promise, for days
if need be, is `jobs.deliveries`; only the receiver's word ends a delivery.
"""

from __future__ import annotations

from watcher.domain.crash_points import crash_point
from watcher.domain.pipeline import Done, Outcome
from watcher.jobs.context import RunContext
from watcher.store import deliveries, picks


def run_deliver(context: RunContext) -> Outcome:
    """Promises the picks; a repeated promise is the same one.

    Returns:
        `Done` with the sinks and the number of picks.
    """
    sinks = context.config.deliver.sinks
    with context.database.write() as session:
        n_picks = picks.count_picks(session, batch_id=context.batch.id)
        deliveries.promise_deliveries(
            session,
            batch_id=context.batch.id,
            watch_id=context.watch.id,
            sinks=[(sink.name, sink.kind) for sink in sinks],
            n_picks=n_picks,
            picks_digest=picks.load_picks_digest(session, batch_id=context.batch.id),
            now_ms=context.now_ms(),
        )
    crash_point("deliver.promised")
    return Done({"sinks": ", ".join(sink.name for sink in sinks), "n_picks": n_picks})
