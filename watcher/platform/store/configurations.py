"""Metadata configurations: of a user (1.2.x) or of a dataset (1.5.26)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import configurations, datasets

ConfigurationRow = Row[Any]


def load_configurations(
    session: Session, *, user_id: str | None, dataset_id: str | None
) -> list[ConfigurationRow]:
    """Those of a dataset, or those of a user that belong to none."""
    query = select(configurations).order_by(configurations.c.created_at, configurations.c.id)
    if dataset_id is not None:
        query = query.where(configurations.c.dataset_id == dataset_id)
    else:
        query = query.where(configurations.c.user_id == user_id, configurations.c.dataset_id.is_(None))
    return list(session.execute(query))


def load_configuration(session: Session, *, configuration_id: str) -> ConfigurationRow | None:
    """One configuration."""
    return session.execute(select(configurations).where(configurations.c.id == configuration_id)).first()


def insert_configuration(session: Session, *, values: Mapping[str, Any]) -> None:
    """Adds a configuration."""
    session.execute(insert(configurations).values(**values))


def update_configuration(session: Session, *, configuration_id: str, values: Mapping[str, Any]) -> None:
    """Changes columns."""
    session.execute(update(configurations).where(configurations.c.id == configuration_id).values(**values))


def release_configurations(session: Session, *, user_id: str) -> None:
    """Leaves those of datasets to the owners of the datasets, and removes the user's own."""
    owner = select(datasets.c.user_id).where(datasets.c.id == configurations.c.dataset_id).scalar_subquery()
    own = configurations.c.user_id == user_id
    session.execute(
        update(configurations).where(own, configurations.c.dataset_id.is_not(None)).values(user_id=owner)
    )
    gone = select(configurations.c.id).where(own)
    session.execute(
        update(datasets)
        .where(datasets.c.metadata_configuration_id.in_(gone))
        .values(metadata_configuration_id=None)
    )
    session.execute(delete(configurations).where(own))
