"""What must hold between the rows of a store, whoever wrote them; a row that breaks it is named.

Read only. Rows stream from the database, so memory does not grow with them; the cost is a few passes over each table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, String, Table, and_, cast, func, or_, select
from sqlalchemy.orm import Session, aliased

from watcher.domain.delivery import DeliveryState, SinkKind
from watcher.domain.models import BatchState, PollState, RunState, SampleState, Step, Via
from watcher.store.tables import (
    audit_log,
    batches,
    dark_counts,
    dark_samples,
    handovers,
    picks,
    polls,
    runs,
    sample_counts,
    samples,
    watches,
)

_ROWS_AT_ONCE = 500
_WORDS: tuple[tuple[Column[Any], type[StrEnum]], ...] = (
    (polls.c.state, PollState),
    (polls.c.via, Via),
    (batches.c.state, BatchState),
    (samples.c.state, SampleState),
    (samples.c.via, Via),
    (runs.c.step, Step),
    (runs.c.state, RunState),
    (handovers.c.kind, SinkKind),
    (handovers.c.state, DeliveryState),
)
_REFERENCES: tuple[tuple[Column[Any], Table], ...] = (
    (polls.c.watch_id, watches),
    (batches.c.watch_id, watches),
    (samples.c.watch_id, watches),
    (samples.c.batch_id, batches),
    (runs.c.batch_id, batches),
    (handovers.c.batch_id, batches),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that is not as the daemon would have written it.

    Attributes:
        table: its table.
        id: its key; of `picks` batch and sample, of `sample_counts` watch and state.
        what: what is wrong with it.
    """

    table: str
    id: str
    what: str


def iter_faults(session: Session) -> Iterator[Fault]:
    """Every broken row of the store, table by table; a row may break several rules.

    Args:
        session: an open transaction, which on SQLite sees one moment.
    """
    for column, words in _WORDS:
        yield from _find(
            session,
            select(column.table.c.id, column).where(column.not_in(list(words))),
            column.table.name,
            lambda row, column=column: f"{column.name} is {row[1]!r}, which nothing knows",
        )
    for column, target in _REFERENCES:
        missing = (
            select(column.table.c.id, column)
            .outerjoin(target, target.c.id == column)
            .where(column.is_not(None), target.c.id.is_(None))
        )
        yield from _find(
            session,
            missing,
            column.table.name,
            lambda row, column=column: f"{column.name} {row[1]} is the id of no row",
        )
    yield from _check_marks(session)
    yield from _check_samples(session)
    yield from _check_batches(session)
    for table in (runs, handovers):
        yield from _check_leases(session, table)
    yield from _check_counts(session)
    yield from _check_dark_counts(session)


def _find(session: Session, statement: Select[Any], table: str, tell: Any) -> Iterator[Fault]:
    rows = session.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE})
    for row in rows:
        yield Fault(table, str(row[0]), tell(row))


def _check_marks(session: Session) -> Iterator[Fault]:
    newest_s = select(func.max(polls.c.to_s)).where(polls.c.watch_id == watches.c.id).scalar_subquery()
    # The poll that moved the mark last was ended in the same transaction; idle ones are forgotten after a week.
    is_known = select(polls.c.id).where(
        polls.c.watch_id == watches.c.id, polls.c.finished_ms == watches.c.last_polled_ms
    )
    ahead = select(watches.c.id, watches.c.name, watches.c.mark_s, newest_s).where(
        watches.c.mark_s > newest_s, is_known.exists()
    )
    yield from _find(
        session,
        ahead,
        "watches",
        lambda row: f"the mark of {row[1]!r} stands at {row[2]}, and the newest poll listed up to {row[3]}",
    )
    # After a rewind the server keeps the later mark until the next poll.
    is_rewound = select(audit_log.c.id).where(
        audit_log.c.watch_id == watches.c.id,
        audit_log.c.verb == "rewind",
        audit_log.c.at_ms >= func.coalesce(watches.c.last_polled_ms, 0),
    )
    told = select(watches.c.id, watches.c.name, watches.c.remote_mark_s, watches.c.mark_s).where(
        or_(watches.c.mark_s.is_(None), watches.c.remote_mark_s > watches.c.mark_s),
        watches.c.remote_mark_s.is_not(None),
        ~is_rewound.exists(),
    )
    yield from _find(
        session,
        told,
        "watches",
        lambda row: f"the server was told the mark {row[2]} of {row[1]!r}, which stands at {row[3]}",
    )


