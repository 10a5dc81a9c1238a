"""Polls and comparisons that a person asked for: kept until the leader did them, whoever was asked.

By the watch's name, as the reasons of failures are. A request has a number of its watch and duty; the same asked twice
before the leader begins is done once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from watcher.store.duty_problems import Duty
from watcher.store.inserting import build_insert
from watcher.store.tables import duty_requests


class DutyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The newest request of a duty.

    Attributes:
        number: counts the requests, from 1.
        answered: the last one that was done, refused or failed; 0 if none was.
    """

    watch: str
    duty: Duty
    number: int
    answered: int

    @property
    def is_open(self) -> bool:
        """Whether the leader has yet to do it."""
        return self.answered < self.number


def record_request(session: Session, *, watch: str, duty: Duty, now_ms: int) -> DutyRequest:
    """Asks for a duty."""
    insert = build_insert(session, duty_requests).values(
        watch=watch, duty=duty, number=1, answered=0, asked_ms=now_ms
    )
    statement = insert.on_conflict_do_update(
        index_elements=["watch", "duty"], set_={"number": duty_requests.c.number + 1, "asked_ms": now_ms}
    ).returning(*duty_requests.c)
    return _request(session.execute(statement).one())


def answer_request(session: Session, *, watch: str, duty: Duty, number: int) -> None:
    """Notes that everything asked for up to that number is over."""
    over = duty_requests.c.answered < number
    session.execute(update(duty_requests).where(_is(watch, duty), over).values(answered=number))


def load_request(session: Session, *, watch: str, duty: Duty) -> DutyRequest | None:
    """The newest request of a duty, over or not; None if nobody ever asked."""
    row = session.execute(select(duty_requests).where(_is(watch, duty))).one_or_none()
    return None if row is None else _request(row)


def load_open_requests(session: Session) -> list[DutyRequest]:
    """What the leader has yet to do, the oldest first."""
    statement = (
        select(duty_requests)
        .where(duty_requests.c.answered < duty_requests.c.number)
        .order_by(duty_requests.c.asked_ms, duty_requests.c.watch, duty_requests.c.duty)
    )
    return [_request(row) for row in session.execute(statement)]


def forget_others(session: Session, *, but_watches: Collection[str]) -> None:
    """Forgets the requests of watches that are no longer configured."""
    session.execute(delete(duty_requests).where(duty_requests.c.watch.not_in(but_watches)))


def _is(watch: str, duty: Duty) -> Any:
    return (duty_requests.c.watch == watch) & (duty_requests.c.duty == duty)


def _request(row: Any) -> DutyRequest:
    return DutyRequest(watch=row.watch, duty=Duty(row.duty), number=row.number, answered=row.answered)
