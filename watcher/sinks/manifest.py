"""A manifest: a file a batch in a folder or a bucket, there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from pathlib import Path

from watcher.domain.crash_points import crash_point
from watcher.domain.delivery import ImageReference, ManifestRules
from watcher.domain.errors import StoreUnavailableError
from watcher.sinks.base import Handover, Receipt, SinkParts
from watcher.sinks.bucket import upload_file
from watcher.sinks.formats import write_lines
from watcher.work_folders import open_work_folder

_CHUNK = 500


class ManifestSink:
    """Writes manifests, in a folder readable by their owner alone, since read URLs are secrets."""

    reference = ImageReference.READ_URL

    def __init__(self, rules: ManifestRules, parts: SinkParts) -> None:
        self._rules = rules
        self._work_dir = parts.work_dir
        self._folder = parts.data_dir / rules.location

    def deliver(self, handover: Handover) -> Receipt:
        """Writes `<batch>.<format>` in the place of an earlier one.

        Raises:
            StoreUnavailableError: the folder or bucket cannot be written at the moment.
            ConfigError: the bucket cannot be used as it is configured, or a package is missing.
        """
        name = f"{handover.batch_key}.{self._rules.format}"
        if self._rules.is_bucket:
            return self._deliver_to_bucket(handover, name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._write(handover, self._folder, name)
        except OSError as error:
            raise StoreUnavailableError(
                f"the manifest of {handover.batch_key} cannot be written to {self._folder}: {error.strerror or error}"
            ) from error
        return Receipt(location=str(path), facts={})

    def _deliver_to_bucket(self, handover: Handover, name: str) -> Receipt:
        with open_work_folder(self._work_dir, prefix="manifest-") as folder:
            path = folder / name
            with path.open("wb") as file:
                write_lines(file, handover.iter_chunks(_CHUNK, 0), self._rules.format)
            location = upload_file(path, location=self._rules.location, name=name)
            crash_point("manifest.uploaded")
        return Receipt(location=location, facts={})

    def _write(self, handover: Handover, folder: Path, name: str) -> Path:
        path = folder / name
        # What a killed attempt left; should it live, it fails for want of its file and is repeated.
        for left in folder.glob(f".{glob.escape(name)}.*"):
            left.unlink(missing_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                write_lines(file, handover.iter_chunks(_CHUNK, 0), self._rules.format)
                file.flush()
                os.fsync(file.fileno())
            crash_point("manifest.written")
            os.replace(temporary, path)  # noqa: PTH105 - the name of the system call is the point
            crash_point("manifest.renamed")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - a name, not a Path
            raise
        _sync_folder(folder)
        return path


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
