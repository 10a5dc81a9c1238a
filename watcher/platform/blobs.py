"""Uploads: thumbnails, images, CSV files, vectors. Keys are made of ids only, never of names that a caller chose."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from watcher.domain.errors import StoreUnavailableError

_CHUNK_BYTES = 1024 * 1024


def build_sample_key(dataset_id: str, sample_id: str, *, thumbnail: bool) -> str:
    """Where the image or the thumbnail of a sample is; 256 folders, so that none grows too long."""
    return f"{dataset_id}/{'thumb' if thumbnail else 'full'}/{sample_id[-2:]}/{sample_id}"


def build_embedding_key(dataset_id: str, embedding_id: str, digest: str, suffix: str) -> str:
    """Where an embedding is: its CSV or its vectors."""
    return f"{dataset_id}/embedding/{embedding_id}-{digest[:16]}.{suffix}"


@dataclass(frozen=True, slots=True)
class OpenBlob:
    """An open blob; the reader closes it.

    Attributes:
        size: in bytes.
        modified_s: unix time of the last change.
        file: the content, at its beginning.
    """

    size: int
    modified_s: float
    file: BinaryIO

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces; closes the file at the end."""
        with self.file:
            while chunk := self.file.read(_CHUNK_BYTES):
                yield chunk


class BlobStore(Protocol):
    """Where uploads are kept."""

    def build_temp_path(self, name: str) -> Path:
        """A path for an upload in progress."""

    def put_file(self, key: str, path: Path) -> None:
        """Moves a finished local file to `key`; readers see all of it or none."""

    def open(self, key: str) -> OpenBlob | None:
        """Opens a blob; None if there is none."""

    def exists(self, key: str) -> bool:
        """Whether there is a blob."""

    def fetch_local(self, key: str) -> Path:
        """A local file with the content; raises FileNotFoundError."""

    def delete_dataset(self, dataset_id: str) -> None:
        """Removes all blobs of a dataset; raises StoreUnavailableError if some are left."""

    def remove_stale(self, *, before_s: float) -> None:
        """Removes local files that nobody needs any more: unfinished uploads of killed processes, unused copies."""

    def delete(self, key: str) -> None:
        """Removes a blob; harmless if there is none."""


class FolderBlobs:
    """Blobs as files below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temp = root / "uploads"
        self._temp.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _path(self, key: str) -> Path:
        return self._root / key

    def build_temp_path(self, name: str) -> Path:
        """A path beside the blobs, so that moving is renaming."""
        return self._temp / name

    def put_file(self, key: str, path: Path) -> None:
        """Writes the file through to the disk, then renames it."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(target)
        sync_folder(target.parent)

    def open(self, key: str) -> OpenBlob | None:
        """Opens the file."""
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError:
            return None
        status = os.fstat(file.fileno())
        return OpenBlob(size=status.st_size, modified_s=status.st_mtime, file=file)

    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        return self._path(key).is_file()

    def fetch_local(self, key: str) -> Path:
        """The file itself."""
        path = self._path(key)
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def delete_dataset(self, dataset_id: str) -> None:
        """Removes the dataset's folder."""
        try:
            shutil.rmtree(self._root / dataset_id)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreUnavailableError(
                f"uploads of the deleted dataset {dataset_id} cannot be removed: {error.strerror}"
            ) from error

    def remove_stale(self, *, before_s: float) -> None:
        """Removes what killed processes left of uploads."""
        remove_stale_files(self._temp, before_s=before_s)

    def delete(self, key: str) -> None:
        """Removes the file."""
        self._path(key).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_files(folder: Path, *, before_s: float) -> None:
    """Removes files that were last touched before; others may remove them at the same time."""
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before_s:
                Path(entry.path).unlink()
