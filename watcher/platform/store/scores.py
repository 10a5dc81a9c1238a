"""Active-learning scores: float64 values, of a tag or of a whole dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select
from sqlalchemy.orm import Session

from watcher.platform.store.tables import scores

ScoreRow = Row[Any]


def load_tag_scores(session: Session, *, tag_id: str) -> list[ScoreRow]:
    """All scores of a tag, by type."""
    return list(
        session.execute(select(scores).where(scores.c.tag_id == tag_id).order_by(scores.c.score_type))
    )


def load_dataset_scores(session: Session, *, dataset_id: str, timestamp: int | None) -> list[ScoreRow]:
    """All scores of a dataset, by task and type, optionally of one prediction run."""
    query = select(scores).where(scores.c.dataset_id == dataset_id, scores.c.tag_id.is_(None))
    if timestamp is not None:
        query = query.where(scores.c.prediction_timestamp == timestamp)
    return list(session.execute(query.order_by(scores.c.task_name, scores.c.score_type)))


def load_score(session: Session, *, dataset_id: str, score_id: str) -> ScoreRow | None:
    """One list of scores."""
    query = select(scores).where(scores.c.id == score_id, scores.c.dataset_id == dataset_id)
    return session.execute(query).first()


def delete_tag_scores(session: Session, *, tag_id: str) -> None:
    """Removes all scores of a tag."""
    session.execute(delete(scores).where(scores.c.tag_id == tag_id))


def replace_score(session: Session, *, values: Mapping[str, Any]) -> None:
    """Stores scores in place of earlier ones of the same type."""
    if values.get("tag_id") is not None:
        same: tuple[ColumnElement[bool], ...] = (
            scores.c.tag_id == values["tag_id"],
            scores.c.score_type == values["score_type"],
        )
    else:
        same = (
            scores.c.dataset_id == values["dataset_id"],
            scores.c.task_name == values["task_name"],
            scores.c.prediction_timestamp == values["prediction_timestamp"],
            scores.c.score_type == values["score_type"],
        )
    session.execute(delete(scores).where(*same))
    session.execute(insert(scores).values(**values))
