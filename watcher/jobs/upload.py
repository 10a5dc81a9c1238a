"""Step `upload`: reads each image, computes its values, registers it, and sends thumbnail and file.

Outcomes are kept sample by sample as they happen, so an interrupted run goes on with the rest. A sample that cannot
be processed is taken out of the batch and never holds the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import (
    ImageError,
    ReadUrlRefusedError,
    SampleGoneError,
    WatcherError,
)
from watcher.domain.models import Sample, SampleState
from watcher.domain.object_facts import ObjectFacts
from watcher.domain.pipeline import Discard, Done, Outcome
from watcher.domain.step_rules import UploadMode
from watcher.images import (
    ImageLimits,
    build_thumbnail,
    compute_metadata,
    count_pixels,
    extract_exif,
    measure_levels,
    read_image,
)
from watcher.jobs.again import ensure_again_tag
from watcher.jobs.alone import decodes_alone, suspecting
from watcher.jobs.context import RunContext
from watcher.jobs.read_urls import renew_read_urls
from watcher.jobs.upload_outcomes import (
    Trouble,
    UnfitError,
    Uploaded,
    quarantine_refused,
    record_uploaded,
    set_aside,
)
from watcher.lightly.parallel import open_pool
from watcher.lightly.samples import update_sample
from watcher.lightly.signed_urls import ReadResult, read_url_bytes
from watcher.lightly.wire.datasets import ImageType
from watcher.lightly.wire.samples import SampleCreateRequest, SampleUpdateRequest
from watcher.lightly.workflows.register import (
    EnsuredSample,
    ensure_initial_or_upsize_tag,
    ensure_sample,
    put_sample_file,
)
from watcher.logs import get_logger
from watcher.store import batches, samples

_log = get_logger("upload")

_IMAGE_TYPES: dict[UploadMode, ImageType] = {
    UploadMode.METADATA: "meta",
    UploadMode.THUMBNAILS: "thumbnail",
    UploadMode.FULL: "full",
}
_PAGE = 200


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is registered of a picture, its thumbnail if one is uploaded, mean and deviation of its levels, 0 to 1."""

    request: SampleCreateRequest
    thumbnail: bytes | None
    brightness: float
    contrast: float


def run_upload(context: RunContext) -> Outcome:
    """Uploads what the batch still lacks, then makes the tag that holds the batch.

    Returns:
        `Done` with counts, or `Discard` if no sample of the batch could be registered.

    Raises:
        WatcherError: the server or the store failed for at least one sample; all others are done.
    """
    with context.database.read() as session:
        present = samples.load_batch_page(session, batch_id=context.batch.id, limit=1)
    if not present:
        return Discard("no sample of the batch is left")
    n_registered = _upload_pending(context).n_registered
    if n_registered == 0:
        return Discard("no sample of the batch could be registered")
    tag = ensure_initial_or_upsize_tag(
        context.transport,
        dataset_id=context.watch.dataset_id,
        img_type=_IMAGE_TYPES[context.config.upload.mode],
        upsize_tag_name=f"{context.batch.key}-new",
    )
    crash_point("upload.tag_made")
    tag = ensure_again_tag(context, tag)
    with context.database.write() as session:
        batches.record_query_tag(session, batch_id=context.batch.id, tag_id=tag.id)
    crash_point("upload.tag_recorded")
    return Done({"n_registered": n_registered, "tag": tag.name})


def upload_shard(context: RunContext) -> Outcome:
    """Uploads what the shard still lacks; the tag is made once, after the last shard.

    Returns:
        `Done` with the number of samples uploaded by this attempt.

    Raises:
        WatcherError: the server or the store failed for at least one sample; all others are done.
    """
    return Done({"n_uploaded": _upload_pending(context).n_uploaded})


def _upload_pending(context: RunContext) -> Trouble:
    trouble = Trouble()
    for page in _iter_pending(context):
        _upload_page(context, page, trouble)
    _retry_with_fresh_urls(context, trouble)
    if trouble.failures:
        raise trouble.failures[0]
    with context.database.read() as session:
        trouble.n_registered = samples.count_registered(session, batch_id=context.batch.id)
    quarantine_refused(context, trouble, n_registered=trouble.n_registered)
    return trouble


def _iter_pending(context: RunContext) -> Iterator[list[Sample]]:
    """Pages of samples that are not registered yet; each is loaded when the one before is through."""
    after = context.first_sample_id - 1
    while True:
        with context.database.read() as session:
            page = samples.load_batch_page(
                session,
                batch_id=context.batch.id,
                after_id=after,
                last_id=context.run.last_sample_id,
                limit=_PAGE,
                pending_only=True,
            )
        if not page:
            return
        yield page
        after = page[-1].id


def _upload_page(context: RunContext, page: list[Sample], trouble: Trouble) -> None:
    pending = deque(page)
    running: deque[tuple[Sample, Future[Uploaded]]] = deque()
    with open_pool(context.config.upload.workers, name="upload") as pool:
        while pending or running:
            while pending and len(running) < 2 * context.config.upload.workers:
                sample = pending.popleft()
                running.append((sample, pool.submit(_upload_one, context, sample)))
            wait([running[0][1]])
            ended = [running.popleft()]
            while running and running[0][1].done():
                ended.append(running.popleft())
            _take_outcomes(context, ended, trouble)
            context.check()


