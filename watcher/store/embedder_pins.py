"""Which embedder the vectors of a watch's dataset come from; one at a time."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from watcher.store.inserting import build_insert
from watcher.store.tables import vector_blocks, vectors, watch_embedders, watches


def ensure_embedder(session: Session, *, watch_id: int, embedder: str, now_ms: int) -> str:
    """The embedder of a watch; the given one if it had none."""
    statement = build_insert(session, watch_embedders).values(
        watch_id=watch_id, embedder=embedder, chosen_ms=now_ms
    )
    session.execute(statement.on_conflict_do_nothing())
    chosen: str = session.execute(
        select(watch_embedders.c.embedder).where(watch_embedders.c.watch_id == watch_id)
    ).scalar_one()
    return chosen


def replace_embedder(session: Session, *, watch_id: int, embedder: str, now_ms: int) -> None:
    """Chooses another embedder, when all vectors of it are there."""
    values = {"embedder": embedder, "chosen_ms": now_ms}
    statement = build_insert(session, watch_embedders).values(watch_id=watch_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[watch_embedders.c.watch_id], set_=values))


def load_embedders(session: Session) -> dict[str, str]:
    """The embedders by name of the watch; watches that never embedded are left out."""
    statement = select(watches.c.name, watch_embedders.c.embedder).join(
        watches, watches.c.id == watch_embedders.c.watch_id
    )
    return {row.name: row.embedder for row in session.execute(statement)}


def delete_other_vectors(session: Session, *, watch_id: int, embedder: str) -> None:
    """Forgets the vectors of all embedders but one."""
    for table in (vectors, vector_blocks):
        session.execute(delete(table).where(table.c.watch_id == watch_id, table.c.embedder != embedder))
