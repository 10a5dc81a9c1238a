"""Which samples lack what a sampling needs, a usable vector or a usable score, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, select
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.domain.sampling_rules import Lack
from watcher.store.inserting import build_insert
from watcher.store.tables import lacks, samples

_IDS_A_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class NotedLack:
    """What a sample lacks, why, and when that was found (unix milliseconds)."""

    lack: Lack
    reason: str
    noted_ms: int


def record_lacks(session: Session, *, lack: Lack, reasons: Mapping[int, str], now_ms: int) -> None:
    """Notes why samples lack something, by their ids; a reason that is there stays."""
    if not reasons:
        return
    session.execute(
        build_insert(session, lacks).on_conflict_do_nothing(),
        [
            {"sample_id": sample_id, "lack": lack, "reason": reason, "noted_ms": now_ms}
            for sample_id, reason in reasons.items()
        ],
    )


def forget_lacks(session: Session, *, lack: Lack, sample_ids: Sequence[int]) -> None:
    """The samples have it now, or it is looked for anew."""
    for start in range(0, len(sample_ids), _IDS_A_STATEMENT):
        part = sample_ids[start : start + _IDS_A_STATEMENT]
        session.execute(delete(lacks).where(lacks.c.lack == lack, lacks.c.sample_id.in_(part)))


def forget_batch_lacks(session: Session, *, lack: Lack, batch_id: int) -> None:
    """It is looked for anew in the whole batch."""
    of_batch = select(samples.c.id).where(samples.c.batch_id == batch_id)
    session.execute(delete(lacks).where(lacks.c.lack == lack, lacks.c.sample_id.in_(of_batch)))


def count_lacks(session: Session, *, lack: Lack, batch_id: int) -> int:
    """How many registered samples of a batch lack it."""
    statement = select(func.count()).select_from(lacks).join(samples).where(_is_of(lack, batch_id))
    return session.execute(statement).scalar_one()


def load_first_reason(session: Session, *, lack: Lack, batch_id: int) -> tuple[str, str] | None:
    """(File name, reason) of the first sample of a batch that lacks it."""
    statement = (
        select(samples.c.file_name, lacks.c.reason)
        .select_from(lacks)
        .join(samples)
        .where(_is_of(lack, batch_id))
        .order_by(samples.c.id)
        .limit(1)
    )
    row = session.execute(statement).one_or_none()
    return None if row is None else (row.file_name, row.reason)


def load_lacks(session: Session, *, sample_id: int) -> list[NotedLack]:
    """What a sample lacks."""
    statement = select(lacks).where(lacks.c.sample_id == sample_id).order_by(lacks.c.lack)
    return [NotedLack(Lack(row.lack), row.reason, row.noted_ms) for row in session.execute(statement)]


def _is_of(lack: Lack, batch_id: int) -> ColumnElement[bool]:
    return and_(
        lacks.c.lack == lack,
        samples.c.batch_id == batch_id,
        samples.c.state == SampleState.PROCESSING,
        samples.c.remote_id.is_not(None),
    )
