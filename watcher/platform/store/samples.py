"""Samples. The position in the mapping is given once and never changes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Row, Select, exists, func, insert, select, text, update
from sqlalchemy.orm import Session

from watcher.platform.store.tables import datasets, samples

SampleRow = Row[Any]
MappingField = Literal["id", "file_name"]

_MAPPING = {
    "sqlite": "SELECT json_group_array({field}) FROM (SELECT {field} FROM platform_samples"
    " WHERE dataset_id = :dataset AND position >= :first AND position < :end ORDER BY position)",
    "postgresql": "SELECT json_agg({field} ORDER BY position)::text FROM platform_samples"
    " WHERE dataset_id = :dataset AND position >= :first AND position < :end",
}


def load_mapping_json(session: Session, *, dataset_id: str, field: MappingField, first: int, end: int) -> str:
    """The values at the positions from `first` to before `end`, as the inside of a JSON array.

    The database writes the JSON: over a million rows that is several times faster than fetching them.
    """
    dialect = session.get_bind().dialect.name
    found: str | None = session.execute(
        text(_MAPPING[dialect].format(field=field)), {"dataset": dataset_id, "first": first, "end": end}
    ).scalar_one()
    return (found or "[]")[1:-1]


def load_names(session: Session, *, dataset_id: str, first: int, end: int) -> list[str]:
    """File names at the positions from `first` to before `end`."""
    query = (
        select(samples.c.file_name)
        .where(samples.c.dataset_id == dataset_id, samples.c.position >= first, samples.c.position < end)
        .order_by(samples.c.position)
    )
    return list(session.execute(query).scalars())


def load_positions(session: Session, *, dataset_id: str, names: Sequence[str]) -> dict[str, int]:
    """Positions of those names that exist; at most some thousand names at once."""
    query = select(samples.c.file_name, samples.c.position).where(
        samples.c.dataset_id == dataset_id, samples.c.file_name.in_(names)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def load_samples(
    session: Session,
    *,
    dataset_id: str,
    first: int,
    end: int,
    limit: int,
    columns: Sequence[str] | None = None,
) -> list[SampleRow]:
    """Samples at the positions from `first` to before `end`, at most `limit`."""
    chosen = [samples.c[name] for name in columns] if columns else list(samples.c)
    query: Select[Any] = (
        select(*chosen)
        .where(samples.c.dataset_id == dataset_id, samples.c.position >= first, samples.c.position < end)
        .order_by(samples.c.position)
        .limit(limit)
    )
    return list(session.execute(query))


def load_samples_at(
    session: Session, *, dataset_id: str, positions: Sequence[int], columns: Sequence[str] | None
) -> list[SampleRow]:
    """Samples at some positions, ascending; at most some thousand at once; all columns for None."""
    chosen = [samples.c[name] for name in columns] if columns else list(samples.c)
    query = (
        select(*chosen)
        .where(samples.c.dataset_id == dataset_id, samples.c.position.in_(positions))
        .order_by(samples.c.position)
    )
    return list(session.execute(query))


def load_positions_by_id(session: Session, *, dataset_id: str, offset: int, limit: int) -> array[int]:
    """Positions in the order of the samples' ids; sorts all of the dataset, and takes eight bytes for each."""
    query = (
        select(samples.c.position)
        .where(samples.c.dataset_id == dataset_id)
        .order_by(samples.c.id)
        .offset(offset)
        .limit(limit)
    )
    return array("q", session.execute(query).scalars())


def load_sample(session: Session, *, dataset_id: str, sample_id: str) -> SampleRow | None:
    """One sample by id."""
    query = select(samples).where(samples.c.id == sample_id, samples.c.dataset_id == dataset_id)
    return session.execute(query).first()


def has_sample(session: Session, *, dataset_id: str, sample_id: str) -> bool:
    """Whether there is such a sample, in a dataset that is not deleted."""
    found = (
        exists()
        .where(samples.c.id == sample_id, samples.c.dataset_id == dataset_id)
        .where(datasets.c.id == samples.c.dataset_id, datasets.c.deleted_at.is_(None))
    )
    return bool(session.execute(select(found)).scalar_one())


def load_sample_by_name(session: Session, *, dataset_id: str, file_name: str) -> SampleRow | None:
    """One sample by name."""
    query = select(samples).where(samples.c.dataset_id == dataset_id, samples.c.file_name == file_name)
    return session.execute(query).first()


def load_ids_by_name(session: Session, *, dataset_id: str, names: Iterable[str]) -> dict[str, str]:
    """Ids of those names that exist; at most some thousand names at once."""
    query = select(samples.c.file_name, samples.c.id).where(
        samples.c.dataset_id == dataset_id, samples.c.file_name.in_(list(names))
    )
    return {row[0]: row[1] for row in session.execute(query)}


def insert_samples(session: Session, *, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds samples."""
    session.execute(insert(samples), list(rows))


def update_sample(session: Session, *, sample_id: str, values: Mapping[str, Any]) -> None:
    """Changes columns of a sample."""
    session.execute(update(samples).where(samples.c.id == sample_id).values(**values))


def count_samples(session: Session, *, dataset_id: str) -> int:
    """Number of rows; the dataset's own count is the same and cheaper."""
    return session.execute(
        select(func.count()).select_from(samples).where(samples.c.dataset_id == dataset_id)
    ).scalar_one()