def _take_outcomes(
    context: RunContext, ended: list[tuple[Sample, Future[Uploaded]]], trouble: Trouble
) -> None:
    """Records what ended meanwhile, what was uploaded in one transaction, whatever else is raised."""
    uploaded: list[Uploaded] = []
    try:
        for sample, future in ended:
            try:
                uploaded.append(future.result())
                trouble.n_uploaded += 1
            except (ReadUrlRefusedError, SampleGoneError):
                trouble.unreadable.append(sample)
            except ImageError as error:
                set_aside(context, sample, error)
            except WatcherError as error:
                context.check()
                _log.warning(
                    "sample.failed", watch=context.watch.name, file_name=sample.file_name, error=str(error)
                )
                trouble.note(sample, error, most_failures=context.config.upload.workers)
    finally:
        record_uploaded(context, uploaded)


def _upload_one(context: RunContext, sample: Sample) -> Uploaded:
    """Reads, measures, registers and sends one sample; of its size only the file stays in memory while it is sent."""
    rules = context.config.upload
    with context.parts.file_room.share(context.check) as share:
        read = read_url_bytes(
            context.transport, sample.read_url, max_bytes=rules.max_bytes, on_size=share.set
        )
        seen = ObjectFacts(size_bytes=read.size, modified_s=read.last_modified_s, etag=read.etag)
        try:
            measured = _measure(context, sample, read.body)
        except ImageError as error:
            raise UnfitError(error, seen) from error
        return _send(context, sample, read, seen, measured)


def _measure(context: RunContext, sample: Sample, body: bytes) -> _Measured:
    """What is registered of the picture, and its thumbnail unless only values are uploaded."""
    rules = context.config.upload
    limits = ImageLimits(max_bytes=rules.max_bytes, max_pixels=rules.max_pixels, grey_bits=rules.grey_bits)
    # A picture beyond the limit is refused by its head, so it takes no room.
    n_pixels = count_pixels(body)
    room = context.parts.pixel_room
    n_held = room.limit if decodes_alone(context.run) else n_pixels if n_pixels <= rules.max_pixels else 0
    with room.hold(n_held, context.check), suspecting(context, sample):
        image = read_image(body, limits=limits)
        values = compute_metadata(image)
        brightness, contrast = measure_levels(image, values)
        with_thumbnail = rules.mode is not UploadMode.METADATA
        request = SampleCreateRequest(
            file_name=sample.file_name,
            thumb_name=f"{sample.file_name}_thumb.webp" if with_thumbnail else None,
            meta_data=values,
            exif=extract_exif(image) or None,
        )
        return _Measured(
            request,
            thumbnail=build_thumbnail(image) if with_thumbnail else None,
            brightness=brightness,
            contrast=contrast,
        )


def _send(
    context: RunContext, sample: Sample, read: ReadResult, seen: ObjectFacts, measured: _Measured
) -> Uploaded:
    ensured = ensure_sample(
        context.transport,
        dataset_id=context.watch.dataset_id,
        request=measured.request,
        # An earlier attempt may have registered it without our hearing of it.
        look_up_first=context.run.was_begun_before or sample.attempts > 0,
        with_write_urls=measured.thumbnail is not None,
    )
    crash_point("upload.sample_registered")
    request = measured.request
    if sample.n_overwritten and not ensured.created:
        update_sample(
            context.transport,
            dataset_id=context.watch.dataset_id,
            sample_id=ensured.sample_id,
            request=SampleUpdateRequest(
                meta_data=request.meta_data, exif=request.exif, thumb_name=request.thumb_name
            ),
        )
        crash_point("upload.sample_updated")
    _send_files(context, ensured, measured.thumbnail, read)
    return Uploaded(
        sample,
        ensured.sample_id,
        seen,
        brightness=measured.brightness,
        contrast=measured.contrast,
    )


def _send_files(
    context: RunContext, ensured: EnsuredSample, thumbnail: bytes | None, read: ReadResult
) -> None:
    mode = context.config.upload.mode
    dataset_id = context.watch.dataset_id
    if thumbnail is not None:
        put_sample_file(
            context.transport, dataset_id=dataset_id, sample=ensured, kind="thumb", body=thumbnail
        )
        crash_point("upload.thumbnail_put")
    if mode is UploadMode.FULL:
        put_sample_file(context.transport, dataset_id=dataset_id, sample=ensured, kind="full", body=read.body)
        crash_point("upload.file_put")


def _retry_with_fresh_urls(context: RunContext, trouble: Trouble) -> None:
    """Expired URLs are renewed before the sample is blamed; only what the datasource no longer lists is gone."""
    unreadable, trouble.unreadable = trouble.unreadable, []
    if not unreadable:
        return
    found = renew_read_urls(context, file_names=[sample.file_name for sample in unreadable])
    again: list[Sample] = []
    with context.database.write() as session:
        for sample in unreadable:
            fresh = samples.load_sample(session, watch_id=sample.watch_id, file_name=sample.file_name)
            if sample.file_name in found:
                if fresh is not None and fresh.state is SampleState.PROCESSING:
                    again.append(fresh)
                continue
            reason = "the datasource no longer lists it"
            samples.record_gone(session, sample_id=sample.id, reason=reason, now_ms=context.now_ms())
            _log.warning("sample.vanished", watch=context.watch.name, file_name=sample.file_name)
    crash_point("upload.vanished_recorded")
    for start in range(0, len(again), _PAGE):
        _upload_page(context, again[start : start + _PAGE], trouble)
    trouble.failures += [
        ReadUrlRefusedError(
            f"the fresh read URL of {sample.file_name!r} is refused too: may the server still read the datasource?"
        )
        for sample in trouble.unreadable
    ]
