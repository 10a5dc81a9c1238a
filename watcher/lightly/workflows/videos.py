"""Frames of videos, for folders with videos in them. Needs the package `av`, the optional extra `frames`.

A frame is called `<video without suffix>-<number, 8 digits>-<suffix>.png`, as the original calls it.
"""

from __future__ import annotations

import importlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, BinaryIO

from watcher.domain.errors import DatasetError

# Workers ask for frames nearly in order; as many as may be under way are kept.
_KEPT_FRAMES = 32


def load_decoder() -> ModuleType | None:
    """The package that decodes videos; None where the extra is not installed."""
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError:
        return None


class Video:
    """One video, whose frames are given as PNG by number, from 0. Safe for many threads.

    Frames are decoded forward; going back further than the 32 that are kept starts the video anew. One picture after
    another costs one decoding of the whole; at most 33 decoded frames are in memory.
    """

    def __init__(self, av: ModuleType, path: Path) -> None:
        self._av = av
        self._path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._frames: Iterator[Any] | None = None
        self._next = 0

    def count_frames(self) -> int:
        """Number of frames, by decoding all of them, since what a container says of itself is often wrong.

        Raises:
            DatasetError: this is no video, or it breaks off.
        """
        return sum(1 for _ in self._decode())

    def open_frame(self, number: int) -> BinaryIO:
        """The frame as a PNG file at its start.

        Raises:
            DatasetError: the video has fewer frames than before, or breaks off.
        """
        with self._lock:
            frame = self._seek(number)
            image = frame.to_image()
        file = io.BytesIO()
        image.save(file, "PNG")
        file.seek(0)
        return file

    def _seek(self, number: int) -> Any:
        if number in self._kept:
            return self._kept[number]
        if self._frames is None or number < self._next:
            self._frames, self._next = self._decode(), 0
            self._kept.clear()
        for frame in self._frames:
            self._kept[self._next] = frame
            self._next += 1
            if len(self._kept) > _KEPT_FRAMES:
                self._kept.popitem(last=False)
            if self._next > number:
                return frame
        self._frames = None
        raise DatasetError(f"{self._path.name!r} has no frame {number} any more: did the file change?")

    def _decode(self) -> Iterator[Any]:
        try:
            with self._av.open(str(self._path)) as container:
                if not container.streams.video:
                    raise DatasetError(f"{self._path.name!r} holds no pictures")
                yield from container.decode(container.streams.video[0])
        except (self._av.error.FFmpegError, OSError) as error:
            raise DatasetError(
                f"the video {self._path.name!r} cannot be decoded: {error.strerror}"
            ) from error


def build_frame_name(file_name: str, number: int) -> str:
    """Name of a frame as a sample."""
    path = PurePosixPath(file_name)
    stem = file_name.removesuffix(path.suffix)
    return f"{stem}-{number:08d}-{path.suffix.removeprefix('.')}.png"
