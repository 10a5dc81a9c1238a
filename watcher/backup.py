"""A copy of a running installation in a folder, and the way back.

What is copied: the store, and with the embedded platform its database, its keys and its uploads. Each database is
copied in one read transaction while others write. The store comes first: a platform that is a little ahead of the store
is harmless, since every effect is looked up before it is repeated; one that is behind is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import make_url

from watcher import __version__
from watcher.bootstrap import build_platform_config
from watcher.database.engine import build_database
from watcher.domain.clock import Clock
from watcher.domain.errors import ConfigError, StoreError
from watcher.moving import refuse_moved
from watcher.settings.root import Settings
from watcher.store.lock import FileLock

_LIST = "backup.json"
_STORE = "watcher.sqlite"
_PLATFORM = "platform.sqlite"
_KEYS = ("platform.key", "token")
_STATEMENT_KEY = "statement.key"
_UPLOADS = "blobs"
_CHUNK = 1 << 20


class BackedUpFile(msgspec.Struct, frozen=True):
    """A file of a backup.

    Attributes:
        name: below the backup's folder.
        sha256: of its bytes, in hex.
    """

    name: str
    n_bytes: int
    sha256: str


class BackupList(msgspec.Struct, frozen=True):
    """What a backup holds; uploads are counted, not listed.

    Attributes:
        made_at: ISO 8601, UTC.
        watcher_version: of the program that made it.
    """

    made_at: str
    watcher_version: str
    files: list[BackedUpFile]
    n_uploads: int


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the parts of an installation lie; None for what is not a local file."""

    store: Path
    platform_dir: Path | None
    platform: Path | None
    uploads: Path | None


def back_up(settings: Settings, folder: Path, *, clock: Clock) -> BackupList:
    """Copies the installation into a new folder; the daemon may run meanwhile.

    The folder appears whole or not at all. Uploads never change once they are there, so they are linked where the
    folder lies on the same file system, and copied elsewhere.

    Returns:
        What was copied.

    Raises:
        ConfigError: the store is in Postgres, was moved elsewhere, there is none, or the folder is there already or
            cannot be written.
        StoreError: a copy does not pass SQLite's own check.
    """
    places = _find_places(settings)
    if not places.store.exists():
        raise ConfigError(f"there is no store at {places.store} to back up: set WATCHER_DATA_DIR")
    store = build_database(settings.store_url)
    try:
        refuse_moved(store)
    finally:
        store.close()
    if folder.exists():
        raise ConfigError(f"{folder} is there already: name a folder that is not")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        names = [_STORE]
        _copy_database(places.store, unfinished / _STORE)
        if places.platform is not None and places.platform.exists():
            _copy_database(places.platform, unfinished / _PLATFORM)
            names.append(_PLATFORM)
        for name, key in _find_keys(settings, places).items():
            if key.exists():
                shutil.copy2(key, unfinished / name)
                names.append(name)
        n_uploads = 0
        if places.uploads is not None and places.uploads.is_dir():
            n_uploads = _copy_uploads(places.uploads, unfinished / _UPLOADS)
        listed = BackupList(
            made_at=datetime.fromtimestamp(clock.now_s(), UTC).isoformat(timespec="seconds"),
            watcher_version=__version__,
            files=[_describe(unfinished / name) for name in names],
            n_uploads=n_uploads,
        )
        (unfinished / _LIST).write_bytes(msgspec.json.format(msgspec.json.encode(listed), indent=2) + b"\n")
        for name in (*names, _LIST):
            _sync(unfinished / name)
        unfinished.rename(folder)
        _sync(folder.parent)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)  # it may be what fills the disk, and holds secrets
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"the backup cannot be written to {folder}: {error.strerror}; name one with room that this user may write"
        ) from error
    return listed


def restore(settings: Settings, folder: Path, *, clock: Clock) -> BackupList:
    """Puts a backup in the place of the present installation, which is kept beside it.

    Everything is checked and copied before the first file is replaced. What was there is renamed to
    `<name>.before-<time>`.

    Returns:
        What was restored.

    Raises:
        ConfigError: no backup there, a file of it is damaged, or the store is in Postgres.
        StoreLockedError: a daemon works on the store.
    """
    listed = read_backup(folder)
    places = _find_places(settings)
    names = {file.name for file in listed.files}
    if _PLATFORM in names and (places.platform is None or places.platform_dir is None):
        raise ConfigError(
            "the backup holds a platform, but the settings name another server or another database for it: unset "
            "LIGHTLY_TOKEN or WATCHER_PLATFORM__DATABASE_URL"
        )
    places.store.parent.mkdir(parents=True, exist_ok=True)
    database = build_database(settings.store_url)
    lock = FileLock(database)
    lock.acquire()
    try:
        targets = {_STORE: places.store, **_find_keys(settings, places)}
        if places.platform is not None:
            targets[_PLATFORM] = places.platform
        stamp = datetime.fromtimestamp(clock.now_s(), UTC).strftime("%Y%m%dT%H%M%SZ")
        chosen = {name: target for name, target in targets.items() if name in names}
        for name, target in chosen.items():
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy2(folder / name, _coming(target))
            _coming(target).chmod(0o600)
            _sync(_coming(target))
        if listed.n_uploads and places.uploads is not None:
            _copy_uploads(folder / _UPLOADS, places.uploads)
        for target in chosen.values():
            _replace(target, stamp=stamp)
    except OSError as error:
        raise ConfigError(f"the backup cannot be restored: {error.strerror}: {error.filename}") from error
    finally:
        lock.release()
        database.close()
    return listed


