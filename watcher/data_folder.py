"""The data directory: its folders, the secrets that are kept in it, and what was left in it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from watcher.domain.errors import ConfigError
from watcher.domain.models import WatchConfig
from watcher.domain.statements import split_keys
from watcher.logs import get_logger
from watcher.settings.groups import check_statement_keys
from watcher.settings.root import Settings
from watcher.work_folders import clear_abandoned

_log = get_logger("data_folder")


def read_or_make_secret(path: Path, *, what: str) -> str:
    """A secret in a file that its owner alone can read; made at the first call.

    Raises:
        ConfigError: the file or its folder cannot be made or read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            secret = path.read_text(encoding="ascii").strip()
            if secret:
                return secret
            handle = os.open(path, os.O_WRONLY | os.O_TRUNC, 0o600)
        secret = secrets.token_urlsafe(32)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(
            f"{what} cannot be kept in {path}: {error.strerror}; it must lie in a folder that this user may write"
        ) from error
    return secret


def find_statement_key(settings: Settings) -> Path:
    """Where the key of the signed statements lies while none is set."""
    return settings.data_dir / "statement.key"


class StatementKey:
    """The key that the next signed statement is signed with: the newest that is set, or one of this machine."""

    def __init__(self, settings: Settings) -> None:
        self._path = find_statement_key(settings)
        key = settings.statement.key
        self._set = None if key is None else check_statement_keys(key.get_secret_value())

    @property
    def local_path(self) -> Path | None:
        """Where it lies on this machine; None if it is set."""
        return self._path if self._set is None else None

    def replace(self, text: str) -> None:
        """Signs with the newest key of the text from now on.

        Raises:
            ConfigError: one is too short; the present one stays.
        """
        try:
            self._set = check_statement_keys(text)
        except ValueError as error:
            raise ConfigError(f"WATCHER_STATEMENT__KEY: {error}") from None

    def load(self) -> str:
        """The key; one of this machine is read from its file each time, and made at the first.

        Raises:
            ConfigError: its file cannot be made or read.
        """
        if self._set is not None:
            return self._set[0]
        return split_keys(read_or_make_secret(self._path, what="the key of the signed statements"))[0]


def make_folders(settings: Settings, configs: list[WatchConfig]) -> None:
    """Makes the data directory, and with the embedded platform the watched folders.

    Raises:
        ConfigError: a folder cannot be made or written.
    """
    folders = [settings.data_dir, settings.data_dir / "selected", work_dir(settings)]
    folders += [settings.data_dir / config.folder for config in configs if config.folder is not None]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be made: {error.strerror}; set WATCHER_DATA_DIR to a folder this user "
                "may write"
            ) from error
    if not os.access(settings.data_dir, os.W_OK):
        raise ConfigError(
            f"this user may not write to {settings.data_dir}: set WATCHER_DATA_DIR, or change its owner"
        )


def work_dir(settings: Settings) -> Path:
    """Where temporary files go: beside the data, so that they have its room."""
    return settings.data_dir / "work"


def clear_work_dir(settings: Settings, *, alone: bool) -> None:
    """Removes what killed processes left there.

    Args:
        settings: where it is.
        alone: nobody else can be at work there, so all that is there is left; otherwise locks tell.
    """
    if not alone:
        n_removed = clear_abandoned(work_dir(settings))
        if n_removed:
            _log.info("work_folders.removed", n=n_removed)
        return
    for path in work_dir(settings).iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
