"""Sidecars: listed files that lie beside pictures and are no samples; only where they can be read is kept."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from watcher.store.inserting import build_insert
from watcher.store.tables import sidecars


def record_sidecars(session: Session, *, watch_id: int, rows: Sequence[tuple[str, str]]) -> None:
    """Keeps (file name, read URL); a known name gets the fresh URL."""
    if not rows:
        return
    statement = build_insert(session, sidecars)
    # Of a name listed twice the last URL counts; Postgres takes no row twice in one statement.
    values = [{"watch_id": watch_id, "file_name": name, "read_url": url} for name, url in dict(rows).items()]
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[sidecars.c.watch_id, sidecars.c.file_name],
            set_={"read_url": statement.excluded.read_url},
        ),
        values,
    )


def load_read_urls(session: Session, *, watch_id: int, file_names: Sequence[str]) -> dict[str, str]:
    """The read URLs of the known ones among the names."""
    found: dict[str, str] = {}
    for start in range(0, len(file_names), 500):
        statement = select(sidecars.c.file_name, sidecars.c.read_url).where(
            sidecars.c.watch_id == watch_id, sidecars.c.file_name.in_(file_names[start : start + 500])
        )
        found.update((name, url) for name, url in session.execute(statement))
    return found
