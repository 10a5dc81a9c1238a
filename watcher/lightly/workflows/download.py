"""Downloading the images of a tag: bytes as stored, names that cannot leave the folder, files that are whole."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

from watcher.domain.bitmask import BitMask
from watcher.domain.errors import (
    DatasetError,
    ReadUrlRefusedError,
    TagDoesNotExistError,
)
from watcher.domain.visible import is_text
from watcher.lightly import datasets, mappings, samples, tags
from watcher.lightly.files import open_replacement
from watcher.lightly.parallel import map_unordered
from watcher.lightly.progress import Progress
from watcher.lightly.transport import Transport
from watcher.lightly.wire.tags import TagData

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 3600.0
_MAX_PART_BYTES = 255


@dataclass
class DownloadReport:
    """What became of each file.

    Attributes:
        downloaded: written.
        skipped: there before, with the stored size.
        failed: not written, with the reason; run it again for another try.
    """

    downloaded: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{len(self.downloaded)} downloaded, {len(self.skipped)} skipped, {len(self.failed)} failed"


def select_names(tag: TagData, values: list[str]) -> list[str]:
    """The values at the positions of a tag, ascending. Linear; 0.1 s for a million samples.

    Raises:
        DatasetError: the mask is none, or reaches beyond the values.
    """
    return select_by_mask(tag.bit_mask_data, values)


def select_by_mask(mask_text: str, values: list[str]) -> list[str]:
    """The values at the positions of a mask given as hexadecimal text; see `select_names`."""
    import numpy as np  # noqa: PLC0415 - loaded only by those who need it

    try:
        mask = BitMask.from_hex(mask_text)
        mask.check_fits(len(values))
    except ValueError as error:
        raise DatasetError(str(error)) from None
    bits = np.unpackbits(np.frombuffer(mask.to_bytes(), dtype=np.uint8), bitorder="little")
    return list(compress(values, bits.tolist()))


def build_target_path(folder: Path, file_name: str) -> Path:
    """Where a file of the given name lies below a folder.

    Raises:
        DatasetError: the name is absolute, has dot parts or control characters, or leads out of the folder by a
            link.
    """
    parts = file_name.replace("\\", "/").split("/") if os.name == "nt" else file_name.split("/")
    if (
        not is_text(file_name)
        or any(part in ("", ".", "..") or len(os.fsencode(part)) > _MAX_PART_BYTES for part in parts)
        or Path(file_name).is_absolute()
        or Path(file_name).drive
    ):
        raise DatasetError(f"{file_name[:200]!r} cannot be the name of a file below the output folder")
    target = folder.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
        raise DatasetError(f"{file_name[:200]!r} leads out of the output folder")
    return target


def download_tag(
    transport: Transport,
    *,
    dataset_id: str,
    output_dir: str | Path,
    tag_name: str,
    max_workers: int = 8,
    strict: bool = False,
    verbose: bool = True,
) -> DownloadReport:
    """Writes the images of a tag below a folder, byte for byte. Two requests a file.

    A file that is there with the stored size is left alone, so a download that broke off goes on where it was.

    Args:
        transport: the way.
        dataset_id: whose images; they must have been uploaded in full.
        output_dir: made if missing.
        tag_name: which images.
        max_workers: files at a time.
        strict: whether a failed file is an error in the end.
        verbose: whether progress is shown.

    Raises:
        DatasetError: the dataset has no full images, the mask does not fit, or `strict` and a file failed.
        TagDoesNotExistError: no such tag.
    """
    dataset = datasets.fetch_dataset(transport, dataset_id=dataset_id)
    if dataset.img_type != "full":
        raise DatasetError(
            f"the dataset holds {dataset.img_type or 'no'} images: only what was uploaded with mode='full' can be "
            "downloaded"
        )
    tag = tags.fetch_tag_by_name(transport, dataset_id=dataset_id, name=tag_name)
    if tag is None:
        raise TagDoesNotExistError(f"the dataset has no tag {tag_name!r}")
    ids = mappings.fetch_sample_ids(transport, dataset_id=dataset_id)
    names = mappings.fetch_file_names(transport, dataset_id=dataset_id)
    # An upload under way may have made one of the lists longer; positions never change.
    n_common = min(len(ids), len(names))
    pairs = list(zip(select_names(tag, ids[:n_common]), select_names(tag, names[:n_common]), strict=True))
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    report = DownloadReport()

    def download(pair: tuple[str, str]) -> bool:
        sample_id, name = pair
        return _download_one(transport, dataset_id, sample_id, build_target_path(folder, name))

    n_workers = max(1, min(max_workers, len(pairs)))
    with (
        Progress("download", len(pairs), verbose=verbose) as progress,
        map_unordered(download, pairs, n_workers=n_workers) as results,
    ):
        for (_, name), result in results:
            progress.add()
            if isinstance(result, Exception):
                report.failed[name] = f"{type(result).__name__}: {result}"[:500]
            else:
                (report.downloaded if result else report.skipped).append(name)
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        text = f"{report}; the first that failed is {name[:200]!r}: {reason}"
        if strict:
            raise DatasetError(text)
        warnings.warn(text, stacklevel=3)
    return report


def _download_one(transport: Transport, dataset_id: str, sample_id: str, target: Path) -> bool:
    def download_once() -> bool:
        for last_try in (False, True):
            url = samples.fetch_read_url(transport, dataset_id=dataset_id, sample_id=sample_id)
            try:
                return _write_url(transport, url, target)
            except ReadUrlRefusedError:
                if last_try:
                    raise
        raise AssertionError

    return transport.run_with_retries(download_once, repeatable=True)


def _write_url(transport: Transport, url: str, target: Path) -> bool:
    with transport.open_read_url(url, deadline_s=_TIMEOUT_S) as stream:
        if stream.size is not None and target.is_file() and target.stat().st_size == stream.size:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_replacement(target) as file:
            while chunk := stream.read(_CHUNK_BYTES):
                file.write(chunk)
    return True
