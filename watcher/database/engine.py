"""Engines, transactions and schema versions, the same for SQLite and Postgres.

The daemon's store and the platform's database both stand on this module; their tables and their migrations are
their own (see `docs/adr/0002-one-database-module.md`).
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from watcher.database.url import Credentials, read_url
from watcher.domain.errors import ConfigError, StoreError, StoreUnavailableError
from watcher.domain.redaction import redact

_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
}
_NETWORK_FUSE = {"sshfs", "s3fs", "rclone", "gcsfuse", "blobfuse2", "mountpoint-s3", "glusterfs", "davfs2"}
_BUSY_TIMEOUT_S = 15.0
_WAL_WAIT_S = 0.01
_POOL_TIMEOUT_S = 30.0
_POSTGRES_LIMITS = {
    "connect_timeout": 10,
    # A server that vanished without a word is noticed in a minute instead of two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    # What a frozen process holds locked is given back by the server. And the planner takes some short statements for
    # long ones, and would compile them for longer than they run.
    "options": "-c idle_in_transaction_session_timeout=60000 -c jit=off",
}
_SQLSTATE_READ_ONLY = "25006"


class Database:
    """An engine with the two kinds of transactions the package uses.

    Safe to share between threads. `read()` and `write()` give a `Session` inside one transaction; `write()`
    commits at the end and takes SQLite's write lock at the start, so that a transaction never fails half-way for
    the lock of another. Errors of the driver come out as `StoreUnavailableError` or `StoreError`.

    Attributes:
        last_failure: why the newest `write()` failed for want of the store; None if it did not.
        replaced: set once another file was found in the place of a guarded one; nothing is read or written then.
    """

    def __init__(self, engine: Engine, *, name: str | None = None) -> None:
        """Keeps the engine; `name` tells this process apart from all others, made up if absent."""
        self.engine = engine
        self.last_failure: str | None = None
        self.replaced = threading.Event()
        self.credentials = Credentials(engine.url)
        self._guarded: tuple[int, int] | None = None
        self.name = name or build_process_name()
        # Called at the end of each writing transaction, before it is committed.
        self._observe_commit: Callable[[float], None] = lambda _seconds: None
        self.before_commit: list[Callable[[Session], None]] = []

    def observe(self, *, query: Callable[[float], None], commit: Callable[[float], None]) -> None:
        """Tells the seconds each statement and each commit of `write()` took; both must be quick."""
        self._observe_commit = commit

        @event.listens_for(self.engine, "before_cursor_execute")
        def _begin(connection: Connection, *_: object) -> None:
            connection.info["begun_s"] = time.perf_counter()

        @event.listens_for(self.engine, "after_cursor_execute")
        def _end(connection: Connection, *_: object) -> None:
            query(time.perf_counter() - connection.info["begun_s"])

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite; the alternative is Postgres."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that is rolled back at the end."""
        with self._session(begin="DEFERRED") as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end, or rolled back if the block raises."""
        try:
            with self._session(begin="IMMEDIATE") as session:
                yield session
                for act in self.before_commit:
                    act(session)
                begun_s = time.perf_counter()
                session.commit()
                self._observe_commit(time.perf_counter() - begun_s)
        except StoreUnavailableError as error:
            self.last_failure = str(error)
            raise
        self.last_failure = None

    def guard_file(self) -> None:
        """From now on every transaction makes sure that the SQLite file is still the one that is there now.

        An open file that was renamed or deleted takes writes that nobody will ever read. Without effect on Postgres.
        """
        if self.is_sqlite:
            found = Path(str(self.engine.url.database)).stat()
            self._guarded = (found.st_dev, found.st_ino)

    def _check_file(self) -> None:
        if self._guarded is None:
            return
        path = Path(str(self.engine.url.database))
        try:
            found = path.stat()
        except OSError as error:
            raise StoreUnavailableError(
                f"the file of the store {path} is gone ({error.strerror}): put it back; nothing is done meanwhile"
            ) from error
        if (found.st_dev, found.st_ino) != self._guarded:
            self.replaced.set()
            raise StoreUnavailableError(
                f"the file of the store {path} was replaced by another one: nothing is written to it before a new start"
            )

    @contextmanager
    def _session(self, *, begin: str) -> Iterator[Session]:
        self._check_file()
        with (
            translated_errors(self.engine.url),
            Session(self.engine, autoflush=False, expire_on_commit=False) as session,
        ):
            session.connection(execution_options={"sqlite_begin": begin})
            yield session

    def close(self) -> None:
        """Closes all connections of the pool."""
        self.engine.dispose()


@contextmanager
def translated_errors(url: URL) -> Iterator[None]:
    """Turns errors of the driver into those of the package; programming errors pass as they are."""
    try:
        yield
    except OperationalError as error:
        raise StoreUnavailableError(_explain(error, url)) from error
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _SQLSTATE_READ_ONLY:
            raise StoreUnavailableError(_explain(error, url)) from error
        if type(error) is DatabaseError:  # what SQLite raises for a file it cannot make sense of
            raise StoreError(
                f"the file {url.database} is damaged or no SQLite database ({_reason(error)}): "
                "restore a backup, or name another file"
            ) from error
        raise
    except PoolTimeoutError as error:
        raise StoreUnavailableError(
            f"all connections to the store {_place(url)} were busy for too long: raise the size of the pool"
        ) from error


def _place(url: URL) -> str:
    return url.render_as_string(hide_password=True).partition("?")[0]


def _reason(error: DBAPIError) -> str:
    return redact(str(error.orig).strip())


def _explain(error: DBAPIError, url: URL) -> str:
    where, reason = _place(url), _reason(error)
    lowered = reason.lower()
    if "disk is full" in lowered or "no space left" in lowered or "disk i/o error" in lowered:
        return f"the disk of the store {where} is full or failing ({reason}): free space, nothing is lost meanwhile"
    if "read-only transaction" in lowered:
        return (
            f"the store {where} cannot be written ({reason}): the server is a standby, or was switched to read-only; "
            "work goes on once it takes writes, or with the primary in WATCHER_STORE__URL"
        )
    if "readonly database" in lowered or "read-only" in lowered:
        return f"the store {where} cannot be written ({reason}): check the owner and the mount of its folder"
    if "unable to open" in lowered:
        return f"the store {where} cannot be opened ({reason}): does its folder exist, and may this user write there?"
    if "locked" in lowered:
        return f"the store {where} was locked for over {_BUSY_TIMEOUT_S:g} s by another process ({reason})"
    return f"the store {where} is unavailable ({reason})"


def build_database(url: str, *, pool_size: int = 10) -> Database:
    """Builds the engine; connects only when used.

    Args:
        url: `sqlite:///path/to/file` or `postgresql+psycopg://user:password@host/name`; `postgresql://` and
            `postgres://` are understood as the latter.
        pool_size: connections kept open at the most; as many again for short bursts.

    Raises:
        ConfigError: another kind of database, or an SQLite file on a network file system.
    """
    parsed = read_url(url)
    name = build_process_name()
    if parsed.drivername == "sqlite":
        return Database(_build_sqlite_engine(parsed, pool_size), name=name)
    if parsed.drivername == "postgresql+psycopg":
        engine = create_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            pool_timeout=_POOL_TIMEOUT_S,
            connect_args={"application_name": name, **_POSTGRES_LIMITS},
            hide_parameters=True,  # they hold signed URLs
        )
        database = Database(engine, name=name)
        event.listen(engine, "do_connect", database.credentials.fill_in)
        return database
    raise ConfigError(
        f"the store URL names {parsed.drivername!r}; known are sqlite:///FILE and postgresql://USER@HOST/NAME"
    )


def build_process_name() -> str:
    """A name that no other process has: host, process id and chance, short enough for Postgres to show it."""
    return f"watcher {socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"


def _build_sqlite_engine(url: URL, pool_size: int) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigError(
            "a store in memory would forget everything; name a file: sqlite:///data/watcher.sqlite"
        )
    refuse_network_file_system(Path(url.database))
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=_POOL_TIMEOUT_S,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's own guess
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")
        _switch_to_wal(cursor)
        # FULL: a commit survives a power cut, so the remote mark can never be ahead of what is on disk.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA cache_size = -16000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}"
        )

    return engine


def _switch_to_wal(cursor: Any) -> None:
    """Turns the journal to WAL; SQLite's busy time-out does not hold for this one statement, so it is repeated."""
    ends_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends_s:
                raise
            time.sleep(_WAL_WAIT_S)
        else:
            return


def refuse_network_file_system(path: Path, *, mounts: str | None = None) -> None:
    """Raises ConfigError if `path` lies on a network file system, where SQLite's locks do not hold.

    Args:
        path: the database file; it need not exist.
        mounts: text in the form of `/proc/mounts`; read from there if absent (nothing is checked where there is none).
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8")
        except OSError:
            return
    resolved = path.resolve()
    best, kind = Path(), ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1]))
        if resolved.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, fields[2]
    if kind in _NETWORK_FILE_SYSTEMS or kind.removeprefix("fuse.") in _NETWORK_FUSE:
        raise ConfigError(
            f"{path} lies on {best}, a network file system ({kind}), where SQLite's locks do not hold and the file "
            "gets corrupted: put it on a local disk, or use Postgres"
        )
