"""Reports of reconciles, and what a reconcile reads and writes of the ledger."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.models import BatchState, SampleState
from watcher.store.tables import batches, reconciles, samples, unexplained, watches

_PAGE = 1000


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
        listed: what became of the listed names, by state; their sum is `n_listed`.
        unexplained: names whose state nothing explains, with what is wrong; the first thousand, all of them are in
            the table `unexplained`.
        n_unexplained: names that are neither in order nor on their way, such as done here and unknown there.
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
    listed: dict[str, int] = {}
    unexplained: dict[str, str] = {}
    n_miscounted: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was missing, every row is explained, and the kept counts were right."""
        return self.n_missing == 0 and self.n_unexplained == 0 and self.n_miscounted == 0


NOT_REMOTE = "done here, unknown to the dataset"


class LedgerRow(NamedTuple):
    """A row as a comparison reads it: with whether it has a reason, and the state of its batch."""

    id: int
    name: str
    state: SampleState
    has_reason: bool
    batch_state: str | None
    changed_ms: int

    def find_fault(self, *, is_remote: bool) -> str | None:
        """What nothing explains; None if the state is in order."""
        if self.state is SampleState.DONE and not is_remote:
            return NOT_REMOTE
        if self.state is SampleState.PROCESSING and self.batch_state not in (
            BatchState.OPEN,
            BatchState.DEAD,
        ):
            return "in processing, but in no batch that is under way"
        if self.state is SampleState.QUARANTINED and not self.has_reason:
            return "quarantined without a reason"
        return None


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


def replace_unexplained(session: Session, *, watch_id: int, rows: Iterable[tuple[str, str]]) -> None:
    """Keeps (file name, fault) of every name that nothing explains, in place of those of the comparison before."""
    session.execute(delete(unexplained).where(unexplained.c.watch_id == watch_id))
    left = iter(rows)
    while page := list(itertools.islice(left, _PAGE)):
        session.execute(
            insert(unexplained),
            [{"watch_id": watch_id, "file_name": name, "fault": fault} for name, fault in page],
        )


def iter_unexplained(session: Session, *, watch: str) -> Iterator[tuple[str, str]]:
    """File name and fault of all that the last comparison of a watch could not explain, by name; a page at a time."""
    after = ""
    while True:
        page = session.execute(
            select(unexplained.c.file_name, unexplained.c.fault)
            .join(watches, watches.c.id == unexplained.c.watch_id)
            .where(watches.c.name == watch, unexplained.c.file_name > after)
            .order_by(unexplained.c.file_name)
            .limit(_PAGE)
        ).all()
        if not page:
            return
        yield from ((row.file_name, row.fault) for row in page)
        after = page[-1].file_name


def load_last_missing(session: Session) -> dict[str, int]:
    """How many names the last reconcile of each watch found missing; watches without one are left out."""
    newest = select(func.max(reconciles.c.id)).group_by(reconciles.c.watch_id)
    statement = (
        select(watches.c.name, reconciles.c.n_missing)
        .join(watches, watches.c.id == reconciles.c.watch_id)
        .where(reconciles.c.id.in_(newest))
    )
    return {row.name: row.n_missing for row in session.execute(statement)}


def load_last_id(session: Session) -> int:
    """The id of the newest row of all ledgers; 0 if there is none."""
    return int(session.execute(select(func.coalesce(func.max(samples.c.id), 0))).scalar_one())


def load_ledger_page(session: Session, *, watch_id: int, after_id: int, limit: int) -> list[LedgerRow]:
    """Rows in the order of their ids."""
    statement = (
        select(
            samples.c.id,
            samples.c.file_name,
            samples.c.state,
            samples.c.reason.is_not(None),
            batches.c.state,
            samples.c.changed_ms,
        )
        .outerjoin(batches, batches.c.id == samples.c.batch_id)
        # The sum keeps planners from an index on the watch, after which they would sort all its rows for each page.
        .where(samples.c.watch_id + 0 == watch_id, samples.c.id > after_id)
        .order_by(samples.c.id)
        .limit(limit)
    )
    return [
        LedgerRow(row[0], row[1], SampleState(row[2]), bool(row[3]), row[4], row[5])
        for row in session.execute(statement)
    ]


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
