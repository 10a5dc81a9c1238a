"""Tags. Masks are little-endian bytes: position i is bit i % 8 of byte i // 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, exists, insert, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import tags

TagRow = Row[Any]
_PLAIN = [column for column in tags.c if column.name not in ("picks", "distances")]
_SHORT = [column for column in _PLAIN if column.name != "mask"]


def list_tags(session: Session, *, dataset_id: str) -> list[TagRow]:
    """All tags without their masks, which are long; in order of creation, so the initial one comes first."""
    query = (
        select(*_SHORT)
        .where(tags.c.dataset_id == dataset_id)
        .order_by(tags.c.is_initial.desc(), tags.c.created_at, tags.c.id)
    )
    return list(session.execute(query))


def load_tags(session: Session, *, tag_ids: Sequence[str]) -> list[TagRow]:
    """Those of the tags that exist, with their masks, in the order of the ids; at most some hundred at once."""
    found = {row.id: row for row in session.execute(select(*_PLAIN).where(tags.c.id.in_(tag_ids)))}
    return [found[tag_id] for tag_id in tag_ids if tag_id in found]


def load_tag(session: Session, *, dataset_id: str, tag_id: str) -> TagRow | None:
    """One tag by id."""
    query = select(*_PLAIN).where(tags.c.id == tag_id, tags.c.dataset_id == dataset_id)
    return session.execute(query).first()


def load_initial_tag(session: Session, *, dataset_id: str) -> TagRow | None:
    """The initial tag."""
    query = select(*_PLAIN).where(tags.c.dataset_id == dataset_id, tags.c.is_initial)
    return session.execute(query).first()


def load_picks(session: Session, *, tag_id: str) -> tuple[bytes | None, bytes | None]:
    """Positions in order of picking (int64) and distances (float32) of a sampling's tag."""
    row = session.execute(select(tags.c.picks, tags.c.distances).where(tags.c.id == tag_id)).first()
    return (row[0], row[1]) if row else (None, None)


def is_name_taken(session: Session, *, dataset_id: str, name: str) -> bool:
    """Whether a tag has the name."""
    found = select(exists().where(tags.c.dataset_id == dataset_id, tags.c.name == name))
    return bool(session.execute(found).scalar_one())


def has_children(session: Session, *, dataset_id: str, tag_id: str) -> bool:
    """Whether the tag is the parent of another."""
    found = select(exists().where(tags.c.dataset_id == dataset_id, tags.c.prev_tag_id == tag_id))
    return bool(session.execute(found).scalar_one())


def insert_tag(session: Session, *, values: Mapping[str, Any]) -> None:
    """Adds a tag."""
    session.execute(insert(tags).values(**values))


def update_tag(session: Session, *, tag_id: str, values: Mapping[str, Any]) -> None:
    """Changes columns."""
    session.execute(update(tags).where(tags.c.id == tag_id).values(**values))


def delete_tag(session: Session, *, tag_id: str) -> None:
    """Removes a tag."""
    session.execute(delete(tags).where(tags.c.id == tag_id))
