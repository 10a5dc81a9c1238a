"""Uploading a dataset: metadata, thumbnails or whole images, resumed where an earlier run broke off."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from watcher.domain.errors import ApiException, CancelledError, DatasetError, ImageError
from watcher.lightly import datasets, datasources, mappings, tags
from watcher.lightly.parallel import map_unordered
from watcher.lightly.progress import Progress
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import ImageType
from watcher.lightly.wire.samples import SampleCreateRequest, SampleMetaData
from watcher.lightly.wire.tags import TagData
from watcher.lightly.workflows.register import (
    ensure_initial_or_upsize_tag,
    ensure_sample,
    has_samples_beyond,
    put_sample_file,
)
from watcher.lightly.workflows.sources import UploadItem, build_thumb_name, check_file_name

UploadModeName = Literal["full", "thumbnails", "metadata"]
_IMAGE_TYPES: dict[str, ImageType] = {"full": "full", "thumbnails": "thumbnail", "metadata": "meta"}
_MAX_TAG_NAMES = 100


@dataclass
class UploadReport:
    """What became of each file.

    Attributes:
        uploaded: registered, and their files written.
        skipped: on the server before.
        corrupted: registered as corrupted, with what is wrong with them; they have no thumbnail.
        failed: not uploaded, with the reason; run the same upload again for another try.
        tag: the tag that covers the new samples; None when nothing is in the dataset, or when files of registered
            samples are missing, which the next run writes first.
    """

    uploaded: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    corrupted: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    tag: TagData | None = None

    def __str__(self) -> str:
        return (
            f"{len(self.uploaded)} uploaded, {len(self.skipped)} skipped, {len(self.corrupted)} corrupted, "
            f"{len(self.failed)} failed"
        )


class UploadIncompleteError(DatasetError):
    """Some files were not uploaded.

    Attributes:
        report: what became of each file.
    """

    def __init__(self, report: UploadReport) -> None:
        self.report = report
        name, reason = next(iter(report.failed.items()))
        super().__init__(f"{report}; the first that failed is {name[:200]!r}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.report,))


class _HalfDoneError(Exception):
    """A sample was registered, but its file was not written; the cause tells why."""


@dataclass(frozen=True)
class _Plan:
    transport: Transport
    dataset_id: str
    mode: str
    datasource_type: str
    half_registered: frozenset[str]
    custom_metadata: Mapping[str, Any]


def upload_items(
    transport: Transport,
    *,
    dataset_id: str,
    items: list[UploadItem],
    mode: str,
    max_workers: int,
    upsize_tag_name: str,
    custom_metadata: Mapping[str, Any] | None = None,
    strict: bool = False,
    verbose: bool = True,
    cancel: threading.Event | None = None,
) -> UploadReport:
    """Uploads the items that the dataset does not have.

    A sample that is registered but covered by no tag comes from a run that did not end, so its files are written
    again. Per new file: one call where the server has `samples/withWriteUrls`, else two, and one or two PUTs.
    Memory: one decoded image a worker.

    Args:
        transport: the way.
        dataset_id: where to.
        items: the files.
        mode: `metadata`, `thumbnails` or `full`.
        max_workers: files at a time.
        upsize_tag_name: name of the tag for the new samples, when the dataset has tags already; with a number behind
            it if it is taken.
        custom_metadata: file name to metadata, for each item, if given.
        strict: whether a failed file is an error in the end.
        verbose: whether progress is shown.
        cancel: set it to stop after the files under way.

    Raises:
        DatasetError: unknown mode, metadata is missing for a file, or the dataset would be larger than allowed.
        UploadIncompleteError: `strict`, and a file failed.
        CancelledError: `cancel` was set.
    """
    if mode not in _IMAGE_TYPES:
        raise DatasetError(f"unknown mode {mode!r}: it must be 'full', 'thumbnails' or 'metadata'")
    present = tags.fetch_tags(transport, dataset_id=dataset_id)
    n_covered = max((tag.tot_size for tag in present), default=0)
    known = mappings.fetch_file_names(transport, dataset_id=dataset_id)
    half_registered = frozenset(known[n_covered:]) if mode != "metadata" else frozenset()
    done = set(known) - half_registered
    report = UploadReport(skipped=[item.file_name for item in items if item.file_name in done])
    pending = [item for item in items if item.file_name not in done]
    _check_size(transport, len({item.file_name for item in items}.union(known)))
    if custom_metadata is not None:
        missing = next((item.file_name for item in pending if item.file_name not in custom_metadata), None)
        if missing is not None:
            raise DatasetError(f"the custom metadata has no entry for {missing[:200]!r}")
    plan = _Plan(
        transport=transport,
        dataset_id=dataset_id,
        mode=mode,
        datasource_type=_fetch_datasource_type(transport, dataset_id),
        half_registered=half_registered,
        custom_metadata=custom_metadata or {},
    )
    datasets.register_dataset_upload(
        transport, dataset_id=dataset_id, n_total=len(pending) + len(done), n_processed=len(done)
    )
    n_half_done = _run(plan, pending, report, max_workers=max_workers, verbose=verbose, cancel=cancel)
    if not n_half_done and (known or report.uploaded or report.corrupted):
        taken = {tag.name for tag in present}
        report.tag = _make_tag(transport, dataset_id, _IMAGE_TYPES[mode], upsize_tag_name, taken)
    if report.failed:
        error = UploadIncompleteError(report)
        if strict:
            raise error
        warnings.warn(str(error), stacklevel=3)
    return report


def _make_tag(
    transport: Transport, dataset_id: str, img_type: ImageType, base_name: str, taken: set[str]
) -> TagData:
    """Covers the new samples under a name that no other upload has, be it of the same second."""
    tag: TagData | None = None
    for number in range(_MAX_TAG_NAMES):
        name = f"{base_name}_{number}" if number else base_name
        if name in taken:
            continue
        tag = ensure_initial_or_upsize_tag(
            transport, dataset_id=dataset_id, img_type=img_type, upsize_tag_name=name
        )
        if not has_samples_beyond(transport, dataset_id=dataset_id, n_covered=tag.tot_size):
            return tag
    if tag is None:
        raise DatasetError(f"no free name for a tag found beside {base_name!r}")
    return tag


def _run(
    plan: _Plan,
    pending: list[UploadItem],
    report: UploadReport,
    *,
    max_workers: int,
    verbose: bool,
    cancel: threading.Event | None,
) -> int:
    n_half_done = 0
    n_workers = max(1, min(len(pending), max_workers))
    with (
        Progress("upload", len(pending), verbose=verbose) as progress,
        map_unordered(lambda item: _upload_one(plan, item), pending, n_workers=n_workers) as results,
    ):
        for item, result in results:
            progress.add()
            name = item.file_name
            if isinstance(result, _HalfDoneError):
                n_half_done += 1
                report.failed[name] = str(result)
            elif isinstance(result, Exception):
                report.failed[name] = _describe(result)
            elif result:
                report.corrupted[name] = result
            else:
                report.uploaded.append(name)
            if cancel is not None and cancel.is_set():
                raise CancelledError(f"asked to stop: {report}; run the upload again to go on")
    return n_half_done


def _upload_one(plan: _Plan, item: UploadItem) -> str:
    """Gives what is wrong with the image, or an empty text."""
    from watcher.images import (  # noqa: PLC0415 - numpy and Pillow are loaded only by those who need them
        DEFAULT_LIMITS,
        build_thumbnail,
        compute_metadata,
        extract_exif,
        read_image,
    )

    check_file_name(item.file_name)
    with item.open_file() as file:
        content = file.read(DEFAULT_LIMITS.max_bytes + 1)
    size = len(content)
    thumbnail: bytes | None = None
    exif: dict[str, Any] | None = None
    corruption = ""
    try:
        image = read_image(content)
        exif = extract_exif(image) or None
        meta_data = compute_metadata(image)
        if plan.mode != "metadata":
            thumbnail = build_thumbnail(image)
    except ImageError as error:
        corruption = str(error) or "broken"
        meta_data = SampleMetaData(is_corrupted=True, corruption=corruption, size_in_bytes=size)
    with_files = thumbnail is not None
    sample = ensure_sample(
        plan.transport,
        dataset_id=plan.dataset_id,
        request=SampleCreateRequest(
            file_name=item.file_name,
            thumb_name=build_thumb_name(item.file_name) if with_files else None,
            meta_data=meta_data,
            exif=exif,
            custom_meta_data=plan.custom_metadata.get(item.file_name),
        ),
        look_up_first=item.file_name in plan.half_registered,
        with_write_urls=with_files,
    )
    if thumbnail is None:
        return corruption
    try:
        put_sample_file(
            plan.transport, dataset_id=plan.dataset_id, sample=sample, kind="thumb", body=thumbnail,
            datasource_type=plan.datasource_type,
        )  # fmt: skip
        if plan.mode == "full":
            put_sample_file(
                plan.transport, dataset_id=plan.dataset_id, sample=sample, kind="full", body=content,
                datasource_type=plan.datasource_type,
            )  # fmt: skip
    except Exception as error:
        raise _HalfDoneError(_describe(error)) from error
    return corruption


def _check_size(transport: Transport, n_samples: int) -> None:
    quota = datasets.fetch_quota(transport)
    if n_samples > quota:
        raise DatasetError(f"the dataset would have {n_samples} samples, but {quota} are allowed")


def _fetch_datasource_type(transport: Transport, dataset_id: str) -> str:
    try:
        return str(datasources.fetch_datasource_fields(transport, dataset_id=dataset_id).get("type"))
    except ApiException:
        return "LIGHTLY"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
