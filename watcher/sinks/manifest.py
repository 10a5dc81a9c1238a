"""A manifest: JSON Lines in a folder, one file a batch, there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from watcher.domain.crash_points import crash_point


class ManifestLine(msgspec.Struct, frozen=True, kw_only=True):
    """A picked sample.

    Attributes:
        read_url: fresh when the manifest was written; it expires.
        tag: tag of the picks on the server.
        rank: from 1, most different first.
    """

    file_name: str
    read_url: str
    watch: str
    dataset_id: str
    tag: str
    rank: int
    batch: str
    reason: dict[str, Any]


class ManifestSink:
    """Writes manifests into a folder, readable by their owner alone, since read URLs are secrets."""

    name = "manifest"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def deliver(self, *, batch_key: str, lines: Iterable[ManifestLine]) -> Path:
        """Writes `<batch>.jsonl` in the place of an earlier one.

        Returns:
            Where it lies.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{batch_key}.jsonl"
        # What a killed attempt left; should it live, it fails for want of its file and is repeated.
        for left in self.folder.glob(f".{glob.escape(batch_key)}.*"):
            left.unlink(missing_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{batch_key}.", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                for line in lines:
                    file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            crash_point("manifest.written")
            os.replace(temporary, path)  # noqa: PTH105 - the name of the system call is the point
            crash_point("manifest.renamed")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - a name, not a Path
            raise
        _sync_folder(self.folder)
        return path


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