def _check_samples(session: Session) -> Iterator[Fault]:
    joined = select(samples.c.id, samples.c.file_name, batches.c.id, batches.c.state)
    joined = joined.outerjoin(batches, batches.c.id == samples.c.batch_id)
    yield from _find(
        session,
        joined.where(batches.c.watch_id != samples.c.watch_id),
        "samples",
        lambda row: f"{row[1]!r} is in batch {row[2]}, which belongs to another watch",
    )
    under_way = (BatchState.OPEN, BatchState.DEAD)
    lost = and_(
        samples.c.state == SampleState.PROCESSING,
        or_(batches.c.id.is_(None), batches.c.state.not_in(under_way)),
    )
    yield from _find(
        session,
        joined.where(lost),
        "samples",
        lambda row: f"{row[1]!r} is in processing, but in no batch that is under way",
    )
    yield from _find(
        session,
        joined.where(samples.c.state == SampleState.QUARANTINED, samples.c.reason.is_(None)),
        "samples",
        lambda row: f"{row[1]!r} is quarantined without a reason",
    )
    key = cast(picks.c.batch_id, String) + "/" + cast(picks.c.sample_id, String)
    foreign = (
        select(key)
        .outerjoin(samples, samples.c.id == picks.c.sample_id)
        .outerjoin(batches, batches.c.id == picks.c.batch_id)
        .where(or_(samples.c.id.is_(None), batches.c.id.is_(None), samples.c.watch_id != batches.c.watch_id))
    )
    yield from _find(session, foreign, "picks", lambda _: "its batch and its sample are not of one watch")


def _check_batches(session: Session) -> Iterator[Fault]:
    pending = (
        select(func.count())
        .where(runs.c.batch_id == batches.c.id, runs.c.state.in_([RunState.READY, RunState.RUNNING]))
        .correlate(batches)
        .scalar_subquery()
    )
    named = select(batches.c.id, batches.c.key, pending)
    yield from _find(
        session,
        named.where(batches.c.state == BatchState.DONE, pending > 0),
        "batches",
        lambda row: f"{row[1]!r} is done, and {row[2]} of its runs are not",
    )
    yield from _find(
        session,
        named.where(batches.c.state == BatchState.OPEN, pending == 0),
        "batches",
        lambda row: f"{row[1]!r} is open, and no run of it is ready or running, so it will never end",
    )
    twin = aliased(batches)
    yield from _find(
        session,
        select(batches.c.id, batches.c.key).where(
            select(twin.c.id).where(twin.c.key == batches.c.key, twin.c.id < batches.c.id).exists()
        ),
        "batches",
        lambda row: f"another batch has its key {row[1]!r} too, under which the server knows both",
    )


def _check_leases(session: Session, table: Table) -> Iterator[Fault]:
    # Runs and deliveries have the same columns and words.
    is_running: ColumnElement[bool] = table.c.state == RunState.RUNNING
    is_held = or_(table.c.lease_owner.is_not(None), table.c.lease_until_ms.is_not(None))
    whole = and_(table.c.lease_owner.is_not(None), table.c.lease_until_ms.is_not(None))
    yield from _find(
        session,
        select(table.c.id, table.c.state, table.c.lease_owner).where(~is_running, is_held),
        table.name,
        lambda row: f"it is {row[1]} and under the lease of {row[2]!r}",
    )
    yield from _find(
        session,
        select(table.c.id).where(is_running, ~whole),
        table.name,
        lambda _: "it is running under no lease, so nobody takes it up again",
    )
    yield from _find(
        session,
        select(table.c.id, table.c.state).where(
            table.c.state.in_([RunState.DONE, RunState.DEAD]), table.c.finished_ms.is_(None)
        ),
        table.name,
        lambda row: f"it is {row[1]} and never ended",
    )


def _check_counts(session: Session) -> Iterator[Fault]:
    truth = select(
        samples.c.watch_id, samples.c.state, func.count().label("n"), (func.count() * 0).label("kept")
    )
    kept = select(
        sample_counts.c.watch_id,
        sample_counts.c.state,
        (func.sum(sample_counts.c.n) * 0).label("n"),
        func.sum(sample_counts.c.n).label("kept"),
    )
    # One statement, so that both halves see the same moment.
    both = (
        truth.group_by(samples.c.watch_id, samples.c.state)
        .union_all(kept.group_by(sample_counts.c.watch_id, sample_counts.c.state))
        .subquery()
    )
    n, n_kept = func.sum(both.c.n), func.sum(both.c.kept)
    off = select(both.c.watch_id, both.c.state, n, n_kept).group_by(both.c.watch_id, both.c.state)
    for watch_id, state, n_rows, n_counted in session.execute(off.having(n != n_kept)):
        yield Fault(
            "sample_counts", f"{watch_id}/{state}", f"it counts {int(n_counted)}, and there are {int(n_rows)}"
        )


def _check_dark_counts(session: Session) -> Iterator[Fault]:
    truth = select(func.count()).where(dark_samples.c.watch_id == watches.c.id).scalar_subquery()
    kept = (
        select(func.coalesce(func.sum(dark_counts.c.n), 0))
        .where(dark_counts.c.watch_id == watches.c.id)
        .scalar_subquery()
    )
    for watch_id, n_rows, n_counted in session.execute(
        select(watches.c.id, truth, kept).where(truth != kept)
    ):
        yield Fault("dark_counts", str(watch_id), f"it counts {int(n_counted)}, and there are {n_rows}")
