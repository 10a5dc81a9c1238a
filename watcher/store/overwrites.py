"""Objects listed again although they are known: the hint that they were written again, or came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.domain.object_facts import ObjectFacts
from watcher.store.tables import lacks, sample_novelties, samples, vectors


def note_relisted(
    session: Session, *, watch_id: int, rows: Sequence[tuple[str, str]], from_s: int, now_ms: int
) -> None:
    """Notes which processed samples of a fresh window are to be looked at, with their fresh URLs.

    An object is listed by its last change, so a known one in a window that begins after the change we know of was
    changed since. New, waiting and unread samples are left out: they are read anyhow.

    Args:
        session: an open transaction.
        watch_id: whose ledger.
        rows: (file name, read URL) of a listed page.
        from_s: begin of the window.
        now_ms: the present.
    """
    statement = (
        update(samples)
        .where(
            samples.c.watch_id == bindparam("w"),
            samples.c.file_name == bindparam("n"),
            or_(
                samples.c.state == SampleState.DONE,
                samples.c.state == SampleState.QUARANTINED,
                and_(samples.c.state == SampleState.PROCESSING, samples.c.remote_id.is_not(None)),
            ),
            or_(samples.c.modified_s.is_(None), samples.c.modified_s < from_s),
        )
        .values(read_url=bindparam("u"), relisted_ms=now_ms)
    )
    session.connection().execute(statement, [{"w": watch_id, "n": name, "u": url} for name, url in rows])


def revive_returned(session: Session, *, watch_id: int, rows: Sequence[tuple[str, str]], now_ms: int) -> None:
    """Vanished samples that are listed again wait for a batch again. One look-up where none vanished."""
    gone = select(samples.c.id).where(samples.c.watch_id == watch_id, samples.c.state == SampleState.GONE)
    if session.execute(gone.limit(1)).first() is None:
        return
    statement = (
        update(samples)
        .where(
            samples.c.watch_id == bindparam("w"),
            samples.c.file_name == bindparam("n"),
            samples.c.state == SampleState.GONE,
        )
        .values(
            state=SampleState.WAITING,
            batch_id=None,
            attempts=samples.c.attempts + 1,
            available_ms=now_ms,
            changed_ms=now_ms,
            reason=None,
            read_url=bindparam("u"),
        )
    )
    session.connection().execute(statement, [{"w": watch_id, "n": name, "u": url} for name, url in rows])


def load_relisted(session: Session, *, watch_id: int, limit: int) -> list[tuple[int, str, str, ObjectFacts]]:
    """(id, file name, read URL, what was known) of samples to look at, the longest noted first."""
    statement = (
        select(
            samples.c.id,
            samples.c.file_name,
            samples.c.read_url,
            samples.c.size_bytes,
            samples.c.modified_s,
            samples.c.etag,
        )
        .where(
            samples.c.watch_id == watch_id,
            samples.c.relisted_ms.is_not(None),
            or_(samples.c.state == SampleState.DONE, samples.c.state == SampleState.QUARANTINED),
        )
        .order_by(samples.c.relisted_ms, samples.c.id)
        .limit(limit)
    )
    return [(row.id, row.file_name, row.read_url, _facts(row)) for row in session.execute(statement)]


def _facts(row: Any) -> ObjectFacts:
    return ObjectFacts(size_bytes=row.size_bytes, modified_s=row.modified_s, etag=row.etag)


def record_seen(session: Session, *, sample_id: int, facts: ObjectFacts) -> None:
    """Remembers what the read URL told."""
    _update(
        session,
        sample_id,
        size_bytes=facts.size_bytes,
        modified_s=facts.modified_s,
        etag=facts.etag,
    )


def record_unchanged(session: Session, *, sample_id: int, facts: ObjectFacts | None) -> None:
    """Nothing was written again; None: the object is gone, or does not tell."""
    if facts is not None:
        record_seen(session, sample_id=sample_id, facts=facts)
    _update(session, sample_id, relisted_ms=None)


def postpone_look(session: Session, *, sample_id: int, now_ms: int) -> None:
    """Puts a sample that could not be looked at behind the others."""
    _update(session, sample_id, relisted_ms=now_ms)


def record_overwritten(
    session: Session, *, sample_id: int, facts: ObjectFacts, again: bool, now_ms: int
) -> None:
    """Counts an object that was written again; with `again` it waits for a batch, in the place it has."""
    record_seen(session, sample_id=sample_id, facts=facts)
    values: dict[str, Any] = {
        "relisted_ms": None,
        "n_overwritten": samples.c.n_overwritten + 1,
        "overwritten_ms": now_ms,
    }
    if again:
        values |= {
            "state": SampleState.WAITING,
            "batch_id": None,
            "remote_id": None,
            "reason": None,
            # The name is looked up on the server before it is registered.
            "attempts": 1,
            "available_ms": now_ms,
            "changed_ms": now_ms,
        }
    _update(session, sample_id, **values)


def forget_vectors(session: Session, *, watch_id: int, sample_id: int, file_name: str) -> None:
    """Takes away the vectors of a content that is no more, and what was said of them and measured by them."""
    session.execute(delete(vectors).where(vectors.c.watch_id == watch_id, vectors.c.file_name == file_name))
    session.execute(delete(lacks).where(lacks.c.sample_id == sample_id))
    session.execute(delete(sample_novelties).where(sample_novelties.c.sample_id == sample_id))


def has_overwritten(session: Session, *, batch_id: int) -> bool:
    """Whether samples of a batch go through the pipeline again."""
    return session.execute(_select_overwritten(batch_id).limit(1)).first() is not None


def load_overwritten_names(session: Session, *, batch_id: int, file_names: Sequence[str]) -> set[str]:
    """Which of the names are of samples of a batch that go through the pipeline again."""
    found: set[str] = set()
    for start in range(0, len(file_names), 500):
        chunk = file_names[start : start + 500]
        statement = _select_overwritten(batch_id).where(samples.c.file_name.in_(chunk))
        found.update(session.execute(statement).scalars())
    return found


def _select_overwritten(batch_id: int) -> Select[Any]:
    return select(samples.c.file_name).where(
        samples.c.batch_id == batch_id,
        samples.c.state == SampleState.PROCESSING,
        samples.c.n_overwritten > 0,
    )


def _update(session: Session, sample_id: int, **values: Any) -> None:
    session.execute(update(samples).where(samples.c.id == sample_id).values(**values))
