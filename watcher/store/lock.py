"""One daemon a store: a file lock beside an SQLite file, an advisory lock in Postgres.

Both are given back by the operating system or the server when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection, text

from watcher.database import Database, translated_errors
from watcher.domain.errors import StoreLockedError, StoreUnavailableError

_ADVISORY_KEY = 0x77617463686572  # "watcher"


class StoreLock:
    """Held for the life of the daemon."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file: int | None = None
        self._connection: Connection | None = None

    def acquire(self) -> None:
        """Takes the lock without waiting.

        Raises:
            StoreLockedError: another daemon holds it.
            StoreUnavailableError: the disk is read-only, or the folder another user's.
        """
        if self._database.is_sqlite:
            self._acquire_file()
        else:
            self._acquire_advisory()

    def _acquire_file(self) -> None:
        path = Path(f"{self._database.engine.url.database}.lock")
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(
                f"the lock of the store {path} cannot be written ({error.strerror}): check the owner and the mount of "
                "its folder"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise StoreLockedError(
                f"another daemon (process {holder}) works on this store: {path} is locked. One daemon an SQLite "
                "file; stop the other one, or set WATCHER_DATA_DIR to a folder of its own"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._file = handle

    def _acquire_advisory(self) -> None:
        with translated_errors(self._database.engine.url):
            connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            granted = connection.execute(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": _ADVISORY_KEY}
            ).scalar()
        if not granted:
            connection.close()
            raise StoreLockedError(
                "another daemon works on this Postgres database: stop it, or use another database"
            )
        self._connection = connection

    def release(self) -> None:
        """Gives the lock back; harmless if it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
