"""Moves a store to another database: table by table, in bounded memory, resumable, checked at the end.

The source is led meanwhile by the move, so no daemon works on it. What was copied is noted in the target with each
part, in the same transaction; an interrupted move goes on there. At the end both sides are counted and summed up row
by row, and only then the target counts as a store: until then it holds the table `move_progress`, by which a daemon
refuses it. From then on the source holds the table `moved_to`, by which a daemon refuses the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    MetaData,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.database.schema import upgrade_schema
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ConfigError, StoreError
from watcher.leadership import Leadership
from watcher.logs import get_logger
from watcher.store import SCHEMA, processes
from watcher.store.tables import metadata, watches

_log = get_logger("moving")

PROGRESS_TABLE = "move_progress"
MOVED_TABLE = "moved_to"
# Who leads, who lives and what was asked of the server just now is true of the old place alone; the counts are kept by
# triggers, also while rows come in.
_LEFT_OUT = frozenset({"leadership", "processes", "request_rates", "sample_counts", "dark_counts"})
_PART = 5000
_LIVE_MS = 60_000

_progress = Table(
    PROGRESS_TABLE,
    MetaData(),
    Column("name", String(100), primary_key=True),
    Column("last_key", Text),
    Column("state", String(10), nullable=False),
)
_moved = Table(
    MOVED_TABLE,
    MetaData(),
    Column("place", Text, nullable=False),
    Column("moved_ms", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMoved:
    """One table after the move: rows, and the sum over all of them, equal on both sides."""

    name: str
    n_rows: int
    checksum: str


def refuse_unfinished_move(database: Database) -> None:
    """Refuses a database into which a move is under way.

    Raises:
        ConfigError: the move must be ended first.
    """
    if _has_table(database, PROGRESS_TABLE):
        raise ConfigError(
            "a move of another store into this database was interrupted: run the same `watcher move-store` again, it "
            "goes on where it was"
        )


def refuse_moved(database: Database) -> None:
    """Refuses a database that was moved to another place, where the ledger goes on.

    Raises:
        ConfigError: with the place, without its password, and the way out.
    """
    where = tell_move(database)
    if where is not None:
        raise ConfigError(
            f"{where}. To go on with this one, without what the new one did since, stop whatever works on the new one, "
            "and run `watcher move-store --take-back`"
        )


def tell_move(database: Database) -> str | None:
    """Where and when the store was moved, without the place's password, and what to do; None if it was not."""
    moved = _load_moved(database)
    if moved is None:
        return None
    place, moved_ms = moved
    at = datetime.fromtimestamp(moved_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"the store was moved to {place} at {at}: set WATCHER_STORE__URL to that place"


def take_back(database: Database, *, now_ms: int) -> str:
    """Lets daemons work on a moved store again.

    Returns:
        The place it had been moved to.

    Raises:
        ConfigError: it was not moved, or replicas or workers live on it.
        StoreLockedError: a daemon works on it.
    """
    leadership = Leadership(database)
    leadership.acquire()
    try:
        _refuse_workers(database, now_ms=now_ms)
        moved = _load_moved(database)
        if moved is None:
            raise ConfigError("this store was not moved anywhere, so there is nothing to take back")
        with database.write() as session:
            _moved.drop(session.connection())
    finally:
        leadership.release()
    return moved[0]


def describe_place(url: URL) -> str:
    """What may be shown of a database: no user with a password, and no query, which may hold them too."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{Path(str(url.database)).resolve()}"
    shown = URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database)
    return shown.render_as_string()


def _load_moved(database: Database) -> tuple[str, int] | None:
    """Where a store was moved to, and when."""
    if not _has_table(database, MOVED_TABLE):
        return None
    with database.read() as session:
        row = session.execute(select(_moved)).first()
    return None if row is None else (row.place, row.moved_ms)


def _has_table(database: Database, name: str) -> bool:
    with database.read() as session:
        return inspect(session.connection()).has_table(name)


def move_store(
    source: Database, target: Database, *, now_ms: int, say: Callable[[str], None]
) -> list[TableMoved]:
    """Copies everything.

    Args:
        source: led by this call until it ends; it is only read, and at the end marked as moved.
        target: an empty database, or one into which this move was begun.
        now_ms: the present, to tell living workers from dead ones.
        say: told of each table.

    Returns:
        The tables with their counts.

    Raises:
        ConfigError: the target holds another store, both are the same, or the source was moved before, also to the
            same target.
        StoreLockedError: a daemon works on the source.
        StoreError: the sides differ at the end; the target is not to be used.
    """
    if source.engine.url == target.engine.url:
        raise ConfigError("source and target are the same database: name another one with --to")
    leadership = Leadership(source)
    leadership.acquire()
    try:
        _refuse_workers(source, now_ms=now_ms)
        place = describe_place(target.engine.url)
        marked = _load_moved(source)
        if marked is not None and (marked[0] != place or _is_in_use(target)):
            refuse_moved(source)
        _begin(target)
        moved = []
        for table in _order_tables():
            _copy_table(source, target, table)
            moved.append(_compare(source, target, table))
            say(f"{table.name}: {moved[-1].n_rows} rows")
        # Before the target counts: at no time may a daemon work on either.
        if marked is None:
            _mark_moved(source, place=place, now_ms=now_ms)
        crash_point("moving.source_marked")
        _finish(target)
    finally:
        leadership.release()
    _log.info("store.moved", tables={table.name: table.n_rows for table in moved})
    return moved


def _order_tables() -> list[Table]:
    return [table for table in metadata.sorted_tables if table.name not in _LEFT_OUT]


def _refuse_workers(source: Database, *, now_ms: int) -> None:
    with source.read() as session:
        n_alive = processes.count_processes(session, since_ms=now_ms - _LIVE_MS)
    if n_alive:
        raise ConfigError(
            f"{n_alive} replicas or workers gave a sign of life within the last minute: stop them, wait a minute, and "
            "move then"
        )


def _is_in_use(target: Database) -> bool:
    """Whether watches live there, and no move into it is under way."""
    if _has_table(target, PROGRESS_TABLE) or not _has_table(target, watches.name):
        return False
    with target.read() as session:
        return _holds_rows(session, watches)


def _begin(target: Database) -> None:
    is_begun = _has_table(target, PROGRESS_TABLE)
    upgrade_schema(target, SCHEMA)
    if is_begun:
        return
    with target.write() as session:
        holds = next(
            (table.name for table in metadata.sorted_tables if _holds_rows(session, table)),
            None,
        )
        if holds is not None:
            raise ConfigError(
                f"the target is not empty, there are rows in {holds!r}: a store is only moved into an empty database"
            )
        _progress.create(session.connection())


def _holds_rows(session: Session, table: Table) -> bool:
    return session.execute(select(table).limit(1)).first() is not None


def _copy_table(source: Database, target: Database, table: Table) -> None:
    with target.read() as session:
        row = session.execute(select(_progress).where(_progress.c.name == table.name)).one_or_none()
    if row is not None and row.state == "done":
        return
    after: list[Any] | None = (
        None if row is None or row.last_key is None else msgspec.json.decode(row.last_key)
    )
    if row is None:
        with target.write() as session:
            session.execute(insert(_progress).values(name=table.name, state="copying"))
    for rows in _iter_parts(source, table, after=after):
        with target.write() as session:
            _insert(session, table, rows)
            _note(session, table, last_key=_key_of(table, rows[-1]))
        crash_point("moving.part_copied")
    with target.write() as session:
        _note(session, table, state="done")


def _iter_parts(source: Database, table: Table, *, after: Sequence[Any] | None) -> Iterator[list[Any]]:
    key = list(table.primary_key.columns)
    while True:
        statement = select(table).order_by(*key).limit(_PART)
        if after is not None:
            statement = statement.where(tuple_(*key) > tuple_(*after) if len(key) > 1 else key[0] > after[0])
        with source.read() as session:
            rows = [tuple(row) for row in session.execute(statement)]
        if not rows:
            return
        yield rows
        after = _key_of(table, rows[-1])


def _key_of(table: Table, row: Sequence[Any]) -> list[Any]:
    columns = list(table.columns)
    return [row[columns.index(column)] for column in table.primary_key.columns]


def _insert(session: Session, table: Table, rows: list[Any]) -> None:
    names = [column.name for column in table.columns]
    if session.get_bind().dialect.name == "sqlite":
        session.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        return
    quoted = ", ".join(f'"{name}"' for name in names)
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({quoted}) FROM STDIN') as copy:
        for row in rows:
            copy.write_row(row)


def _note(session: Session, table: Table, **values: Any) -> None:
    if "last_key" in values:
        values["last_key"] = msgspec.json.encode(values["last_key"]).decode()
    session.execute(update(_progress).where(_progress.c.name == table.name).values(**values))


def _compare(source: Database, target: Database, table: Table) -> TableMoved:
    """Counts and sums up both sides.

    Raises:
        StoreError: they differ.
    """
    ours, theirs = _sum_up(source, table), _sum_up(target, table)
    if ours != theirs:
        raise StoreError(
            f"the table {table.name!r} differs after the move: {ours.n_rows} rows with sum {ours.checksum} here, "
            f"{theirs.n_rows} with {theirs.checksum} there. Was the source changed between two attempts? Empty the "
            "target database and move again"
        )
    return ours


def _sum_up(database: Database, table: Table) -> TableMoved:
    """Rows, and the sum of their hashes, in which their order does not count."""
    n_rows = total = 0
    for rows in _iter_parts(database, table, after=None):
        n_rows += len(rows)
        for row in rows:
            total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest())
    return TableMoved(name=table.name, n_rows=n_rows, checksum=f"{total % 2**128:032x}")


def _mark_moved(source: Database, *, place: str, now_ms: int) -> None:
    with source.write() as session:
        _moved.create(session.connection())
        session.execute(insert(_moved).values(place=place, moved_ms=now_ms))


def _finish(target: Database) -> None:
    """Sets the sequences, and lets daemons in."""
    with target.write() as session:
        if not target.is_sqlite:
            for table in metadata.sorted_tables:
                key = list(table.primary_key.columns)
                if len(key) == 1 and key[0].name == "id" and not key[0].foreign_keys:
                    last = session.execute(select(func.max(key[0]))).scalar()
                    session.execute(
                        text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last, :used)"),
                        {"name": table.name, "last": last or 1, "used": last is not None},
                    )
        # Hints of the old place are not there.
        session.execute(text("UPDATE runs SET dispatched_ms = NULL"))
        _progress.drop(session.connection())
