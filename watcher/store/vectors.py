"""Vectors of samples, one for (watch, embedder, file name): little-endian float32 bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.store.inserting import build_insert
from watcher.store.tables import samples, vectors

Vector = NDArray[np.float32]


def record_vectors(
    session: Session, *, watch_id: int, embedder: str, rows: Sequence[tuple[str, Vector]]
) -> None:
    """Stores vectors; known ones are left as they are, since an embedder's name holds its version."""
    if not rows:
        return
    values = [
        {
            "watch_id": watch_id,
            "embedder": embedder,
            "file_name": name,
            "data": vector.astype("<f4").tobytes(),
        }
        for name, vector in rows
    ]
    statement = build_insert(session, vectors).on_conflict_do_nothing()
    session.execute(statement, values)


def forget_vectors(session: Session, *, watch_id: int, embedder: str, file_names: Sequence[str]) -> None:
    """Takes away the vectors of those names, at most some hundred."""
    session.execute(
        delete(vectors).where(
            vectors.c.watch_id == watch_id,
            vectors.c.embedder == embedder,
            vectors.c.file_name.in_(file_names),
        )
    )


def forget_batch_vectors(session: Session, *, watch_id: int, embedder: str, batch_id: int) -> None:
    """Takes away the vectors of a batch's samples, which are then computed anew."""
    names = select(samples.c.file_name).where(samples.c.batch_id == batch_id)
    session.execute(
        delete(vectors).where(
            vectors.c.watch_id == watch_id,
            vectors.c.embedder == embedder,
            vectors.c.file_name.in_(names),
        )
    )


def load_vectors(
    session: Session, *, watch_id: int, embedder: str, file_names: Sequence[str]
) -> dict[str, Vector]:
    """The known vectors among the names, each of shape (d,)."""
    found: dict[str, Vector] = {}
    for start in range(0, len(file_names), 500):
        statement = select(vectors.c.file_name, vectors.c.data).where(
            vectors.c.watch_id == watch_id,
            vectors.c.embedder == embedder,
            vectors.c.file_name.in_(file_names[start : start + 500]),
        )
        found.update((name, np.frombuffer(data, dtype="<f4")) for name, data in session.execute(statement))
    return found


def load_names_without(
    session: Session, *, watch_id: int, embedder: str, after_id: int, limit: int
) -> list[tuple[int, str]]:
    """(Id, file name) of registered samples that have no vector of the embedder, in the order of their discovery."""
    has_one = (
        select(vectors.c.file_name)
        .where(
            vectors.c.watch_id == watch_id,
            vectors.c.embedder == embedder,
            vectors.c.file_name == samples.c.file_name,
        )
        .exists()
    )
    statement = (
        select(samples.c.id, samples.c.file_name)
        .where(
            samples.c.watch_id == watch_id,
            samples.c.remote_id.is_not(None),
            samples.c.state != SampleState.GONE,
            samples.c.id > after_id,
            ~has_one,
        )
        .order_by(samples.c.id)
        .limit(limit)
    )
    return [(row.id, row.file_name) for row in session.execute(statement)]
