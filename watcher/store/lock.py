"""One daemon an SQLite file: a file lock beside it, given back by the system when the process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from watcher.database.engine import Database
from watcher.domain.errors import StoreLockedError, StoreUnavailableError


class FileLock:
    """Held for the life of the daemon."""

    def __init__(self, database: Database) -> None:
        self._path = Path(f"{database.engine.url.database}.lock")
        self._file: int | None = None

    def acquire(self) -> None:
        """Takes the lock without waiting; harmless if it is held.

        Raises:
            StoreLockedError: another daemon holds it.
            StoreUnavailableError: the disk is read-only, or the folder another user's.
        """
        if self._file is not None:
            return
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(
                f"the lock of the store {self._path} cannot be written ({error.strerror}): check the owner and the "
                "mount of its folder"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise StoreLockedError(
                f"another daemon (process {holder}) works on this store: {self._path} is locked. One daemon an SQLite "
                "file; stop the other one, or set WATCHER_DATA_DIR to a folder of its own"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._file = handle

    def release(self) -> None:
        """Gives the lock back; harmless if it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
