"""The state of the daemon as one value, read from the store: what `/`, `/api/v1/status` and `watcher status` show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from watcher.database import Database
from watcher.domain.delivery import Delivery
from watcher.domain.models import Batch, BatchNovelty, Pick, Poll, Run, RunState, Sample, SampleState, Via
from watcher.store import batches, deliveries, novelty, picks, polls, runs, samples, watches
from watcher.store.counts import load_counts

_WORST_FIRST = (RunState.DEAD, RunState.RUNNING, RunState.READY, RunState.DONE)
_POLLS, _BATCHES, _PICKS, _TROUBLED = 5, 8, 12, 10


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a batch.

    Attributes:
        state: of its last run; while the shards of a large batch are under way, the worst of theirs.
        attempt: the most that any of its runs had.
        error: the first there is.
        n_shards: 0 for a batch that is worked on in one piece.
    """

    step: str
    state: str
    attempt: int
    error: str | None
    n_shards: int = 0
    n_shards_done: int = 0


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """The picks of a batch on their way to a sink; `location` is known once they are there."""

    sink: str
    kind: str
    state: str
    attempt: int
    location: str | None
    error: str | None


class BatchView(msgspec.Struct, frozen=True, kw_only=True):
    """A batch with its steps and deliveries.

    Attributes:
        novelty: how new its samples were, relative to the batches before it; None before that is known.
        n_near_duplicates: how many of them were much like a known one.
        manifests: where the confirmed deliveries lie.
    """

    key: str
    state: str
    n_samples: int
    created_ms: int
    finished_ms: int | None
    sampling_tag: str | None
    runs: list[RunView]
    manifests: list[str]
    deliveries: list[DeliveryView]
    novelty: float | None = None
    n_near_duplicates: int | None = None


class PollView(msgspec.Struct, frozen=True, kw_only=True):
    """A poll; `lag_s` is how old its window's end was when it began."""

    state: str
    from_s: int
    to_s: int
    n_listed: int
    n_new: int
    started_ms: int
    finished_ms: int | None
    error: str | None


class PickView(msgspec.Struct, frozen=True, kw_only=True):
    """A picked sample."""

    sample_id: int
    file_name: str
    rank: int
    batch_id: int


class TroubleView(msgspec.Struct, frozen=True, kw_only=True):
    """A sample that was set aside."""

    file_name: str
    state: str
    reason: str | None
    changed_ms: int


