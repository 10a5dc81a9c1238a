"""Which samples of a batch may be picked: those on the server that have what the sampling needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.domain.sampling_rules import Lack
from watcher.store.tables import lacks, sample_novelties, samples

_NAMES_A_STATEMENT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRules:
    """What keeps a registered sample of a batch from being picked.

    Attributes:
        near_duplicates: whether near-duplicates may be picked.
        needs: what no candidate may lack.
    """

    near_duplicates: bool
    needs: frozenset[Lack] = frozenset()


def count_candidates(session: Session, *, batch_id: int, rules: CandidateRules) -> int:
    """How many samples of a batch may be picked."""
    statement = select(func.count()).select_from(samples).where(_is_candidate(batch_id, rules))
    return session.execute(statement).scalar_one()


def load_candidate_page(
    session: Session, *, batch_id: int, rules: CandidateRules, after_id: int = 0, limit: int = 1000
) -> list[tuple[int, str]]:
    """(Id, file name) of the next samples that may be picked, in the order of their discovery."""
    statement = (
        select(samples.c.id, samples.c.file_name)
        .where(_is_candidate(batch_id, rules), samples.c.id > after_id)
        .order_by(samples.c.id)
        .limit(limit)
    )
    return [(row.id, row.file_name) for row in session.execute(statement)]


def load_candidate_ids(
    session: Session, *, watch_id: int, batch_id: int, rules: CandidateRules, file_names: Sequence[str]
) -> dict[str, int]:
    """Ids of those of the named samples that may be picked, by file name."""
    found: dict[str, int] = {}
    for start in range(0, len(file_names), _NAMES_A_STATEMENT):
        statement = select(samples.c.file_name, samples.c.id).where(
            samples.c.watch_id == watch_id,
            samples.c.file_name.in_(file_names[start : start + _NAMES_A_STATEMENT]),
            _is_candidate(batch_id, rules),
        )
        found.update((row.file_name, row.id) for row in session.execute(statement))
    return found


def _is_candidate(batch_id: int, rules: CandidateRules) -> ColumnElement[bool]:
    conditions = [
        samples.c.batch_id == batch_id,
        samples.c.state == SampleState.PROCESSING,
        samples.c.remote_id.is_not(None),
    ]
    if not rules.near_duplicates:
        is_near = select(sample_novelties.c.sample_id).where(
            sample_novelties.c.sample_id == samples.c.id, sample_novelties.c.is_near_duplicate
        )
        conditions.append(~is_near.exists())
    if rules.needs:
        is_lacking = select(lacks.c.sample_id).where(
            lacks.c.sample_id == samples.c.id, lacks.c.lack.in_(sorted(rules.needs))
        )
        conditions.append(~is_lacking.exists())
    return and_(*conditions)
