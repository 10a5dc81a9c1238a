"""Polls: the frozen window of each cycle, and where its listing stands."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.models import Poll, PollState, SampleState, Via
from watcher.domain.window import Window
from watcher.store.newest import select_newest
from watcher.store.tables import polls, samples


def create_poll(session: Session, *, watch_id: int, window: Window, now_ms: int) -> Poll:
    """A new poll over the window; the overlap, if there is one, is listed first."""
    via = Via.WINDOW if window.overlap_from_s is None else Via.OVERLAP
    return _create(session, watch_id, window, via, PollState.LISTING, now_ms)


def create_reconcile_poll(session: Session, *, watch_id: int, to_s: int, now_ms: int) -> Poll:
    """The listing of a reconcile: it has a window that samples can name, and is never resumed."""
    return _create(session, watch_id, Window(0, to_s, None), Via.RECONCILE, PollState.DONE, now_ms)


def _create(session: Session, watch_id: int, window: Window, via: Via, state: PollState, now_ms: int) -> Poll:
    result = session.execute(
        insert(polls)
        .values(
            watch_id=watch_id,
            state=state,
            from_s=window.from_s,
            to_s=window.to_s,
            overlap_from_s=window.overlap_from_s,
            via=via,
            started_ms=now_ms,
        )
        .returning(polls.c.id)
    )
    poll = load_poll(session, poll_id=result.scalar_one())
    assert poll is not None
    return poll


def load_poll(session: Session, *, poll_id: int) -> Poll | None:
    """The poll of that id."""
    row = session.execute(select(polls).where(polls.c.id == poll_id)).one_or_none()
    return None if row is None else _poll(row)


def load_unfinished_poll(session: Session, *, watch_id: int) -> Poll | None:
    """The poll that a crash or an error left in its listing; None if the last one came to its end."""
    row = session.execute(
        select(polls)
        .where(polls.c.watch_id == watch_id, polls.c.state == PollState.LISTING)
        .order_by(polls.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _poll(row)


def load_recent_polls(
    session: Session, *, limit: int, watch_id: int | None = None
) -> defaultdict[int, list[Poll]]:
    """The last polls of a watch, or of each, by the watch's id, newest first."""
    recent: defaultdict[int, list[Poll]] = defaultdict(list)
    for row in session.execute(select_newest(session, polls, limit=limit, watch_id=watch_id)):
        recent[row.watch_id].append(_poll(row))
    for found in recent.values():
        found.sort(key=lambda poll: poll.id, reverse=True)
    return recent


def load_last_overlaps(session: Session) -> dict[int, int]:
    """Length of the overlap of each watch's last poll, in seconds, by the watch's id; left out if it had none."""
    statement = select_newest(
        session, polls, limit=1, watch_id=None, where=lambda poll: poll.c.via != Via.RECONCILE
    )
    return {
        row.watch_id: row.from_s - 1 - row.overlap_from_s
        for row in session.execute(statement)
        if row.overlap_from_s is not None
    }


def load_newest_urls(session: Session, *, watch_id: int, poll_id: int, limit: int) -> list[str]:
    """Read URLs of the waiting samples that a poll found last."""
    statement = (
        select(samples.c.read_url)
        .where(
            samples.c.watch_id == watch_id,
            samples.c.state == SampleState.WAITING,
            samples.c.poll_id == poll_id,
        )
        .order_by(samples.c.id.desc())
        .limit(limit)
    )
    return list(session.execute(statement).scalars())


def update_progress(
    session: Session, *, poll_id: int, via: Via, cursor: str | None, n_listed: int, n_new: int
) -> None:
    """Counts one more page, and remembers where the listing goes on."""
    session.execute(
        update(polls)
        .where(polls.c.id == poll_id)
        .values(
            via=via,
            cursor=cursor,
            n_pages=polls.c.n_pages + 1,
            n_listed=polls.c.n_listed + n_listed,
            n_new=polls.c.n_new + n_new,
            error=None,
        )
    )


def update_query(session: Session, *, poll_id: int, via: Via) -> None:
    """Turns to another query, or to the start of the same one."""
    session.execute(update(polls).where(polls.c.id == poll_id).values(via=via, cursor=None))


def record_error(session: Session, *, poll_id: int, error: str) -> None:
    """Notes what interrupted the listing; the poll goes on with the next cycle."""
    session.execute(update(polls).where(polls.c.id == poll_id).values(error=error))


def finish_poll(
    session: Session, *, poll_id: int, state: PollState, now_ms: int, error: str | None = None
) -> None:
    """Ends a poll."""
    session.execute(
        update(polls)
        .where(polls.c.id == poll_id)
        .values(state=state, finished_ms=now_ms, error=error, cursor=None)
    )


def delete_idle_polls(session: Session, *, before_ms: int, limit: int = 10_000) -> int:
    """Forgets finished polls that found nothing new; those that a sample names stay for ever.

    Returns:
        How many were deleted, at most `limit`.
    """
    idle = (
        select(polls.c.id)
        .where(
            polls.c.finished_ms < before_ms,
            polls.c.n_new == 0,
        )
        .limit(limit)
    )
    result: Any = session.execute(delete(polls).where(polls.c.id.in_(idle)))
    return int(result.rowcount)


def _poll(row: Any) -> Poll:
    values = dict(row._mapping)  # noqa: SLF001 - the public name of a row's fields
    values["state"] = PollState(values["state"])
    values["via"] = Via(values["via"])
    return Poll(**values)
