"""What the last look at the source of each watch found that the ledger did not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from watcher.domain.models import PollState, Via
from watcher.store.tables import polls, samples, source_checks, watches

_NAMES_AT_ONCE = 500


class SourceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the source of a watch.

    Attributes:
        checked_ms: when.
        n_ahead: names that polls passed over: sighted before a poll that has ended well since, and still unknown.
        sighted: names that were listed and not in the ledger, with the time of the first look that listed them.
    """

    checked_ms: int
    n_ahead: int
    sighted: dict[str, int]


def find_unknown(session: Session, *, watch_id: int, file_names: Sequence[str]) -> list[str]:
    """Those of up to some thousands of names that the ledger does not have, in their order."""
    known: set[str] = set()
    for start in range(0, len(file_names), _NAMES_AT_ONCE):
        chunk = file_names[start : start + _NAMES_AT_ONCE]
        statement = select(samples.c.file_name).where(
            samples.c.watch_id == watch_id, samples.c.file_name.in_(chunk)
        )
        known.update(session.execute(statement).scalars())
    return [name for name in file_names if name not in known]


def load_last_poll_start(session: Session, *, watch_id: int) -> int | None:
    """When the newest poll began that ended well, unix milliseconds; None if there was none."""
    return session.execute(
        select(polls.c.started_ms)
        .where(polls.c.watch_id == watch_id, polls.c.state == PollState.DONE, polls.c.via != Via.RECONCILE)
        .order_by(polls.c.id.desc())
        .limit(1)
    ).scalar()


def record_check(session: Session, *, watch_id: int, check: SourceCheck) -> None:
    """Keeps a look in place of the one before."""
    values = {
        "checked_ms": check.checked_ms,
        "n_ahead": check.n_ahead,
        "sighted": msgspec.json.encode(check.sighted).decode(),
    }
    updated: Any = session.execute(
        source_checks.update().where(source_checks.c.watch_id == watch_id).values(**values)
    )
    if not updated.rowcount:
        session.execute(source_checks.insert().values(watch_id=watch_id, **values))


def load_check(session: Session, *, watch_id: int) -> SourceCheck | None:
    """The last look; None if there was none yet."""
    row = session.execute(select(source_checks).where(source_checks.c.watch_id == watch_id)).one_or_none()
    if row is None:
        return None
    sighted = msgspec.json.decode(row.sighted, type=dict[str, int])
    return SourceCheck(checked_ms=row.checked_ms, n_ahead=row.n_ahead, sighted=sighted)


def load_last_checks(session: Session) -> dict[str, tuple[int, int]]:
    """When each watch was looked at last, and how many names were ahead; watches never looked at are left out."""
    statement = select(watches.c.name, source_checks.c.checked_ms, source_checks.c.n_ahead).join(
        watches, watches.c.id == source_checks.c.watch_id
    )
    return {row.name: (row.checked_ms, row.n_ahead) for row in session.execute(statement)}
