"""Watches and their marks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.errors import StoreError
from watcher.domain.listing_facts import ListingFacts
from watcher.domain.models import Watch
from watcher.store.tables import watches

_COLUMNS = (
    watches.c.id,
    watches.c.name,
    watches.c.server,
    watches.c.dataset_id,
    watches.c.mark_s,
    watches.c.remote_mark_s,
    watches.c.last_polled_ms,
    watches.c.paused_ms,
    watches.c.created_ms,
    watches.c.listing_unit,
    watches.c.listing_from_end,
    watches.c.listing_to_end,
    watches.c.probed_ms,
    watches.c.lateness_s,
    watches.c.lateness_ms,
    watches.c.problem,
)


def load_watches(session: Session) -> list[Watch]:
    """All watches ever configured on this store, by name."""
    return [_watch(row) for row in session.execute(select(*_COLUMNS).order_by(watches.c.name))]


def load_watch(session: Session, *, name: str) -> Watch | None:
    """The watch of that name; None if the store has none."""
    row = session.execute(select(*_COLUMNS).where(watches.c.name == name)).one_or_none()
    return None if row is None else _watch(row)


def load_watch_by_id(session: Session, *, watch_id: int) -> Watch:
    """The watch of that id, which a row of another table names."""
    return _watch(session.execute(select(*_COLUMNS).where(watches.c.id == watch_id)).one())


def ensure_watch(session: Session, *, name: str, server: str, dataset_id: str, now_ms: int) -> Watch:
    """The watch of that name, made if it is new.

    Raises:
        StoreError: the store knows the name with another server or dataset, whose ledger must not be mixed with
            this one's, or another name for this dataset.
    """
    known = load_watch(session, name=name)
    if known is None:
        twin = session.execute(
            select(watches.c.name).where(watches.c.server == server, watches.c.dataset_id == dataset_id)
        ).scalar()
        if twin is not None:
            raise StoreError(
                f"the watch {name!r} names dataset {dataset_id}, whose ledger is kept under the name {twin!r}: "
                f"call the watch {twin!r}, or start with another store"
            )
        session.execute(
            insert(watches).values(name=name, server=server, dataset_id=dataset_id, created_ms=now_ms)
        )
        known = load_watch(session, name=name)
        assert known is not None
    check_identity(known, server=server, dataset_id=dataset_id)
    return known


def check_identity(known: Watch, *, server: str, dataset_id: str) -> None:
    """Refuses to mix ledgers.

    Raises:
        StoreError: the watch's ledger is of another dataset or server. A dataset that was deleted and made again
            under its name has another id, as has one of a platform whose data directory was replaced.
    """
    if known.dataset_id != dataset_id or known.server != server:
        raise StoreError(
            f"the store keeps the ledger of dataset {known.dataset_id} at {known.server} for the watch {known.name!r}, "
            f"but the settings lead to dataset {dataset_id} at {server}: it was made anew, or is another one. Give the "
            "watch another name or another store"
        )


def lock_watch(session: Session, *, watch_id: int) -> None:
    """Holds the watch until the end of the transaction; on SQLite a writer is alone anyhow."""
    session.execute(select(watches.c.id).where(watches.c.id == watch_id).with_for_update(key_share=True))


def update_mark(session: Session, *, watch_id: int, mark_s: int, now_ms: int) -> None:
    """Moves the local mark at the end of a successful poll."""
    _update(session, watch_id, mark_s=mark_s, last_polled_ms=now_ms, problem=None)


def record_problem(session: Session, *, watch_id: int, problem: str) -> None:
    """Notes why a poll could not begin; the next good one takes it away."""
    _update(session, watch_id, problem=problem)


def record_lateness(session: Session, *, watch_id: int, lateness_s: int, now_ms: int) -> None:
    """Remembers the lateness by which the overlap is sized."""
    _update(session, watch_id, lateness_s=lateness_s, lateness_ms=now_ms)


def record_probe(session: Session, *, watch_id: int, facts: ListingFacts | None, now_ms: int) -> None:
    """Remembers what a probe found; None if there was nothing to find it by, which leaves what is known."""
    values: dict[str, Any] = {"probed_ms": now_ms}
    if facts is not None:
        values |= {
            "listing_unit": facts.unit,
            "listing_from_end": facts.from_end,
            "listing_to_end": facts.to_end,
        }
    _update(session, watch_id, **values)


def update_pause(session: Session, *, watch_id: int, paused_ms: int | None) -> None:
    """Pauses a watch, or lets it go on with None."""
    session.execute(update(watches).where(watches.c.id == watch_id).values(paused_ms=paused_ms))


def rewind_mark(session: Session, *, watch_id: int, mark_s: int) -> None:
    """Sets the mark back, and forgets what was known of the listing; when it was polled last stays as it is."""
    _update(
        session,
        watch_id,
        mark_s=mark_s,
        problem=None,
        probed_ms=None,
        listing_unit=None,
        listing_from_end=None,
        listing_to_end=None,
    )


def update_remote_mark(session: Session, *, watch_id: int, remote_mark_s: int) -> None:
    """Remembers what the server was told."""
    _update(session, watch_id, remote_mark_s=remote_mark_s)


def _update(session: Session, watch_id: int, **values: object) -> None:
    session.execute(update(watches).where(watches.c.id == watch_id).values(**values))


def _watch(row: Any) -> Watch:
    return Watch(**row._mapping)  # noqa: SLF001 - the public name of a row's fields
