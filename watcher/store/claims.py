"""Which run is taken next, over all machines.

**Order.** A run of a step that changes tags, embeddings or the number of samples can be claimed only if its batch is
the oldest of its watch that has not come to its delivery, and no such run of another batch of the watch is under way.
Deliveries wait for nobody.

**Fairness.** The watch with the fewest running runs comes first, among equals the one that was served longest ago, and
within a watch the run that has been ready longest. A watch with a million waiting samples so gets its turn, and no
more than that.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from watcher.domain.delivery import DeliveryState
from watcher.domain.models import LEASE_RAN_OUT, BatchState, Run, RunState, Step
from watcher.domain.pipeline import ORDERED_STEPS
from watcher.store.inserting import build_insert
from watcher.store.runs import load_run
from watcher.store.tables import batches, handovers, runs, turns, watches

_MOST_TRIES = 5
_UNORDERED_STEPS = frozenset(Step) - ORDERED_STEPS


def claim_run(
    session: Session,
    *,
    owner: str,
    now_ms: int,
    lease_ms: int,
    watch_names: Collection[str] | None = None,
    steps: Collection[Step] | None = None,
    most_running: Mapping[str, int] | None = None,
) -> Run | None:
    """Takes a run under a lease, and counts an attempt; None if there is none.

    A run whose lease ran out counts as ready again. Runs of paused watches wait.

    Args:
        session: an open transaction.
        owner: who takes it.
        now_ms: the present.
        lease_ms: how long the claim lasts without a heartbeat.
        watch_names: only runs of these watches; None for any. A daemon names those it is configured for, since a
            watch that was taken out of the settings leaves its runs behind.
        steps: only runs of these steps; None for any.
        most_running: by watch name, how many of its runs may be in work at once; watches not named have no limit.
    """
    release_expired(session, now_ms=now_ms)
    limits = tuple(sorted((most_running or {}).items()))
    values: dict[str, Any] = {"now_ms": now_ms}
    if watch_names is not None:
        values["watch_names"] = list(watch_names)
    if steps is not None:
        values["steps"] = list(steps)
        values["unordered"] = [step for step in steps if step not in ORDERED_STEPS]
    candidates, claim = _build_claim(watch_names is not None, steps is not None, limits)
    for _ in range(_MOST_TRIES):
        watch_id = session.execute(candidates, values).scalar()
        if watch_id is None:
            return None
        # From here on other claims of this watch wait, so that what is asked again below stays true.
        _take_turn(session, watch_id=watch_id, now_ms=now_ms)
        held = {"watch_id": watch_id, "owner": owner, "lease_until_ms": now_ms + lease_ms}
        run_id = session.execute(claim, values | held).scalar()
        if run_id is not None:
            return load_run(session, run_id=run_id)
    return None


@functools.lru_cache(maxsize=32)
def _build_claim(
    names_watches: bool,
    names_steps: bool,
    limits: tuple[tuple[str, int], ...],
) -> tuple[Select[Any], Any]:
    """The statements of a claim, built once: whose turn it is, and the taking of the first run of that watch.

    Of each open batch only its first run that may be taken is looked at, over an index, so that the cost grows with
    the number of open batches, not with that of the shards that wait in them.
    """
    head, busy = _build_head(), _build_busy()
    n_running = func.coalesce(busy.c.n_running, 0)
    steps: Any = bindparam("steps", expanding=True)
    unordered: Any = bindparam("unordered", expanding=True)
    may_take_all = and_(
        batches.c.id == head.c.batch_id,
        # A replayed batch is older than the one under way, which ends its run first.
        func.coalesce(busy.c.first_batch_id, batches.c.id) == batches.c.id,
        func.coalesce(busy.c.last_batch_id, batches.c.id) == batches.c.id,
    )
    if names_steps:
        first = case(
            (may_take_all, _build_first(runs.c.step.in_(steps))),
            else_=_build_first(runs.c.step.in_(unordered)),
        )
    else:
        first = case((may_take_all, _build_first()), else_=_build_first(runs.c.step.in_(_UNORDERED_STEPS)))
    taken = aliased(runs)
    ordered = (
        select(batches.c.watch_id, taken.c.id.label("run_id"))
        .join(watches, watches.c.id == batches.c.watch_id)
        .outerjoin(head, head.c.watch_id == batches.c.watch_id)
        .outerjoin(busy, busy.c.watch_id == batches.c.watch_id)
        .outerjoin(turns, turns.c.watch_id == batches.c.watch_id)
        .join(taken, taken.c.id == first)
        .where(batches.c.state == BatchState.OPEN, watches.c.paused_ms.is_(None))
        .order_by(n_running, func.coalesce(turns.c.served_ms, 0), taken.c.available_ms, taken.c.id)
        .limit(1)
    )
    if names_watches:
        ordered = ordered.where(watches.c.name.in_(bindparam("watch_names", expanding=True)))
    if limits:
        ordered = ordered.where(_is_below_limit(dict(limits), n_running))
    run_id = ordered.where(batches.c.watch_id == bindparam("watch_id")).with_only_columns(taken.c.id)
    claim = (
        update(runs)
        .where(runs.c.id == run_id.scalar_subquery(), runs.c.state == RunState.READY)
        .values(
            state=RunState.RUNNING,
            attempt=runs.c.attempt + 1,
            started_ms=bindparam("now_ms"),
            lease_owner=bindparam("owner"),
            lease_until_ms=bindparam("lease_until_ms"),
        )
        .returning(runs.c.id)
    )
    return ordered, claim


def _build_first(*conditions: ColumnElement[bool]) -> Any:
    """The run of a batch that has been ready longest."""
    return (
        select(runs.c.id)
        .where(
            runs.c.batch_id == batches.c.id,
            runs.c.state == RunState.READY,
            runs.c.available_ms <= bindparam("now_ms"),
            *conditions,
        )
        .order_by(runs.c.available_ms, runs.c.id)
        .limit(1)
        .correlate(batches)
        .scalar_subquery()
    )


def _is_below_limit(most_running: Mapping[str, int], n_running: Any) -> ColumnElement[bool]:
    limits = [(watches.c.name == name, n) for name, n in most_running.items()]
    return or_(watches.c.name.not_in(most_running), n_running < case(*limits))


def has_claimable(session: Session, *, now_ms: int) -> bool:
    """Whether it is worth while to call `claim_run`: False if no run at all is ready or has lost its holder.

    Reads the edge of two small indexes and takes no lock, so that idle workers can ask every second.
    """
    return bool(session.execute(_build_look(), {"now_ms": now_ms}).scalar_one())


def has_claimable_delivery(session: Session, *, now_ms: int) -> bool:
    """The same for `deliveries.claim_delivery`, over one small index."""
    return bool(session.execute(_build_look_for_deliveries(), {"now_ms": now_ms}).scalar_one())


@functools.cache
def _build_look() -> Select[Any]:
    """Built once, since idle workers ask all the time."""
    now_ms: Any = bindparam("now_ms")
    # The states as in the indexes' conditions.
    open_states = runs.c.state.in_([RunState.READY, RunState.RUNNING])
    ready = select(runs.c.id).where(
        open_states, runs.c.state == RunState.READY, runs.c.available_ms <= now_ms
    )
    expired = select(runs.c.id).where(runs.c.state == RunState.RUNNING, runs.c.lease_until_ms < now_ms)
    return select(or_(ready.exists(), expired.exists()))


@functools.cache
def _build_look_for_deliveries() -> Select[Any]:
    now_ms: Any = bindparam("now_ms")
    state = handovers.c.state
    open_states = state.in_([DeliveryState.READY, DeliveryState.RUNNING])
    ready = and_(state == DeliveryState.READY, handovers.c.available_ms <= now_ms)
    expired = and_(state == DeliveryState.RUNNING, handovers.c.lease_until_ms < now_ms)
    looks = [select(handovers.c.id).where(open_states, condition).exists() for condition in (ready, expired)]
    return select(or_(*looks))


def release_expired(session: Session, *, now_ms: int) -> None:
    """Makes runs ready again whose lease ran out."""
    expired = (
        select(runs.c.id)
        .where(runs.c.state == RunState.RUNNING, runs.c.lease_until_ms < now_ms)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(runs)
        .where(runs.c.id.in_(expired), runs.c.state == RunState.RUNNING, runs.c.lease_until_ms < now_ms)
        .values(
            state=RunState.READY,
            lease_owner=None,
            lease_until_ms=None,
            dispatched_ms=None,
            error=LEASE_RAN_OUT,
        )
    )


def load_undispatched(
    session: Session, *, now_ms: int, limit: int, most_running: Mapping[str, int]
) -> list[tuple[int, Step]]:
    """Runs that may be claimed now and of which no queue was told, as (id, step); locked for this transaction."""
    statement = (
        _select_claimable(now_ms=now_ms, most_running=most_running)
        .where(runs.c.dispatched_ms.is_(None))
        .limit(limit)
        .with_for_update(of=runs, skip_locked=True)
    )
    told = _count_told(session, watch_names=most_running) if most_running else Counter[str]()
    chosen: list[tuple[int, Step]] = []
    for row in session.execute(statement):
        # No more hints than may become runs.
        if row.watch_name in most_running:
            told[row.watch_name] += 1
            if row.n_running + told[row.watch_name] > most_running[row.watch_name]:
                continue
        chosen.append((row.id, Step(row.step)))
    return chosen


def _count_told(session: Session, *, watch_names: Collection[str]) -> Counter[str]:
    """Ready runs by watch of which the queue was told already."""
    statement = (
        select(watches.c.name, func.count())
        .join(batches, batches.c.watch_id == watches.c.id)
        .join(runs, runs.c.batch_id == batches.c.id)
        .where(
            watches.c.name.in_(watch_names),
            runs.c.state == RunState.READY,
            runs.c.dispatched_ms.is_not(None),
        )
        .group_by(watches.c.name)
    )
    return Counter({row[0]: row[1] for row in session.execute(statement)})


def record_dispatched(session: Session, *, run_ids: Collection[int], now_ms: int) -> None:
    """Notes that the queue was told of these runs."""
    session.execute(update(runs).where(runs.c.id.in_(run_ids)).values(dispatched_ms=now_ms))


def count_dispatched(session: Session) -> dict[Step, int]:
    """Runs by step that hold a hint of the queue: those it was told of, and those under way."""
    statement = (
        select(runs.c.step, func.count())
        .where(runs.c.state.in_([RunState.READY, RunState.RUNNING]), runs.c.dispatched_ms.is_not(None))
        .group_by(runs.c.step)
    )
    return {Step(step): n for step, n in session.execute(statement)}


def forget_dispatched(session: Session, *, step: Step, limit: int) -> int:
    """Lets the queue be told again of ready runs of a step, those it was told of longest ago.

    Returns:
        How many, at most `limit`.
    """
    oldest = (
        select(runs.c.id)
        .where(runs.c.step == step, runs.c.state == RunState.READY, runs.c.dispatched_ms.is_not(None))
        .order_by(runs.c.dispatched_ms)
        .limit(limit)
        .with_for_update(skip_locked=True)
        # Read once: as a plain subquery Postgres may read it again for each row, and go beyond the limit.
        .cte("oldest")
    )
    result: Any = session.execute(
        update(runs)
        .where(runs.c.id.in_(select(oldest.c.id)), runs.c.state == RunState.READY)
        .values(dispatched_ms=None)
    )
    return int(result.rowcount)


def return_hint(session: Session, *, run_id: int) -> None:
    """Notes that the hint of a run led to nothing, as it may not be claimed yet; it gets another when it may."""
    session.execute(
        update(runs).where(runs.c.id == run_id, runs.c.state == RunState.READY).values(dispatched_ms=None)
    )


def count_waiting(session: Session) -> dict[Step, int]:
    """Runs by step that are ready, those that wait for a retry or their turn included; every step is there."""
    statement = (
        select(runs.c.step, func.count())
        # As in the index, whose rows are few.
        .where(runs.c.state.in_([RunState.READY, RunState.RUNNING]), runs.c.state == RunState.READY)
        .group_by(runs.c.step)
    )
    counts = dict.fromkeys(Step, 0)
    counts.update((Step(step), n) for step, n in session.execute(statement))
    return counts


def _select_claimable(*, now_ms: int, most_running: Mapping[str, int]) -> Select[Any]:
    """The runs that may be claimed, the next one first, as (id, watch_id, step, watch name, running runs of it)."""
    head, busy = _build_head(), _build_busy()
    n_running = func.coalesce(busy.c.n_running, 0)
    statement = (
        select(
            runs.c.id,
            batches.c.watch_id,
            runs.c.step,
            watches.c.name.label("watch_name"),
            n_running.label("n_running"),
        )
        .join(batches, batches.c.id == runs.c.batch_id)
        .join(watches, watches.c.id == batches.c.watch_id)
        .outerjoin(head, head.c.watch_id == batches.c.watch_id)
        .outerjoin(busy, busy.c.watch_id == batches.c.watch_id)
        .outerjoin(turns, turns.c.watch_id == batches.c.watch_id)
        .where(
            runs.c.state == RunState.READY,
            runs.c.available_ms <= now_ms,
            batches.c.state == BatchState.OPEN,
            watches.c.paused_ms.is_(None),
            or_(
                runs.c.step.not_in(ORDERED_STEPS),
                and_(
                    runs.c.batch_id == head.c.batch_id,
                    # A replayed batch is older than the one under way, which ends its run first.
                    func.coalesce(busy.c.first_batch_id, runs.c.batch_id) == runs.c.batch_id,
                    func.coalesce(busy.c.last_batch_id, runs.c.batch_id) == runs.c.batch_id,
                ),
            ),
        )
        .order_by(n_running, func.coalesce(turns.c.served_ms, 0), runs.c.available_ms, runs.c.id)
    )
    if most_running:
        statement = statement.where(_is_below_limit(most_running, n_running))
    return statement


def _build_head() -> Any:
    """The oldest open batch of each watch that has not come to its delivery."""
    delivery = aliased(runs)
    is_delivered = (
        select(delivery.c.id)
        .where(delivery.c.batch_id == batches.c.id, delivery.c.step == Step.DELIVER)
        .correlate(batches)
        .exists()
    )
    return (
        select(batches.c.watch_id, func.min(batches.c.id).label("batch_id"))
        .where(batches.c.state == BatchState.OPEN, ~is_delivered)
        .group_by(batches.c.watch_id)
        .subquery("head")
    )


def _build_busy() -> Any:
    """How many runs of each watch are under way, and of which batches those that keep an order are."""
    other, other_batch = aliased(runs), aliased(batches)
    ordered_batch: ColumnElement[Any] = case(
        (other.c.step.in_(ORDERED_STEPS), other_batch.c.id),
    )
    return (
        select(
            other_batch.c.watch_id,
            func.count().label("n_running"),
            func.min(ordered_batch).label("first_batch_id"),
            func.max(ordered_batch).label("last_batch_id"),
        )
        .join(other_batch, other_batch.c.id == other.c.batch_id)
        .where(other.c.state == RunState.RUNNING)
        .group_by(other_batch.c.watch_id)
        .subquery("busy")
    )


def _take_turn(session: Session, *, watch_id: int, now_ms: int) -> None:
    statement = build_insert(session, turns).values(watch_id=watch_id, served_ms=now_ms)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[turns.c.watch_id], set_={"served_ms": statement.excluded.served_ms}
        )
    )
