"""The kept statements: at most one a day and watch, never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from watcher.domain.statements import SignedStatement
from watcher.store.tables import statements

_PAGE = 100


def has_statement(session: Session, *, watch_id: int, day: str) -> bool:
    """Whether the day has its statement."""
    row = session.execute(
        select(statements.c.id).where(statements.c.watch_id == watch_id, statements.c.day == day)
    ).first()
    return row is not None


def load_last_hash(session: Session, *, watch_id: int) -> str | None:
    """The hash of the newest statement; None if there is none."""
    row = session.execute(
        select(statements.c.body, statements.c.signature)
        .where(statements.c.watch_id == watch_id)
        .order_by(statements.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else SignedStatement(body=row.body, signature=row.signature).hash


def record_statement(session: Session, *, watch_id: int, day: str, signed: SignedStatement) -> None:
    """Keeps one more."""
    session.execute(
        insert(statements).values(watch_id=watch_id, day=day, body=signed.body, signature=signed.signature)
    )


def iter_statements(session: Session, *, watch_id: int) -> Iterator[SignedStatement]:
    """All statements of a watch, oldest first; memory is a page of a hundred."""
    after = 0
    while True:
        page = session.execute(
            select(statements.c.id, statements.c.body, statements.c.signature)
            .where(statements.c.watch_id == watch_id, statements.c.id > after)
            .order_by(statements.c.id)
            .limit(_PAGE)
        ).all()
        if not page:
            return
        for row in page:
            yield SignedStatement(body=row.body, signature=row.signature)
        after = page[-1].id
