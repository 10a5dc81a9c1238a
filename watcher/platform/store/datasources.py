"""Datasources: plain settings as JSON, secrets encrypted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import datasources

DatasourceRow = Row[Any]


def load_datasources(session: Session, *, dataset_id: str) -> list[DatasourceRow]:
    """All datasources of a dataset, by purpose."""
    query = select(datasources).where(datasources.c.dataset_id == dataset_id).order_by(datasources.c.purpose)
    return list(session.execute(query))


def replace_datasource(
    session: Session,
    *,
    datasource_id: str,
    dataset_id: str,
    purpose: str,
    kind: str,
    settings: str,
    secrets: str | None,
) -> None:
    """Sets the datasource of a purpose; an earlier one keeps its id."""
    values = {"type": kind, "settings": settings, "secrets": secrets}
    same = (datasources.c.dataset_id == dataset_id, datasources.c.purpose == purpose)
    if session.execute(select(datasources.c.id).where(*same)).first() is not None:
        session.execute(update(datasources).where(*same).values(**values))
    else:
        values.update(id=datasource_id, dataset_id=dataset_id, purpose=purpose)
        session.execute(insert(datasources).values(**values))


def load_locked(session: Session, *, after_id: str, limit: int) -> list[DatasourceRow]:
    """Ids and encrypted secrets of the datasources that have some, by id, behind the given one."""
    query = select(datasources.c.id, datasources.c.secrets).where(
        datasources.c.secrets.is_not(None), datasources.c.id > after_id
    )
    return list(session.execute(query.order_by(datasources.c.id).limit(limit)))


def replace_secrets(session: Session, *, datasource_id: str, secrets: str, instead_of: str) -> None:
    """Puts other encrypted secrets in the place of those; nothing happens if others are there by now."""
    same = (datasources.c.id == datasource_id, datasources.c.secrets == instead_of)
    session.execute(update(datasources).where(*same).values(secrets=secrets))
