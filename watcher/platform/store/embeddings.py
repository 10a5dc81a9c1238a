"""Embeddings and their projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import embeddings, projections

EmbeddingRow = Row[Any]
ProjectionRow = Row[Any]


def load_embeddings(session: Session, *, dataset_id: str) -> list[EmbeddingRow]:
    """All embeddings, newest first."""
    query = (
        select(embeddings)
        .where(embeddings.c.dataset_id == dataset_id)
        .order_by(embeddings.c.created_at.desc(), embeddings.c.id.desc())
    )
    return list(session.execute(query))


def load_embedding(
    session: Session, *, dataset_id: str, embedding_id: str, lock: bool = False
) -> EmbeddingRow | None:
    """One embedding by id."""
    query = select(embeddings).where(embeddings.c.id == embedding_id, embeddings.c.dataset_id == dataset_id)
    return session.execute(query.with_for_update() if lock else query).first()


def load_embedding_by_name(session: Session, *, dataset_id: str, name: str) -> EmbeddingRow | None:
    """One embedding by name."""
    query = select(embeddings).where(embeddings.c.dataset_id == dataset_id, embeddings.c.name == name)
    return session.execute(query).first()


def insert_embedding(session: Session, *, embedding_id: str, dataset_id: str, name: str, now_ms: int) -> None:
    """Adds an embedding without content."""
    session.execute(
        insert(embeddings).values(
            id=embedding_id, dataset_id=dataset_id, name=name, is_processed=False, created_at=now_ms
        )
    )


def update_embedding(session: Session, *, embedding_id: str, values: Mapping[str, Any]) -> None:
    """Changes columns."""
    session.execute(update(embeddings).where(embeddings.c.id == embedding_id).values(**values))


def delete_embedding(session: Session, *, embedding_id: str) -> None:
    """Removes an embedding with its projections."""
    session.execute(delete(embeddings).where(embeddings.c.id == embedding_id))


def load_projections(session: Session, *, embedding_id: str) -> list[ProjectionRow]:
    """All projections of an embedding, by name."""
    query = select(projections).where(projections.c.embedding_id == embedding_id).order_by(projections.c.name)
    return list(session.execute(query))


def load_projection(session: Session, *, embedding_id: str, projection_id: str) -> ProjectionRow | None:
    """One projection."""
    query = select(projections).where(
        projections.c.id == projection_id, projections.c.embedding_id == embedding_id
    )
    return session.execute(query).first()


def replace_projection(session: Session, *, values: Mapping[str, Any]) -> None:
    """Stores a projection in place of an earlier one of the same name."""
    session.execute(
        delete(projections).where(
            projections.c.embedding_id == values["embedding_id"], projections.c.name == values["name"]
        )
    )
    session.execute(insert(projections).values(**values))
