"""Datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import (
    configurations,
    datasets,
    datasources,
    embeddings,
    jobs,
    samples,
    scores,
    shares,
    tags,
)

DatasetRow = Row[Any]
_KEPT = datasets.c.deleted_at.is_(None)
# What hangs on a dataset and counts in tens; projections go with their embeddings.
_PARTS = (scores, embeddings, tags, configurations)
Scope = Literal["own", "shared", "all"]


def _is_shared(user_id: str) -> ColumnElement[bool]:
    return exists().where(shares.c.dataset_id == datasets.c.id, shares.c.user_id == user_id)


def _visible(user_id: str, scope: Scope) -> ColumnElement[bool]:
    if scope == "own":
        return and_(_KEPT, datasets.c.user_id == user_id)
    if scope == "shared":
        return and_(_KEPT, _is_shared(user_id))
    return and_(_KEPT, or_(datasets.c.user_id == user_id, _is_shared(user_id)))


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
    return session.execute(select(datasets).where(datasets.c.id == dataset_id, _KEPT)).first()


def lock_dataset(session: Session, *, dataset_id: str) -> DatasetRow | None:
    """The dataset, whoever owns it, kept from other writers until the end of the transaction."""
    query = select(datasets).where(datasets.c.id == dataset_id, _KEPT)
    return session.execute(query.with_for_update()).first()


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
        select(func.count()).select_from(datasets).where(datasets.c.user_id == user_id, _KEPT)
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


def hide_dataset(session: Session, *, dataset_id: str, now_ms: int) -> None:
    """Deletes the dataset for everybody who asks, with its jobs; its rows and files are left to `take_deleted`.

    A million samples would keep all writers waiting for half a minute, were they deleted here.
    """
    for table in (jobs, datasources, shares):
        session.execute(delete(table).where(table.c.dataset_id == dataset_id))
    # The name is free again; no name of a caller begins like this one.
    values = {"deleted_at": now_ms, "name": f"\x7f{dataset_id}"}
    session.execute(update(datasets).where(datasets.c.id == dataset_id).values(**values))


def hand_over_deleted(session: Session, *, user_id: str, to_user_id: str) -> None:
    """Makes what is left of a user's deleted datasets another one's."""
    query = update(datasets).where(datasets.c.user_id == user_id, ~_KEPT)
    session.execute(query.values(user_id=to_user_id))


def load_deleted(session: Session) -> list[str]:
    """Ids of the datasets that are deleted and still have a row."""
    return list(
        session.execute(select(datasets.c.id).where(~_KEPT).order_by(datasets.c.deleted_at)).scalars()
    )


def take_deleted(session: Session, *, dataset_id: str) -> DatasetRow | None:
    """A deleted dataset, kept from others until the end of the transaction; None while another one has it."""
    query = select(datasets).where(datasets.c.id == dataset_id, ~_KEPT)
    return session.execute(query.with_for_update(skip_locked=True)).first()


def delete_some_samples(session: Session, *, dataset_id: str, limit: int) -> int:
    """Removes that many samples at the most, the first ones; gives their number."""
    first = (
        select(samples.c.id)
        .where(samples.c.dataset_id == dataset_id)
        .order_by(samples.c.position)
        .limit(limit)
    )
    changed: Any = session.execute(delete(samples).where(samples.c.id.in_(first)))
    n_deleted: int = changed.rowcount
    return n_deleted


def delete_parts(session: Session, *, dataset_id: str) -> None:
    """Removes tags, embeddings, scores and configurations of a dataset."""
    for table in _PARTS:
        session.execute(delete(table).where(table.c.dataset_id == dataset_id))


def delete_dataset(session: Session, *, dataset_id: str) -> None:
    """Removes the dataset with everything that hangs on it."""
    session.execute(delete(datasets).where(datasets.c.id == dataset_id))
