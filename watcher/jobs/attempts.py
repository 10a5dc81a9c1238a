"""An attempt at a claimed row, be it a run or a delivery: what came of it, and how a failure is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy.orm import Session

from watcher.domain.backoff import Backoff
from watcher.domain.errors import CancelledError, WatcherError
from watcher.domain.redaction import redact

T = TypeVar("T")


class Held(Protocol):
    """A row that was claimed; every method tells whether it was still its owner's, and writes nothing if not."""

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        ...

    def postpone(
        self, session: Session, *, available_ms: int, error: str | None, count_attempt: bool
    ) -> bool:
        """Gives the row back until then."""
        ...

    def bury(self, session: Session, *, now_ms: int, error: str) -> bool:
        """Ends the row as `dead`, and what ends with it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a failed attempt came to.

    Attributes:
        label: `interrupted`, `retried` or `dead`.
        held: whether the row was still this owner's.
        error: what is told of it; None for an interruption.
        delay_s: until the next attempt; None if there is none, or at once.
    """

    label: str
    held: bool
    error: str | None = None
    delay_s: float | None = None


def record_failure(
    session: Session,
    row: Held,
    error: Exception,
    *,
    now_ms: int,
    jitter: float,
    is_final: bool,
    backoff: Backoff,
    floor_s: float | None = None,
    place: str = "",
) -> Failure:
    """Writes what becomes of a row whose attempt failed.

    Args:
        session: an open transaction.
        row: the row.
        error: why; `CancelledError` gives the row back at once, and the attempt does not count.
        now_ms: the present.
        jitter: from 0 to 1.
        is_final: whether there is no further attempt.
        backoff: the wait before the next one.
        floor_s: shortest wait; absent: what the error asks for.
        place: told behind the error.
    """
    if isinstance(error, CancelledError):
        held = row.postpone(session, available_ms=now_ms, error=None, count_attempt=False)
        return Failure(label="interrupted", held=held)
    text = redact(f"{type(error).__name__}: {error}") + place
    if is_final:
        return Failure(label="dead", held=row.bury(session, now_ms=now_ms, error=text), error=text)
    if floor_s is None and isinstance(error, WatcherError):
        floor_s = error.retry_after_s
    delay_s = backoff.compute_delay_s(attempt=row.attempt, jitter=jitter, floor_s=floor_s)
    held = row.postpone(session, available_ms=now_ms + int(delay_s * 1000), error=text, count_attempt=True)
    return Failure(label="retried", held=held, error=text, delay_s=delay_s)


def make_attempt(call: Callable[[], T], *, on_crash: Callable[[Exception], None]) -> T | Exception:
    """What a call returned, or the error it raised; `on_crash` is told of one that nobody foresaw."""
    try:
        return call()
    except WatcherError as error:
        return error
    except Exception as error:  # noqa: BLE001 - sorted by the caller
        on_crash(error)
        return error
