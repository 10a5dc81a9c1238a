"""The ledger: one row for (watch, file name), never forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, or_, select, text, update
from sqlalchemy.orm import Session

from watcher.domain.models import Sample, SampleState, Via
from watcher.store.extremes import load_extremes
from watcher.store.tables import samples, watches

_UNFINISHED = (SampleState.WAITING, SampleState.PROCESSING)

_SQLITE_INSERT = """
INSERT OR IGNORE INTO samples
    (watch_id, file_name, read_url, state, via, poll_id, available_ms, discovered_ms, changed_ms, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SQLITE_REFRESH = """
UPDATE samples SET read_url = ? WHERE watch_id = ? AND file_name = ? AND state IN ('waiting', 'processing')
"""
_POSTGRES_PAGE = """
CREATE TEMPORARY TABLE IF NOT EXISTS listed_page (file_name text, read_url text, state text, reason text)
ON COMMIT DELETE ROWS
"""
_POSTGRES_INSERT = """
INSERT INTO samples
    (watch_id, file_name, read_url, state, via, poll_id, available_ms, discovered_ms, changed_ms, reason)
SELECT :watch_id, file_name, read_url, state, :via, :poll_id, :now_ms, :now_ms, :now_ms, reason
FROM listed_page
ON CONFLICT (watch_id, file_name) DO NOTHING
"""
# Because of `OFFSET 0` each listed name is looked up in the index of the names. As a plain join the planner, which
# knows nothing of a page just copied, reads every unfinished sample of the watch instead.
_POSTGRES_REFRESH = """
UPDATE samples SET read_url = stale.read_url
FROM (
    SELECT known.id, listed_page.read_url
    FROM listed_page CROSS JOIN LATERAL (
        SELECT id, state, read_url FROM samples
        WHERE samples.watch_id = :watch_id AND samples.file_name = listed_page.file_name OFFSET 0
    ) AS known
    WHERE known.state IN ('waiting', 'processing') AND known.read_url <> listed_page.read_url
) AS stale
WHERE samples.id = stale.id
"""


def record_page(
    session: Session,
    *,
    watch_id: int,
    poll_id: int,
    via: Via,
    rows: Sequence[tuple[str, str, str | None]],
    now_ms: int,
) -> int:
    """Writes one listed page to the ledger.

    New names are inserted as `waiting`, or `quarantined` if a reason is given; known ones are left as they are,
    but unfinished ones get the fresh read URL.

    Args:
        session: an open transaction.
        watch_id: whose ledger.
        poll_id: which poll listed them.
        via: by which query.
        rows: (file name, read URL, reason for quarantine or None); repeats within a page are harmless.
        now_ms: time of discovery.

    Returns:
        How many names were new. Linear in the page, whatever the size of the ledger.
    """
    if not rows:
        return 0
    if session.get_bind().dialect.name == "sqlite":
        return _record_page_sqlite(session, watch_id, poll_id, via, rows, now_ms)
    return _record_page_postgres(session, watch_id, poll_id, via, rows, now_ms)


def _record_page_sqlite(
    session: Session,
    watch_id: int,
    poll_id: int,
    via: Via,
    rows: Sequence[tuple[str, str, str | None]],
    now_ms: int,
) -> int:
    # Prepared text straight to the driver: more than twice the speed of the same insert through the ORM.
    connection = session.connection()
    inserted = connection.exec_driver_sql(
        _SQLITE_INSERT,
        [
            (watch_id, name, url, _first_state(reason), via.value, poll_id, now_ms, now_ms, now_ms, reason)
            for name, url, reason in rows
        ],
    ).rowcount
    if inserted < len(rows):
        connection.exec_driver_sql(_SQLITE_REFRESH, [(url, watch_id, name) for name, url, _ in rows])
    return inserted


def _record_page_postgres(
    session: Session,
    watch_id: int,
    poll_id: int,
    via: Via,
    rows: Sequence[tuple[str, str, str | None]],
    now_ms: int,
) -> int:
    page = {name: (url, reason) for name, url, reason in rows}
    connection = session.connection()
    connection.execute(text(_POSTGRES_PAGE))
    # A plan that was kept from when the ledger was small would scan it once a name when it is large.
    connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    driver: Any = connection.connection.driver_connection
    with (
        driver.cursor() as cursor,
        cursor.copy("COPY listed_page (file_name, read_url, state, reason) FROM STDIN") as copy,
    ):
        for name, (url, reason) in page.items():
            copy.write_row((name, url, _first_state(reason), reason))
    values = {"watch_id": watch_id, "via": via.value, "poll_id": poll_id, "now_ms": now_ms}
    inserted = connection.execute(text(_POSTGRES_INSERT), values).rowcount
    if inserted < len(page):
        connection.execute(text(_POSTGRES_REFRESH), {"watch_id": watch_id})
    connection.execute(text("DELETE FROM listed_page"))
    return inserted


def _first_state(reason: str | None) -> str:
    return SampleState.WAITING.value if reason is None else SampleState.QUARANTINED.value


def load_sample(session: Session, *, watch_id: int, file_name: str) -> Sample | None:
    """The ledger's row for a name."""
    row = session.execute(
        select(samples).where(samples.c.watch_id == watch_id, samples.c.file_name == file_name)
    ).one_or_none()
    return None if row is None else build_sample(row)


def load_sample_by_id(session: Session, *, sample_id: int) -> Sample | None:
    """The ledger's row of that id."""
    row = session.execute(select(samples).where(samples.c.id == sample_id)).one_or_none()
    return None if row is None else build_sample(row)


def load_samples_named(session: Session, *, watch_id: int, file_names: Sequence[str]) -> dict[str, Sample]:
    """The ledger's rows for up to some thousands of names."""
    found: dict[str, Sample] = {}
    for start in range(0, len(file_names), 500):
        chunk = file_names[start : start + 500]
        statement = select(samples).where(samples.c.watch_id == watch_id, samples.c.file_name.in_(chunk))
        found.update((row.file_name, build_sample(row)) for row in session.execute(statement))
    return found


def find_samples(
    session: Session, *, file_name: str, watch: str | None, whole: bool = False, limit: int = 20
) -> list[tuple[str, Sample]]:
    """Rows of that name in all watches, or unless `whole` whose name ends with `/file_name`, with the watch's name."""
    statement = (
        select(watches.c.name.label("watch_name"), samples)
        .join(watches, watches.c.id == samples.c.watch_id)
        .order_by(watches.c.name, samples.c.id)
        .limit(limit)
    )
    if watch is not None:
        statement = statement.where(watches.c.name == watch)
    exact = session.execute(statement.where(samples.c.file_name == file_name)).all()
    if not exact and not whole:
        ending = samples.c.file_name.endswith(f"/{file_name}", autoescape=True)
        exact = session.execute(statement.where(ending)).all()
    return [(row.watch_name, build_sample(row)) for row in exact]


def load_oldest_waiting(session: Session, *, watch_id: int, now_ms: int) -> int | None:
    """Since when the oldest of the samples waits that may be put into a batch now; None if there is none."""
    return session.execute(
        select(func.min(samples.c.available_ms)).where(
            samples.c.watch_id == watch_id,
            samples.c.state == SampleState.WAITING,
            samples.c.available_ms <= now_ms,
        )
    ).scalar()


def count_waiting(session: Session, *, watch_id: int, until_ms: int, limit: int) -> int:
    """How many samples wait since `until_ms` or longer, counted up to `limit`."""
    available = (
        select(samples.c.id)
        .where(
            samples.c.watch_id == watch_id,
            samples.c.state == SampleState.WAITING,
            samples.c.available_ms <= until_ms,
        )
        .limit(limit)
        .subquery()
    )
    return session.execute(select(func.count()).select_from(available)).scalar_one()


def load_mean_size(session: Session, *, watch_id: int, n: int = 200) -> float | None:
    """The mean size in bytes of the newest samples that were read; None if none was."""
    for state in (SampleState.DONE, SampleState.PROCESSING):
        newest = (
            select(samples.c.size_bytes)
            .where(
                samples.c.watch_id == watch_id,
                samples.c.state == state,
                samples.c.size_bytes.is_not(None),
            )
            .order_by(samples.c.id.desc())
            .limit(n)
            .subquery()
        )
        mean = session.execute(select(func.avg(newest.c.size_bytes))).scalar()
        if mean is not None:
            return float(mean)
    return None


def assign_batch(
    session: Session, *, watch_id: int, batch_id: int, limit: int, now_ms: int, until_ms: int | None = None
) -> int:
    """Moves the longest waiting samples into a batch.

    Args:
        session: an open transaction.
        watch_id: whose samples.
        batch_id: where to.
        limit: no more than this.
        now_ms: the present.
        until_ms: only samples that wait since then or longer; absent: since `now_ms`.

    Returns:
        How many, at most `limit`.
    """
    chosen = (
        select(samples.c.id)
        .where(
            samples.c.watch_id == watch_id,
            samples.c.state == SampleState.WAITING,
            samples.c.available_ms <= (now_ms if until_ms is None else until_ms),
        )
        .order_by(samples.c.available_ms, samples.c.id)
        .limit(limit)
    )
    result: Any = session.execute(
        update(samples)
        .where(samples.c.id.in_(chosen))
        .values(state=SampleState.PROCESSING, batch_id=batch_id, changed_ms=now_ms)
    )
    return int(result.rowcount)


def load_batch_page(
    session: Session,
    *,
    batch_id: int,
    after_id: int = 0,
    last_id: int | None = None,
    limit: int = 500,
    pending_only: bool = False,
) -> list[Sample]:
    """Samples of a batch that are in processing, in the order of their discovery.

    Args:
        session: an open transaction.
        batch_id: which batch.
        after_id: the last id of the page before.
        last_id: the last id that counts; None for no end.
        limit: rows at the most; memory does not grow with the batch.
        pending_only: leave out those that are registered already.
    """
    statement = (
        select(samples)
        .where(
            samples.c.batch_id == batch_id, samples.c.state == SampleState.PROCESSING, samples.c.id > after_id
        )
        .order_by(samples.c.id)
        .limit(limit)
    )
    if last_id is not None:
        statement = statement.where(samples.c.id <= last_id)
    if pending_only:
        statement = statement.where(samples.c.remote_id.is_(None))
    return [build_sample(row) for row in session.execute(statement)]


def count_registered(session: Session, *, batch_id: int) -> int:
    """How many samples of a batch are on the server."""
    statement = select(func.count()).where(
        samples.c.batch_id == batch_id,
        samples.c.state == SampleState.PROCESSING,
        samples.c.remote_id.is_not(None),
    )
    return session.execute(statement).scalar_one()


def record_registered(
    session: Session, *, sample_id: int, remote_id: str, size_bytes: int, modified_s: int | None, now_ms: int
) -> None:
    """Notes that a sample and its files are on the server."""
    _update(
        session,
        sample_id,
        remote_id=remote_id,
        size_bytes=size_bytes,
        modified_s=modified_s,
        reason=None,
        changed_ms=now_ms,
    )


def record_reason(session: Session, *, sample_id: int, reason: str | None, now_ms: int) -> None:
    """Notes what is not right with a sample that goes on all the same; None for nothing."""
    _update(session, sample_id, reason=reason, changed_ms=now_ms)


def record_quarantined(session: Session, *, sample_id: int, reason: str, now_ms: int) -> None:
    """Takes a sample out of its batch for good, with the reason."""
    _update(session, sample_id, state=SampleState.QUARANTINED, reason=reason, changed_ms=now_ms)


def record_gone(session: Session, *, sample_id: int, reason: str, now_ms: int) -> None:
    """Notes that an object vanished before it could be read."""
    _update(session, sample_id, state=SampleState.GONE, reason=reason, changed_ms=now_ms)


def return_to_waiting(
    session: Session, *, sample_id: int, reason: str, available_ms: int, now_ms: int
) -> None:
    """Takes a sample out of its batch, to be put into a later one."""
    session.execute(
        update(samples)
        .where(samples.c.id == sample_id)
        .values(
            state=SampleState.WAITING,
            batch_id=None,
            attempts=samples.c.attempts + 1,
            available_ms=available_ms,
            reason=reason,
            changed_ms=now_ms,
        )
    )


def finish_batch_samples(session: Session, *, batch_id: int, now_ms: int) -> int:
    """Ends the samples that went down the whole pipeline.

    Returns:
        How many.
    """
    result: Any = session.execute(
        update(samples)
        .where(samples.c.batch_id == batch_id, samples.c.state == SampleState.PROCESSING)
        .values(state=SampleState.DONE, changed_ms=now_ms)
    )
    return int(result.rowcount)


def refresh_unfinished(session: Session, *, watch_id: int, rows: Sequence[tuple[str, str]]) -> None:
    """Gives unfinished samples among (file name, read URL) their fresh URL; other names are ignored."""
    if rows:
        session.connection().execute(
            update(samples)
            .where(
                samples.c.watch_id == bindparam("w"),
                samples.c.file_name == bindparam("n"),
                # Not `IN`: a statement for many rows takes no list of values.
                or_(*(samples.c.state == state for state in _UNFINISHED)),
            )
            .values(read_url=bindparam("u")),
            [{"w": watch_id, "n": name, "u": url} for name, url in rows],
        )


def load_oldest_pending(session: Session) -> dict[str, int]:
    """When the oldest unfinished sample of each watch was discovered; watches without one are left out."""
    # Ids grow with discovery, so the index on (watch, state, id) answers without touching the rows.
    oldest: dict[str, int] = {}
    for state in _UNFINISHED:
        for name, discovered_ms in load_extremes(session, newest=False, state=state):
            oldest[name] = min(discovered_ms, oldest.get(name, discovered_ms))
    return oldest


def load_newest_discovered(session: Session) -> dict[str, int]:
    """When the newest sample of each watch was discovered; watches without samples are left out."""
    newest: dict[str, int] = {}
    for state in SampleState:
        for name, discovered_ms in load_extremes(session, newest=True, state=state):
            newest[name] = max(discovered_ms, newest.get(name, discovered_ms))
    return newest


def _update(session: Session, sample_id: int, **values: object) -> None:
    session.execute(update(samples).where(samples.c.id == sample_id).values(**values))


def build_sample(row: Any) -> Sample:
    """The sample of a whole row."""
    values = {column.name: getattr(row, column.name) for column in samples.c}
    values["state"] = SampleState(values["state"])
    values["via"] = Via(values["via"])
    return Sample(**values)
