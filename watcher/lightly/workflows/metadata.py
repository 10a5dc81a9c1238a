"""Custom metadata: `{"images": [{"file_name", "id"}], "metadata": [{"image_id", ...}]}`, joined by id."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from watcher.domain.errors import DatasetError, MetadataFormatError
from watcher.lightly import samples
from watcher.lightly.parallel import map_unordered
from watcher.lightly.progress import Progress
from watcher.lightly.transport import Transport
from watcher.lightly.wire.samples import SampleUpdateRequest


@dataclass
class MetadataReport:
    """What became of the metadata.

    Attributes:
        updated: file names whose metadata was stored.
        unknown: file names of the metadata that the dataset does not have.
        failed: file names whose metadata was not stored, with the reason.
    """

    updated: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def verify_custom_metadata_format(custom_metadata: Any) -> None:
    """Checks the shape of custom metadata.

    Raises:
        MetadataFormatError: not a dict with the lists `images` and `metadata`; an image without `file_name` or
            `id`; metadata without `image_id`; an id or a name that comes twice. Also a KeyError.
    """
    if not isinstance(custom_metadata, Mapping):
        raise MetadataFormatError("custom metadata must be a dict with the keys 'images' and 'metadata'")
    for key, needed in (("images", ("file_name", "id")), ("metadata", ("image_id",))):
        if key not in custom_metadata:
            raise MetadataFormatError(f"custom metadata lacks the key {key!r}")
        entries = custom_metadata[key]
        if not isinstance(entries, (list, tuple)):
            raise MetadataFormatError(f"{key!r} in custom metadata must be a list")
        seen: dict[str, set[Any]] = {name: set() for name in needed}
        for position, entry in enumerate(entries):
            for name in needed:
                if not isinstance(entry, Mapping) or name not in entry:
                    raise MetadataFormatError(f"entry {position} of {key!r} lacks {name!r}")
                _note(entry[name], seen[name], f"entry {position} of {key!r}", name)


def _note(value: Any, seen: set[Any], where: str, name: str) -> None:
    if name == "file_name" and not isinstance(value, str):
        raise MetadataFormatError(f"{where}: {name!r} must be text")
    try:
        known = value in seen
        seen.add(value)
    except TypeError:
        raise MetadataFormatError(f"{where}: {name!r} must be a number or text") from None
    if known:
        raise MetadataFormatError(f"{where}: {name!r} {str(value)[:100]!r} comes twice")


def index_custom_metadata(custom_metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """File name to its whole metadata entry, `image_id` included; images without metadata are left out.

    Linear; the argument is only read.

    Raises:
        MetadataFormatError: see `verify_custom_metadata_format`.
    """
    verify_custom_metadata_format(custom_metadata)
    by_id = {entry["image_id"]: entry for entry in custom_metadata["metadata"]}
    return {
        image["file_name"]: dict(by_id[image["id"]])
        for image in custom_metadata["images"]
        if image["id"] in by_id
    }


def index_custom_metadata_by_filename(
    filenames: Iterable[str], custom_metadata: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The metadata entries of the given file names.

    Raises:
        DatasetError: a name has no image or no metadata.
        MetadataFormatError: see `verify_custom_metadata_format`.
    """
    index = index_custom_metadata(custom_metadata)
    found = {}
    for name in filenames:
        if name not in index:
            raise DatasetError(f"the custom metadata has no entry for {name[:200]!r}")
        found[name] = index[name]
    return found


def format_custom_metadata(pairs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Custom metadata from pairs of file name and dict, with ids 0, 1, ..."""
    images, metadata = [], []
    for number, (file_name, entry) in enumerate(pairs):
        images.append({"file_name": file_name, "id": number})
        metadata.append({**entry, "image_id": number})
    return {"images": images, "metadata": metadata}


def upload_custom_metadata(
    transport: Transport,
    *,
    dataset_id: str,
    custom_metadata: Mapping[str, Any],
    max_workers: int = 8,
    verbose: bool = False,
) -> MetadataReport:
    """Stores the metadata of every named sample that the dataset has; samples that are not named are left alone.

    One call a sample, `max_workers` at a time. Names that the dataset does not have are told in one warning.

    Raises:
        MetadataFormatError: see `verify_custom_metadata_format`.
        DatasetError: not stored for at least one sample; all others were tried.
    """
    index = index_custom_metadata(custom_metadata)
    ids = {
        sample.file_name: sample.id
        for sample in samples.fetch_samples(transport, dataset_id=dataset_id)
        if sample.file_name is not None
    }
    report = MetadataReport(unknown=[name for name in index if name not in ids])
    n_bare = len(custom_metadata["images"]) - len(index)
    if report.unknown or n_bare:
        first = f", the first is {report.unknown[0][:200]!r}" if report.unknown else ""
        warnings.warn(
            f"{len(report.unknown)} names of the custom metadata are not in the dataset{first}, and {n_bare} images "
            "have no metadata; they are skipped",
            stacklevel=3,
        )
    known = [name for name in index if name in ids]

    def update(name: str) -> None:
        samples.update_sample(
            transport,
            dataset_id=dataset_id,
            sample_id=ids[name],
            request=SampleUpdateRequest(custom_meta_data=index[name]),
        )

    n_workers = max(1, min(max_workers, len(known)))
    with (
        Progress("metadata", len(known), verbose=verbose) as progress,
        map_unordered(update, known, n_workers=n_workers) as results,
    ):
        for name, error in results:
            progress.add()
            if error is None:
                report.updated.append(name)
            else:
                report.failed[name] = f"{type(error).__name__}: {error}"[:500]
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise DatasetError(
            f"the metadata of {len(report.failed)} of {len(known)} samples was not stored; the first is "
            f"{name[:200]!r}: {reason}"
        )
    return report
