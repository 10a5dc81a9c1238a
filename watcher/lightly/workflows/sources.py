"""What `upload_dataset` takes: a folder, pairs of name and file, or a dataset object; made into one kind of item."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from watcher.domain.errors import DatasetError
from watcher.domain.visible import is_text
from watcher.lightly.workflows.videos import Video, build_frame_name, load_decoder

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mpg", ".hevc", ".m4v", ".webm", ".mpeg"})
MAX_NAME_CHARS = 255
_OUTPUT_FOLDER = "lightly_outputs"


@dataclass(frozen=True, slots=True)
class UploadItem:
    """A file to upload.

    Attributes:
        file_name: name in the dataset, parts joined by `/`.
        open_file: opens it for reading bytes, at its start, any number of times.
    """

    file_name: str
    open_file: Callable[[], BinaryIO]


def list_upload_items(source: Any) -> list[UploadItem]:
    """The files of an input, sorted by name for a folder, else in their order.

    Args:
        source: a folder; or an iterable of pairs (name, path or function that opens a binary file); or a dataset
            object with `get_filenames()`, and either `input_dir` or numeric access to (image, ...).

    Raises:
        DatasetError: no such folder, videos in it without the extra `frames`, an unknown kind of input, a name that
            cannot be one or comes twice. A folder's images are found wherever they lie in it.
    """
    if isinstance(source, (str, os.PathLike)):
        items = list(_iter_folder(Path(source)))
    elif hasattr(source, "get_filenames"):
        items = list(_iter_dataset(source))
    elif isinstance(source, Iterable):
        items = list(_iter_pairs(source))
    else:
        raise DatasetError(
            f"cannot upload from {type(source).__name__}: give a folder, pairs of name and file, or a dataset"
        )
    seen: set[str] = set()
    for item in items:
        if item.file_name in seen:
            raise DatasetError(f"the file name {item.file_name[:200]!r} comes twice")
        seen.add(item.file_name)
    return items


def check_file_name(name: str) -> None:
    """Raises DatasetError unless it is a relative path of at most 255 characters without control ones and dot parts."""
    if len(name) > MAX_NAME_CHARS:
        raise DatasetError(
            f"the file name {name[:60]!r}... has {len(name)} characters, {MAX_NAME_CHARS} are allowed"
        )
    if not is_text(name):
        raise DatasetError(
            f"{name[:200]!r} cannot be the name of a sample: it has control characters or is not UTF-8; rename the file"
        )
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise DatasetError(f"{name[:200]!r} cannot be the name of a sample: it must be a relative path")


def build_thumb_name(file_name: str) -> str:
    """Name of a sample's thumbnail. The whole name is kept, so that `a.jpg` and `a.png` do not share one."""
    return f"{file_name}_thumb.webp"


def _iter_folder(folder: Path) -> Iterator[UploadItem]:
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {os.fspath(folder)!r}")
    videos = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(root)  # noqa: PTH116 - one call a folder
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link back up
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if _OUTPUT_FOLDER not in name)
        for name in sorted(names):
            path = Path(root, name)
            suffix = path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                yield UploadItem(path.relative_to(folder).as_posix(), _Opener(path))
            elif suffix in VIDEO_SUFFIXES:
                videos.append(path.relative_to(folder).as_posix())
    yield from _iter_frames(folder, videos)


def _iter_frames(folder: Path, videos: list[str]) -> Iterator[UploadItem]:
    if not videos:
        return
    decoder = load_decoder()
    if decoder is None:
        raise DatasetError(
            f"the folder holds {len(videos)} videos, the first is {videos[0][:200]!r}: install the extra that cuts "
            "them into frames, pip install 'datasource-watcher[frames]', or upload frames instead"
        )
    for name in videos:
        video = Video(decoder, folder / name)
        for number in range(video.count_frames()):
            yield UploadItem(build_frame_name(name, number), partial(video.open_frame, number))


@dataclass(frozen=True, slots=True)
class _Opener:
    path: Path

    def __call__(self) -> BinaryIO:
        return self.path.open("rb")


def _iter_pairs(pairs: Iterable[Any]) -> Iterator[UploadItem]:
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DatasetError("an iterable to upload must give pairs of name and file")
        name, file = pair
        if not isinstance(name, str):
            raise DatasetError(f"a file name must be text, not {type(name).__name__}")
        if isinstance(file, (str, os.PathLike)):
            yield UploadItem(name, _Opener(Path(file)))
        elif callable(file):
            yield UploadItem(name, file)
        else:
            raise DatasetError(
                f"{name[:200]!r} comes with {type(file).__name__} instead of a path or a function"
            )


def _iter_dataset(dataset: Any) -> Iterator[UploadItem]:
    folder = getattr(dataset, "input_dir", None)
    for index, name in enumerate(dataset.get_filenames()):
        path = Path(folder, name) if folder else None
        if path is not None and path.is_file():
            yield UploadItem(name, _Opener(path))
        else:
            yield UploadItem(name, _Encoder(dataset, index, name))


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Gives a picture that a dataset has only as pixels as a file of the kind its name asks for."""

    dataset: Any
    index: int
    name: str

    def __call__(self) -> BinaryIO:
        from PIL import Image  # noqa: PLC0415 - not needed for files

        image = self.dataset[self.index][0]
        if not isinstance(image, Image.Image):
            raise DatasetError(
                f"the dataset gives {type(image).__name__} instead of a picture for {self.name[:200]!r}"
            )
        kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
        kind = kinds.get(Path(self.name).suffix.lower(), "PNG")
        file = io.BytesIO()
        if kind == "JPEG" and image.mode not in ("RGB", "L", "CMYK"):
            image = image.convert("RGB")
        image.save(file, kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
        file.seek(0)
        return file
