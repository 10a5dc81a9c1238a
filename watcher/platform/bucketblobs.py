"""Uploads kept in a bucket, so that several platforms can share them.

Credentials come from the environment, as the store's own tools read them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, ...).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore, from_url

from watcher.domain.errors import ConfigError, StoreUnavailableError
from watcher.domain.redaction import redact
from watcher.platform.blobs import OpenBlob, remove_stale_files
from watcher.platform.objects.cloud import open_object

# Plain HTTP is for stores that the operator runs beside the platform; the address is theirs to choose.
_CLIENT: Any = {"timeout": "300s", "connect_timeout": "10s", "allow_http": True}
_RETRY: Any = {"max_retries": 3, "retry_timeout": dt.timedelta(seconds=120)}
_MAX_LOCAL_FILES = 16
_DELETE_CHUNK = 1000


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError from error
    except (BaseError, OSError) as error:
        detail = redact(str(error)).partition("\n")[0][:200]
        raise StoreUnavailableError(f"the bucket of the uploads cannot be used: {detail}") from error


class BucketBlobs:
    """Blobs below a prefix of a bucket; files that must be local are kept in a folder, the newest 16 of them."""

    def __init__(self, url: str, folder: Path) -> None:
        """Connects to nothing yet.

        Args:
            url: `s3://bucket/prefix`, `gs://...` or `az://...`.
            folder: for uploads in progress and local copies.

        Raises:
            ConfigError: the URL names no store.
        """
        try:
            self._store: ObjectStore = from_url(url, client_options=_CLIENT, retry_config=_RETRY)
        except (BaseError, ValueError) as error:
            detail = redact(str(error)).partition("\n")[0][:200]
            raise ConfigError(
                f"the platform's blob URL cannot be used ({detail}); write s3://bucket/prefix"
            ) from error
        self._uploads = folder / "uploads"
        self._local = folder / "local"
        for path in (self._uploads, self._local):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()

    def build_temp_path(self, name: str) -> Path:
        """A path in the local folder."""
        return self._uploads / name

    def put_file(self, key: str, path: Path) -> None:
        """Uploads the file; a bucket shows all of an object or none."""
        with _translated():
            obstore.put(self._store, key, path)

    def open(self, key: str) -> OpenBlob | None:
        """Opens an object."""
        try:
            with _translated():
                return open_object(self._store, key)
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with _translated():
                obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def fetch_local(self, key: str) -> Path:
        """A copy on this machine; keys name their content, so a copy never ages."""
        path = self._local / key.replace("/", "_")
        with self._lock:
            if path.is_file():
                path.touch()
                return path
            blob = self.open(key)
            if blob is None:
                raise FileNotFoundError(key)
            part = self._uploads / secrets.token_hex(12)
            try:
                with part.open("wb") as file:
                    for chunk in blob.chunks():
                        file.write(chunk)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            self._drop_oldest()
        return path

    def _drop_oldest(self) -> None:
        # Processes that compute jobs share the folder, so a copy may go at any moment.
        copies: list[tuple[float, Path]] = []
        for path in self._local.iterdir():
            with contextlib.suppress(FileNotFoundError):
                copies.append((path.stat().st_mtime, path))
        for _modified_s, path in sorted(copies)[:-_MAX_LOCAL_FILES]:
            path.unlink(missing_ok=True)

    def remove_stale(self, *, before_s: float) -> None:
        """Removes what killed processes left of uploads, and copies that were not used since."""
        for folder in (self._uploads, self._local):
            remove_stale_files(folder, before_s=before_s)

    def delete_dataset(self, dataset_id: str) -> None:
        """Removes everything below the dataset's prefix, and the copies on this machine."""
        for path in self._local.glob(f"{dataset_id}_*"):
            path.unlink(missing_ok=True)
        with _translated():
            for chunk in obstore.list(self._store, f"{dataset_id}/", chunk_size=_DELETE_CHUNK):
                obstore.delete(self._store, [entry["path"] for entry in chunk])

    def delete(self, key: str) -> None:
        """Removes an object; harmless if there is none."""
        try:
            with _translated():
                obstore.delete(self._store, key)
        except FileNotFoundError:
            pass