class WatchView(msgspec.Struct, frozen=True, kw_only=True):
    """A watch.

    Attributes:
        samples: number by state; every state is there.
        lag_s: seconds from the mark to now; None before the first poll.
        oldest_pending_ms: discovery of the oldest unfinished sample.
        overlap_s: how far before the mark the last poll listed again.
        listing: how the server takes windows, as far as a probe found out.
        problem: why the last poll could not begin.
        next_poll_s: unix time of the next poll, where the scheduler runs.
    """

    name: str
    dataset_id: str
    mark_s: int | None
    remote_mark_s: int | None
    lag_s: float | None
    last_polled_ms: int | None
    paused_ms: int | None
    overlap_s: int | None
    listing: str | None
    problem: str | None
    next_poll_s: float | None
    oldest_pending_ms: int | None
    samples: dict[str, int]
    polls: list[PollView]
    batches: list[BatchView]
    picks: list[PickView]
    troubled: list[TroubleView]


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All watches at one time (unix milliseconds)."""

    now_ms: int
    watches: list[WatchView]


def load_overview(
    database: Database,
    *,
    now_ms: int,
    next_polls: Mapping[str, datetime] | None = None,
    only: str | None = None,
) -> Overview:
    """Reads the state of every watch, or of `only` one, in one transaction."""
    with database.read() as session:
        counts = load_counts(session)
        oldest = samples.load_oldest_pending(session)
        views = []
        for watch in watches.load_watches(session):
            if only is not None and watch.name != only:
                continue
            next_poll = (next_polls or {}).get(watch.name)
            recent = polls.load_recent_polls(session, watch_id=watch.id, limit=_POLLS)
            batch_rows = batches.load_recent_batches(session, watch_id=watch.id, limit=_BATCHES)
            views.append(
                WatchView(
                    name=watch.name,
                    dataset_id=watch.dataset_id,
                    mark_s=watch.mark_s,
                    remote_mark_s=watch.remote_mark_s,
                    lag_s=None if watch.mark_s is None else round(now_ms / 1000 - watch.mark_s, 1),
                    last_polled_ms=watch.last_polled_ms,
                    paused_ms=watch.paused_ms,
                    overlap_s=next(
                        (poll.overlap_s for poll in recent if poll.via is not Via.RECONCILE), None
                    ),
                    listing=None if watch.listing_unit is None else str(watch.listing),
                    problem=watch.problem,
                    next_poll_s=None if next_poll is None else next_poll.timestamp(),
                    oldest_pending_ms=oldest.get(watch.name),
                    samples={state.value: counts[watch.name, state] for state in SampleState},
                    polls=[_poll(p) for p in recent],
                    batches=[
                        _batch(
                            batch,
                            runs.load_batch_runs(session, batch_id=batch.id),
                            deliveries.load_deliveries(session, batch_id=batch.id),
                            novelty.load_batch_novelty(session, batch_id=batch.id),
                        )
                        for batch in batch_rows
                    ],
                    picks=[
                        _pick(p) for p in picks.load_latest_picks(session, watch_id=watch.id, limit=_PICKS)
                    ],
                    troubled=[
                        _trouble(s)
                        for s in samples.load_troubled(session, watch_id=watch.id, limit=_TROUBLED)
                    ],
                )
            )
    return Overview(now_ms=now_ms, watches=views)


def _poll(poll: Poll) -> PollView:
    return PollView(
        state=poll.state.value,
        from_s=poll.from_s,
        to_s=poll.to_s,
        n_listed=poll.n_listed,
        n_new=poll.n_new,
        started_ms=poll.started_ms,
        finished_ms=poll.finished_ms,
        error=poll.error,
    )


def _batch(
    batch: Batch, batch_runs: list[Run], made: list[Delivery], measured: BatchNovelty | None
) -> BatchView:
    return BatchView(
        key=batch.key,
        state=batch.state.value,
        n_samples=batch.n_samples,
        created_ms=batch.created_ms,
        finished_ms=batch.finished_ms,
        sampling_tag=batch.sampling_tag_name,
        runs=_steps(batch_runs),
        manifests=[delivery.location for delivery in made if delivery.location is not None],
        deliveries=[
            DeliveryView(
                sink=delivery.sink,
                kind=delivery.kind.value,
                state=delivery.state.value,
                attempt=delivery.attempt,
                location=delivery.location,
                error=delivery.error,
            )
            for delivery in made
        ],
        novelty=None if measured is None else measured.ratio,
        n_near_duplicates=None if measured is None else measured.n_near_duplicates,
    )


def _steps(batch_runs: list[Run]) -> list[RunView]:
    by_step: dict[str, list[Run]] = {}
    for run in batch_runs:
        by_step.setdefault(run.step.value, []).append(run)
    views = []
    for step, step_runs in by_step.items():
        shards = [run for run in step_runs if run.shard]
        told = [run for run in step_runs if not run.shard] or shards
        views.append(
            RunView(
                step=step,
                state=min(told, key=lambda run: _WORST_FIRST.index(run.state)).state.value,
                attempt=max(run.attempt for run in told),
                error=next((run.error for run in told if run.error), None),
                n_shards=len(shards),
                n_shards_done=sum(run.state is RunState.DONE for run in shards),
            )
        )
    return views


def _pick(pick: Pick) -> PickView:
    return PickView(
        sample_id=pick.sample_id, file_name=pick.file_name, rank=pick.rank, batch_id=pick.batch_id
    )


def _trouble(sample: Sample) -> TroubleView:
    return TroubleView(
        file_name=sample.file_name,
        state=sample.state.value,
        reason=sample.reason,
        changed_ms=sample.changed_ms,
    )
