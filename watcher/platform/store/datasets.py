"""Datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import datasets, embeddings, shares, tags

DatasetRow = Row[Any]
Scope = Literal["own", "shared", "all"]


def _is_shared(user_id: str) -> ColumnElement[bool]:
    return exists().where(shares.c.dataset_id == datasets.c.id, shares.c.user_id == user_id)


def _visible(user_id: str, scope: Scope) -> ColumnElement[bool]:
    if scope == "own":
        return datasets.c.user_id == user_id
    if scope == "shared":
        return _is_shared(user_id)
    return or_(datasets.c.user_id == user_id, _is_shared(user_id))


def load_dataset(session: Session, *, dataset_id: str, user_id: str, lock: bool = False) -> DatasetRow | None:
    """The dataset if the user owns it or it is shared with them.

    Args:
        session: the transaction.
        dataset_id: which.
        user_id: who asks.
        lock: keeps other writers of this dataset waiting until the end of the transaction.
    """
    query: Select[Any] = select(datasets).where(datasets.c.id == dataset_id, _visible(user_id, "all"))
    if lock:
        query = query.with_for_update(of=datasets)
    return session.execute(query).first()


def load_dataset_by_id(session: Session, *, dataset_id: str) -> DatasetRow | None:
    """The dataset, whoever owns it."""
    return session.execute(select(datasets).where(datasets.c.id == dataset_id)).first()


def lock_dataset(session: Session, *, dataset_id: str) -> DatasetRow | None:
    """The dataset, whoever owns it, kept from other writers until the end of the transaction."""
    return session.execute(select(datasets).where(datasets.c.id == dataset_id).with_for_update()).first()


def load_datasets(
    session: Session,
    *,
    user_id: str,
    scope: Scope,
    name: str | None = None,
    prefix: str | None = None,
    offset: int = 0,
    limit: int | None = None,
    newest_first: bool = False,
) -> list[DatasetRow]:
    """Datasets in order of creation."""
    query: Select[Any] = select(datasets).where(_visible(user_id, scope))
    if name is not None:
        query = query.where(datasets.c.name == name)
    if prefix is not None:
        query = query.where(func.substr(datasets.c.name, 1, len(prefix)) == prefix)
    order = (datasets.c.created_at, datasets.c.id)
    query = query.order_by(*(column.desc() for column in order)) if newest_first else query.order_by(*order)
    if offset:
        query = query.offset(offset)
    if limit is not None:
        query = query.limit(limit)
    elif offset:
        query = query.limit(2**31 - 1)
    return list(session.execute(query))


def count_datasets(session: Session, *, user_id: str) -> int:
    """Number of datasets that the user owns."""
    return session.execute(
        select(func.count()).select_from(datasets).where(datasets.c.user_id == user_id)
    ).scalar_one()


def count_parts(session: Session, *, dataset_id: str) -> tuple[int, int]:
    """Number of tags and of embeddings."""
    n_tags = select(func.count()).select_from(tags).where(tags.c.dataset_id == dataset_id)
    n_embeddings = select(func.count()).select_from(embeddings).where(embeddings.c.dataset_id == dataset_id)
    return session.execute(n_tags).scalar_one(), session.execute(n_embeddings).scalar_one()


def insert_dataset(session: Session, *, values: Mapping[str, Any]) -> None:
    """Adds a dataset."""
    session.execute(insert(datasets).values(**values))


def update_dataset(session: Session, *, dataset_id: str, values: Mapping[str, Any]) -> None:
    """Changes columns."""
    session.execute(update(datasets).where(datasets.c.id == dataset_id).values(**values))


def delete_dataset(session: Session, *, dataset_id: str) -> None:
    """Removes the dataset with everything that hangs on it."""
    session.execute(delete(datasets).where(datasets.c.id == dataset_id))