def read_backup(folder: Path) -> BackupList:
    """The list of a backup, after every file was held against it.

    Raises:
        ConfigError: no backup, or a damaged one, by the file's name.
    """
    try:
        listed = msgspec.json.decode((folder / _LIST).read_bytes(), type=BackupList)
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} holds no backup: there is no {_LIST}; `watcher backup FOLDER` makes one"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{folder / _LIST} cannot be read: {error}") from error
    for file in listed.files:
        try:
            found = _describe(folder / file.name)
        except OSError as error:
            raise ConfigError(
                f"{file.name} of the backup cannot be read: {error.strerror}; take another backup"
            ) from error
        if found != file:
            raise ConfigError(
                f"{file.name} of the backup in {folder} is damaged: its bytes are not those that were written; "
                "take another backup"
            )
    return listed


def _find_places(settings: Settings) -> _Places:
    url = make_url(settings.store_url)
    if url.drivername != "sqlite" or not url.database:
        raise ConfigError(
            "the store is in Postgres, which has tools of its own for this: pg_dump and pg_restore, or a base backup"
        )
    if not settings.is_embedded:
        return _Places(Path(url.database), None, None, None)
    config = build_platform_config(settings)
    platform = make_url(config.store_url)
    is_file = platform.drivername == "sqlite" and platform.database
    return _Places(
        store=Path(url.database),
        platform_dir=config.data_dir,
        platform=Path(str(platform.database)) if is_file else None,
        uploads=config.data_dir / _UPLOADS if config.blob_url is None else None,
    )


def _find_keys(settings: Settings, places: _Places) -> dict[str, Path]:
    """The files of keys by their names in a backup."""
    keys = {_STATEMENT_KEY: settings.data_dir / _STATEMENT_KEY}
    if places.platform_dir is not None:
        keys |= {name: places.platform_dir / name for name in _KEYS}
    return keys


def _copy_database(source: Path, target: Path) -> None:
    """One read transaction: writers go on beside it, and the copy is of one moment."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as live,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy, pages=-1)
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be copied: {error}") from error
    if found != "ok":
        raise StoreError(
            f"the copy of {source} does not pass SQLite's check ({found}): is the original whole? "
            "`PRAGMA integrity_check` tells"
        )


def _replace(target: Path, *, stamp: str) -> None:
    """Puts the copied file in the place of the present one in one step, and keeps the present one beside it."""
    if target.exists() and target.suffix == ".sqlite":
        # What is only in the write-ahead log goes into the file that is kept; a damaged one is kept as it is.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(target, timeout=1.0)) as present,
        ):
            present.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            present.execute("PRAGMA journal_mode = DELETE")
    for suffix in ("-wal", "-shm"):
        beside = target.with_name(target.name + suffix)
        if beside.exists():
            beside.rename(beside.with_name(f"{beside.name}.before-{stamp}"))
    if target.exists():
        target.with_name(f"{target.name}.before-{stamp}").hardlink_to(target)
    _coming(target).rename(target)
    _sync(target.parent)


def _copy_uploads(source: Path, target: Path) -> int:
    """Links or copies every file that is not there yet; returns how many files the source has."""
    n_files = 0
    for folder, _folders, files in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in files:
            if name.startswith("."):
                continue  # still being written
            n_files += 1
            if (here / name).exists():
                continue
            try:
                os.link(Path(folder, name), here / name)
            except FileNotFoundError:
                n_files -= 1  # deleted with its dataset meanwhile
            except OSError:
                shutil.copy2(Path(folder, name), here / name)
    return n_files


def _describe(path: Path) -> BackedUpFile:
    digest, n_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            n_bytes += len(chunk)
    return BackedUpFile(path.name, n_bytes, digest.hexdigest())


def _coming(target: Path) -> Path:
    return target.with_name(f".{target.name}.restored")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
