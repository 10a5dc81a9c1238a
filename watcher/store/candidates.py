"""Which samples of a batch may be picked: those on the server, and if asked for no near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.store.tables import sample_novelties, samples

_NAMES_A_STATEMENT = 500


def count_candidates(session: Session, *, batch_id: int, with_near_duplicates: bool) -> int:
    """How many samples of a batch may be picked."""
    statement = select(func.count()).select_from(samples).where(_is_candidate(batch_id, with_near_duplicates))
    return session.execute(statement).scalar_one()


def load_candidate_page(
    session: Session, *, batch_id: int, with_near_duplicates: bool, after_id: int = 0, limit: int = 1000
) -> list[tuple[int, str]]:
    """(Id, file name) of the next samples that may be picked, in the order of their discovery."""
    statement = (
        select(samples.c.id, samples.c.file_name)
        .where(_is_candidate(batch_id, with_near_duplicates), samples.c.id > after_id)
        .order_by(samples.c.id)
        .limit(limit)
    )
    return [(row.id, row.file_name) for row in session.execute(statement)]


def load_candidate_ids(
    session: Session, *, watch_id: int, batch_id: int, with_near_duplicates: bool, file_names: Sequence[str]
) -> dict[str, int]:
    """Ids of those of the named samples that may be picked, by file name."""
    found: dict[str, int] = {}
    for start in range(0, len(file_names), _NAMES_A_STATEMENT):
        statement = select(samples.c.file_name, samples.c.id).where(
            samples.c.watch_id == watch_id,
            samples.c.file_name.in_(file_names[start : start + _NAMES_A_STATEMENT]),
            _is_candidate(batch_id, with_near_duplicates),
        )
        found.update((row.file_name, row.id) for row in session.execute(statement))
    return found


def _is_candidate(batch_id: int, with_near_duplicates: bool) -> ColumnElement[bool]:
    is_candidate = and_(
        samples.c.batch_id == batch_id,
        samples.c.state == SampleState.PROCESSING,
        samples.c.remote_id.is_not(None),
    )
    if with_near_duplicates:
        return is_candidate
    is_near = (
        select(sample_novelties.c.sample_id)
        .where(sample_novelties.c.sample_id == samples.c.id, sample_novelties.c.is_near_duplicate)
        .exists()
    )
    return and_(is_candidate, ~is_near)
