"""A manifest: a file a batch in a folder or a bucket, there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from watcher.domain.crash_points import crash_point
from watcher.domain.delivery import ImageReference, ManifestFormat, ManifestRules, compute_picks_digest
from watcher.domain.errors import DeliveryError, StoreUnavailableError
from watcher.logs import get_logger
from watcher.sinks.base import Handover, Receipt, SinkParts
from watcher.sinks.bucket import fetch_file, upload_file
from watcher.sinks.formats import read_file_names, write_lines
from watcher.work_folders import open_work_folder

_log = get_logger("manifest")

_CHUNK = 500
_MOST_NAMES = 9


class ManifestSink:
    """Writes manifests, in a folder readable by their owner alone, since read URLs are secrets."""

    reference = ImageReference.READ_URL

    def __init__(self, rules: ManifestRules, parts: SinkParts) -> None:
        self._rules = rules
        self._work_dir = parts.work_dir
        self._folder = parts.data_dir / rules.location

    def deliver(self, handover: Handover) -> Receipt:
        """Writes `<batch>.<format>` in the place of an earlier one of the same picks.

        A store put back from a copy gives the batch's number out again; where a manifest of other picks has the name,
        this one becomes `<batch>-2.<format>`, and so on.

        Raises:
            StoreUnavailableError: the folder or bucket cannot be written at the moment.
            ConfigError: the bucket cannot be used as it is configured, or a package is missing.
            DeliveryError: every name is taken.
        """
        if self._rules.is_bucket:
            return self._deliver_to_bucket(handover)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = self._choose_name(
                handover, lambda name: path if (path := self._folder / name).exists() else None
            )
            path = self._write(handover, self._folder, name)
        except OSError as error:
            raise StoreUnavailableError(
                f"the manifest of {handover.batch_key} cannot be written to {self._folder}: {error.strerror or error}"
            ) from error
        return Receipt(location=str(path), facts={})

    def _deliver_to_bucket(self, handover: Handover) -> Receipt:
        with open_work_folder(self._work_dir, prefix="manifest-") as folder:
            path = folder / "manifest"
            name = self._choose_name(
                handover,
                lambda name: path if fetch_file(path, location=self._rules.location, name=name) else None,
            )
            with path.open("wb") as file:
                write_lines(file, handover.iter_chunks(_CHUNK, 0), self._rules.format)
            location = upload_file(path, location=self._rules.location, name=name)
            crash_point("manifest.uploaded")
        return Receipt(location=location, facts={})

    def _choose_name(self, handover: Handover, read: Callable[[str], Path | None]) -> str:
        """The first name that no manifest of other picks has; `read` gives the file of a name, or None."""
        key, end = handover.batch_key, self._rules.format
        for name in (f"{key}.{end}", *(f"{key}-{number}.{end}" for number in range(2, _MOST_NAMES + 1))):
            handover.check()
            path = read(name)
            if path is None or _holds(path, end, handover.picks_digest):
                return name
            _log.warning("manifest.taken", watch=handover.watch, manifest=name)
        raise DeliveryError(
            f"the names {key}.{end} to {key}-{_MOST_NAMES}.{end} are taken by manifests of other picks: move some away"
        )

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


def _holds(path: Path, form: ManifestFormat, picks_digest: str) -> bool:
    """Whether a file is a manifest of just these picks."""
    with path.open("rb") as file, contextlib.suppress(ValueError):
        return compute_picks_digest(read_file_names(file, form)) == picks_digest
    return False


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
