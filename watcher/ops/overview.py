"""The state of the daemon as one value, read from the store: what `/`, `/api/v1/status` and `watcher status` show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.domain.models import Batch, Pick, Poll, RunState, Sample, SampleState, Via
from watcher.store import batches, picks, polls, samples, watches
from watcher.store.batch_progress import BatchProgress, RunGroup, load_progress
from watcher.store.counts import load_counts
from watcher.store.duty_problems import Duty, DutyProblem, load_problems
from watcher.store.latest import LastPoll
from watcher.store.troubled import load_troubled

_WORST_FIRST = (RunState.DEAD, RunState.RUNNING, RunState.READY, RunState.DONE)
_POLLS, _BATCHES, _PICKS, _TROUBLED = 5, 8, 12, 10


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a batch.

    Attributes:
        state: of its last run; while the shards of a large batch are under way, the worst of theirs.
        attempt: the most that any of its runs had.
        error: of one of its runs, if any has one.
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
        n_without_vector: how many of them the embedder made no vector of.
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
    n_without_vector: int | None = None


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
        problem: why the last poll failed, where its row does not tell.
        audit_problem: why the last comparison failed.
        next_poll_s: unix time of the next poll, where the scheduler runs.
        troubled: the last discovered ones of those that were set aside.
        n_more_troubled: how many more there are.
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
    audit_problem: str | None
    next_poll_s: float | None
    oldest_pending_ms: int | None
    samples: dict[str, int]
    polls: list[PollView]
    batches: list[BatchView]
    picks: list[PickView]
    troubled: list[TroubleView]
    n_more_troubled: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All watches at one time (unix milliseconds).

    Attributes:
        unreached: watches that never reached their server, with the reason; of those without one nothing is known.
    """

    now_ms: int
    watches: list[WatchView]
    unreached: dict[str, str]


def load_overview(
    database: Database,
    *,
    now_ms: int,
    next_polls: Mapping[str, datetime] | None = None,
    only: str | None = None,
) -> Overview:
    """Reads the state of every watch, or of `only` one, in one transaction.

    The number of statements is the same for any number of watches, and none of them walks through the ledger.
    """
    next_polls = next_polls or {}
    with database.read() as session:
        rows = [row for row in watches.load_watches(session) if only in (None, row.name)]
        of = rows[0].id if only is not None and rows else None
        counts = load_counts(session)
        oldest = samples.load_oldest_pending(session)
        recent_polls = polls.load_recent_polls(session, limit=_POLLS, watch_id=of)
        recent_batches = batches.load_recent_batches(session, limit=_BATCHES, watch_id=of)
        progress = load_progress(session, limit=_BATCHES, watch_id=of)
        latest_picks = picks.load_latest_picks(session, limit=_PICKS, watch_id=of)
        troubled = load_troubled(session, limit=_TROUBLED, watch_id=of)
        problems = load_problems(session)
        unreached = load_unreached(session, problems)
        if only is not None:
            unreached = {name: problem for name, problem in unreached.items() if name == only}
    views = []
    for watch in rows:
        next_poll = next_polls.get(watch.name)
        recent = recent_polls[watch.id]
        views.append(
            WatchView(
                name=watch.name,
                dataset_id=watch.dataset_id,
                mark_s=watch.mark_s,
                remote_mark_s=watch.remote_mark_s,
                lag_s=None if watch.mark_s is None else round(now_ms / 1000 - watch.mark_s, 1),
                last_polled_ms=watch.last_polled_ms,
                paused_ms=watch.paused_ms,
                overlap_s=next((poll.overlap_s for poll in recent if poll.via is not Via.RECONCILE), None),
                listing=None if watch.listing_unit is None else str(watch.listing),
                problem=watch.problem
                or tell_poll_problem(problems, watch.name, recent[0] if recent else None),
                audit_problem=_tell(problems.get((watch.name, Duty.AUDIT))),
                next_poll_s=None if next_poll is None else next_poll.timestamp(),
                oldest_pending_ms=oldest.get(watch.name),
                samples={state.value: counts[watch.name, state] for state in SampleState},
                polls=[_poll(poll) for poll in recent],
                batches=[_batch(batch, progress[batch.id]) for batch in recent_batches[watch.id]],
                picks=[_pick(pick) for pick in latest_picks[watch.id]],
                troubled=[_trouble(sample) for sample in troubled[watch.id]],
                n_more_troubled=max(
                    0,
                    counts[watch.name, SampleState.QUARANTINED]
                    + counts[watch.name, SampleState.GONE]
                    - len(troubled[watch.id]),
                ),
            )
        )
    return Overview(now_ms=now_ms, watches=views, unreached=unreached)


def load_unreached(session: Session, problems: Mapping[tuple[str, Duty], DutyProblem]) -> dict[str, str]:
    """Of the problems those of watches that never reached their server, by name."""
    known = {row.name for row in watches.load_watches(session)}
    return {name: told.problem or "" for (name, _), told in problems.items() if name not in known}


def tell_poll_problem(
    problems: Mapping[tuple[str, Duty], DutyProblem], watch: str, last: Poll | LastPoll | None
) -> str | None:
    """Why the last poll failed; None if it did not, or if its row tells."""
    return None if last is not None and last.error else _tell(problems.get((watch, Duty.POLL)))


def _tell(problem: DutyProblem | None) -> str | None:
    return None if problem is None else problem.problem


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


def _batch(batch: Batch, progress: BatchProgress) -> BatchView:
    return BatchView(
        key=batch.key,
        state=batch.state.value,
        n_samples=batch.n_samples,
        created_ms=batch.created_ms,
        finished_ms=batch.finished_ms,
        sampling_tag=batch.sampling_tag_name,
        runs=_steps(progress.runs),
        manifests=[delivery.location for delivery in progress.deliveries if delivery.location is not None],
        deliveries=[
            DeliveryView(
                sink=delivery.sink,
                kind=delivery.kind.value,
                state=delivery.state.value,
                attempt=delivery.attempt,
                location=delivery.location,
                error=delivery.error,
            )
            for delivery in progress.deliveries
        ],
        novelty=progress.ratio,
        n_near_duplicates=progress.n_near_duplicates,
        n_without_vector=progress.n_without_vector,
    )


def _steps(groups: list[RunGroup]) -> list[RunView]:
    by_step: dict[str, list[RunGroup]] = {}
    for group in groups:
        by_step.setdefault(group.step.value, []).append(group)
    views = []
    for step, of_step in by_step.items():
        shards = [group for group in of_step if group.is_shard]
        told = [group for group in of_step if not group.is_shard] or shards
        views.append(
            RunView(
                step=step,
                state=min(told, key=lambda group: _WORST_FIRST.index(group.state)).state.value,
                attempt=max(group.attempt for group in told),
                error=next((group.error for group in told if group.error), None),
                n_shards=sum(group.n for group in shards),
                n_shards_done=sum(group.n for group in shards if group.state is RunState.DONE),
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
