"""Reports of reconciles, and what a reconcile reads and writes of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.store.tables import reconciles, samples, watches


class ReconcileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a full comparison of datasource, ledger and dataset found.

    Attributes:
        to_s: objects changed after this second were left out.
        n_listed: names the datasource has.
        n_missing: of these, names that no poll had found; they are in the ledger now.
        n_gone: samples that vanished before they were processed, found by this reconcile.
        n_no_longer_listed: processed samples whose object is no longer there.
        samples: the ledger by state, afterwards.
        n_remote: names the dataset has.
        missing: some of the missing names.
        done_but_not_remote: some names that are done here and unknown there.
        n_unexplained: names that are neither in order nor on their way: done here and unknown there.
        n_miscounted: by how much the kept counts of the states differed from the rows; they are right now.
    """

    watch: str
    started_ms: int
    finished_ms: int
    to_s: int
    n_listed: int
    n_missing: int
    n_gone: int
    n_no_longer_listed: int
    samples: dict[str, int]
    n_remote: int
    n_unexplained: int
    missing: list[str]
    done_but_not_remote: list[str]
    n_miscounted: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was missing, every row is explained, and the kept counts were right."""
        return self.n_missing == 0 and self.n_unexplained == 0 and self.n_miscounted == 0


def record_report(session: Session, *, watch_id: int, report: ReconcileReport) -> int:
    """Keeps a report; returns its id."""
    report_id: int = session.execute(
        insert(reconciles)
        .values(
            watch_id=watch_id,
            started_ms=report.started_ms,
            finished_ms=report.finished_ms,
            n_missing=report.n_missing,
            n_unexplained=report.n_unexplained,
            report=msgspec.json.encode(report).decode(),
        )
        .returning(reconciles.c.id)
    ).scalar_one()
    return report_id


def load_last_report(session: Session, *, watch_id: int) -> tuple[int, ReconcileReport] | None:
    """The newest report with its id; None if there was no reconcile yet."""
    row = session.execute(
        select(reconciles.c.id, reconciles.c.report)
        .where(reconciles.c.watch_id == watch_id)
        .order_by(reconciles.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else (row.id, msgspec.json.decode(row.report, type=ReconcileReport))


def load_last_missing(session: Session) -> dict[str, int]:
    """How many names the last reconcile of each watch found missing; watches without one are left out."""
    newest = select(func.max(reconciles.c.id)).group_by(reconciles.c.watch_id)
    statement = (
        select(watches.c.name, reconciles.c.n_missing)
        .join(watches, watches.c.id == reconciles.c.watch_id)
        .where(reconciles.c.id.in_(newest))
    )
    return {row.name: row.n_missing for row in session.execute(statement)}


def load_ledger_page(
    session: Session, *, watch_id: int, after_id: int, limit: int
) -> list[tuple[int, str, SampleState, bool]]:
    """Rows as (id, file name, state, whether it is registered), in the order of their ids."""
    statement = (
        select(samples.c.id, samples.c.file_name, samples.c.state, samples.c.remote_id.is_not(None))
        # The sum keeps planners from an index on the watch, after which they would sort all its rows for each page.
        .where(samples.c.watch_id + 0 == watch_id, samples.c.id > after_id)
        .order_by(samples.c.id)
        .limit(limit)
    )
    return [(row[0], row[1], SampleState(row[2]), bool(row[3])) for row in session.execute(statement)]


def record_vanished(session: Session, *, sample_ids: Sequence[int], now_ms: int) -> int:
    """Waiting samples among the ids become `gone`; those in a batch are left to it.

    Returns:
        How many.
    """
    result: Any = session.execute(
        update(samples)
        .where(samples.c.id.in_(sample_ids), samples.c.state == SampleState.WAITING)
        .values(state=SampleState.GONE, reason="the datasource no longer lists it", changed_ms=now_ms)
    )
    return int(result.rowcount)
