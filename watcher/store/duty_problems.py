"""Why the last poll or comparison of a watch failed, for whoever waits for it or asks for the state.

By the watch's name, since one that never reached its server has no row of its own. What fails behind the beginning of
a listing stands with its poll too.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from watcher.store.tables import duty_problems


class Duty(StrEnum):
    """What the leader does for a watch, and a person may ask for."""

    POLL = "poll"
    AUDIT = "audit"


class DutyProblem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a duty.

    Attributes:
        number: counts the failures, from 1; so a new one is told from the one before whatever the clocks say.
        at_ms: of the last failure.
        problem: its reason; None if the duty was done since.
        is_config: whether a person must change something, as with `ConfigError`.
    """

    watch: str
    duty: Duty
    number: int
    at_ms: int
    problem: str | None
    is_config: bool


def record_problem(
    session: Session, *, watch: str, duty: Duty, problem: str, is_config: bool, now_ms: int
) -> None:
    """Notes a failure in the place of the one before."""
    values: dict[str, Any] = {"at_ms": now_ms, "problem": problem, "is_config": is_config}
    known = update(duty_problems).where(_is(watch, duty)).values(number=duty_problems.c.number + 1, **values)
    done: Any = session.execute(known)
    if not done.rowcount:
        session.execute(insert(duty_problems).values(watch=watch, duty=duty, number=1, **values))


def clear_problem(session: Session, *, watch: str, duty: Duty) -> None:
    """Notes that the duty was done."""
    session.execute(update(duty_problems).where(_is(watch, duty)).values(problem=None))


def forget_others(session: Session, *, but_watches: Collection[str]) -> None:
    """Forgets the failures of watches that are no longer configured."""
    session.execute(delete(duty_problems).where(duty_problems.c.watch.not_in(but_watches)))


def load_problem(session: Session, *, watch: str, duty: Duty) -> DutyProblem | None:
    """The last failure of a duty, whether or not it was done since; None if it never failed."""
    row = session.execute(select(duty_problems).where(_is(watch, duty))).one_or_none()
    return None if row is None else _problem(row)


def load_problems(session: Session) -> dict[tuple[str, Duty], DutyProblem]:
    """What is wrong at present, by watch and duty, in the order of the watches' names."""
    statement = (
        select(duty_problems)
        .where(duty_problems.c.problem.is_not(None))
        .order_by(duty_problems.c.watch, duty_problems.c.duty)
    )
    found = (_problem(row) for row in session.execute(statement))
    return {(problem.watch, problem.duty): problem for problem in found}


def _is(watch: str, duty: Duty) -> Any:
    return (duty_problems.c.watch == watch) & (duty_problems.c.duty == duty)


def _problem(row: Any) -> DutyProblem:
    return DutyProblem(
        watch=row.watch,
        duty=Duty(row.duty),
        number=row.number,
        at_ms=row.at_ms,
        problem=row.problem,
        is_config=row.is_config,
    )
