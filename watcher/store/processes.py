"""Who takes part: replicas and workers by their signs of life, and how the leader understands each watch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from watcher.store.inserting import build_insert
from watcher.store.tables import configurations, processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A replica (`run`) or a worker (`worker`)."""

    name: str
    kind: str
    version: str
    work_version: int
    started_ms: int
    seen_ms: int


def record_process(session: Session, *, process: Process) -> None:
    """A sign of life."""
    _upsert(session, processes, [processes.c.name], {field: getattr(process, field) for field in _FIELDS})


def forget_process(session: Session, *, name: str) -> None:
    """A process left."""
    session.execute(delete(processes).where(processes.c.name == name))


def forget_silent(session: Session, *, before_ms: int) -> None:
    """Processes without a sign of life since then are gone."""
    session.execute(delete(processes).where(processes.c.seen_ms < before_ms))


def load_processes(session: Session) -> list[Process]:
    """All that gave a sign of life, by name."""
    return [
        Process(**{field: getattr(row, field) for field in _FIELDS})
        for row in session.execute(select(processes).order_by(processes.c.name))
    ]


def count_processes(session: Session, *, since_ms: int) -> int:
    """How many gave a sign of life since then."""
    return session.execute(
        select(func.count()).select_from(processes).where(processes.c.seen_ms >= since_ms)
    ).scalar_one()


def record_configurations(session: Session, *, digests: Mapping[str, str], now_ms: int) -> None:
    """What the leader understands by each of its watches; watches it does not name keep what stands there."""
    for watch, digest in digests.items():
        _upsert(
            session,
            configurations,
            [configurations.c.watch],
            {"watch": watch, "digest": digest, "set_ms": now_ms},
        )


def load_configurations(session: Session) -> dict[str, str]:
    """The digests by watch."""
    return {
        row.watch: row.digest
        for row in session.execute(select(configurations.c.watch, configurations.c.digest))
    }


_FIELDS = ("name", "kind", "version", "work_version", "started_ms", "seen_ms")


def _upsert(session: Session, table: Any, key: list[Any], values: dict[str, object]) -> None:
    session.execute(
        build_insert(session, table).values(**values).on_conflict_do_update(index_elements=key, set_=values)
    )
