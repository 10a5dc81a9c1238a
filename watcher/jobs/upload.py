"""Step `upload`: reads each image, computes its values, registers it, and sends thumbnail and file.

Outcomes are kept sample by sample as they happen, so an interrupted run goes on with the rest. A sample that cannot
be processed is taken out of the batch and never holds the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import (
    ApiException,
    ImageError,
    ReadUrlRefusedError,
    SampleGoneError,
    WatcherError,
)
from watcher.domain.models import Sample, SampleState, UploadMode, Via
from watcher.domain.object_facts import ObjectFacts, may_still_be_written
from watcher.domain.pipeline import Discard, Done, Outcome
from watcher.images import (
    ImageLimits,
    build_thumbnail,
    compute_metadata,
    count_pixels,
    extract_exif,
    read_image,
)
from watcher.jobs.again import ensure_again_tag
from watcher.jobs.alone import work_alone, works_alone
from watcher.jobs.context import RunContext
from watcher.jobs.read_urls import renew_read_urls
from watcher.lateness import record_lateness
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
from watcher.store import batches, novelty, overwrites, samples

_log = get_logger("upload")

_IMAGE_TYPES: dict[UploadMode, ImageType] = {
    UploadMode.METADATA: "meta",
    UploadMode.THUMBNAILS: "thumbnail",
    UploadMode.FULL: "full",
}
_PAGE = 200
# The server refused the sample itself, not the caller or the moment: asking again would not help.
_REFUSALS = frozenset({400, 413, 422})
_MOST_REFUSALS_WITHOUT_SUCCESS = 20


class _UnfitError(ImageError):
    """An image that cannot be used, and what its read URL told of it."""

    def __init__(self, error: ImageError, seen: ObjectFacts) -> None:
        super().__init__(str(error), truncated=error.truncated)
        self.seen = seen


@dataclass(frozen=True, slots=True)
class _Uploaded:
    sample: Sample
    remote_id: str
    seen: ObjectFacts
    brightness: float
    contrast: float


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is registered of a picture, its thumbnail if one is uploaded, mean and deviation of its levels, 0 to 1."""

    request: SampleCreateRequest
    thumbnail: bytes | None
    brightness: float
    contrast: float


@dataclass(slots=True)
class _Trouble:
    """What went wrong in one attempt.

    Attributes:
        unreadable: the read URL is refused, or nothing is behind it.
        refused: the server will not take the sample.
        failures: everything else; the run is repeated for these.
        n_uploaded: samples uploaded by this attempt.
        n_registered: samples of the whole batch that are on the server at the end.
    """

    unreadable: list[Sample] = field(default_factory=list)
    refused: list[tuple[Sample, ApiException]] = field(default_factory=list)
    failures: list[WatcherError] = field(default_factory=list)
    n_uploaded: int = 0
    n_registered: int = 0

    def note(self, sample: Sample, error: WatcherError, *, most_failures: int) -> None:
        """Sorts a failure; raises it when asking for each of the rest would not help."""
        if isinstance(error, ApiException) and error.status in _REFUSALS:
            self.refused.append((sample, error))
            if not self.n_uploaded and len(self.refused) >= _MOST_REFUSALS_WITHOUT_SUCCESS:
                raise error
            return
        self.failures.append(error)
        if len(self.failures) >= most_failures:
            raise error


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


def _upload_pending(context: RunContext) -> _Trouble:
    trouble = _Trouble()
    for page in _iter_pending(context):
        _upload_page(context, page, trouble)
    _retry_with_fresh_urls(context, trouble)
    if trouble.failures:
        raise trouble.failures[0]
    with context.database.read() as session:
        trouble.n_registered = samples.count_registered(session, batch_id=context.batch.id)
    _quarantine_refused(context, trouble, n_registered=trouble.n_registered)
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


def _upload_page(context: RunContext, page: list[Sample], trouble: _Trouble) -> None:
    if not works_alone(context.run):
        _upload_together(context, page, trouble)
        return
    for sample in page:
        work_alone(context, sample, partial(_upload_together, context, [sample], trouble))


def _upload_together(context: RunContext, page: list[Sample], trouble: _Trouble) -> None:
    pending = deque(page)
    running: deque[tuple[Sample, Future[_Uploaded]]] = deque()
    with _pool(context) as pool:
        while pending or running:
            while pending and len(running) < 2 * context.config.upload.workers:
                sample = pending.popleft()
                running.append((sample, pool.submit(_upload_one, context, sample)))
            sample, future = running.popleft()
            try:
                uploaded = future.result()
            except (ReadUrlRefusedError, SampleGoneError):
                trouble.unreadable.append(sample)
            except ImageError as error:
                _set_aside(context, sample, error)
            except WatcherError as error:
                context.check()
                _log.warning(
                    "sample.failed", watch=context.watch.name, file_name=sample.file_name, error=str(error)
                )
                trouble.note(sample, error, most_failures=context.config.upload.workers)
            else:
                trouble.n_uploaded += 1
                _record(context, uploaded)
            context.check()


@contextmanager
def _pool(context: RunContext) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(context.config.upload.workers, thread_name_prefix="upload")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _upload_one(context: RunContext, sample: Sample) -> _Uploaded:
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
            raise _UnfitError(error, seen) from error
        return _send(context, sample, read, seen, measured)


def _measure(context: RunContext, sample: Sample, body: bytes) -> _Measured:
    """What is registered of the picture, and its thumbnail unless only values are uploaded."""
    rules = context.config.upload
    limits = ImageLimits(max_bytes=rules.max_bytes, max_pixels=rules.max_pixels)
    # A picture beyond the limit is refused by its head, so it takes no room.
    n_pixels = count_pixels(body)
    with context.parts.pixel_room.hold(n_pixels if n_pixels <= rules.max_pixels else 0, context.check):
        image = read_image(body, limits=limits)
        values = compute_metadata(image)
        assert values.mean
        assert values.std
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
            brightness=sum(values.mean) / len(values.mean),
            contrast=sum(values.std) / len(values.std),
        )


def _send(
    context: RunContext, sample: Sample, read: ReadResult, seen: ObjectFacts, measured: _Measured
) -> _Uploaded:
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
    return _Uploaded(
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


def _record(context: RunContext, uploaded: _Uploaded) -> None:
    sample = uploaded.sample
    with context.database.write() as session:
        samples.record_registered(
            session,
            sample_id=sample.id,
            remote_id=uploaded.remote_id,
            size_bytes=uploaded.seen.size_bytes or 0,
            modified_s=uploaded.seen.modified_s,
            now_ms=context.now_ms(),
        )
        overwrites.record_seen(session, sample_id=sample.id, facts=uploaded.seen)
        if sample.n_overwritten:
            overwrites.forget_vectors(session, watch_id=sample.watch_id, file_name=sample.file_name)
        if uploaded.contrast < context.config.novelty.dark_contrast:
            novelty.record_dark_sample(
                session,
                sample_id=sample.id,
                watch_id=sample.watch_id,
                brightness=uploaded.brightness,
                contrast=uploaded.contrast,
                now_ms=context.now_ms(),
            )
    crash_point("upload.sample_recorded")
    if sample.via in {Via.OVERLAP, Via.RECONCILE} and uploaded.seen.modified_s is not None:
        late_s = max(0.0, sample.discovered_ms / 1000 - uploaded.seen.modified_s)
        context.parts.metrics.sample_lateness_s.labels(watch=context.watch.name).observe(late_s)
        record_lateness(context.database, watch_id=sample.watch_id, late_s=late_s, now_ms=context.now_ms())


def _set_aside(context: RunContext, sample: Sample, error: ImageError) -> None:
    """A file that ends early may still be being written, so it waits; anything else is quarantined."""
    rules = context.config.upload
    now_ms = context.now_ms()
    waits = error.truncated and sample.attempts < rules.settle_attempts
    before = ObjectFacts(size_bytes=sample.size_bytes, modified_s=sample.modified_s, etag=sample.etag)
    seen = error.seen if isinstance(error, _UnfitError) else ObjectFacts()
    if error.truncated and seen.is_known:
        waits = may_still_be_written(
            seen,
            before=before,
            now_s=now_ms / 1000,
            settle_s=rules.settle_s,
            n_looks=sample.attempts,
            settle_attempts=rules.settle_attempts,
        )
    with context.database.write() as session:
        if seen.is_known:
            overwrites.record_seen(session, sample_id=sample.id, facts=seen)
        if waits:
            available_ms = now_ms + int(rules.settle_s * 1000)
            samples.return_to_waiting(
                session, sample_id=sample.id, reason=str(error), available_ms=available_ms, now_ms=now_ms
            )
            event = "sample.postponed"
        else:
            samples.record_quarantined(session, sample_id=sample.id, reason=str(error), now_ms=now_ms)
            event = "sample.quarantined"
    crash_point("upload.sample_set_aside")
    _log.warning(event, watch=context.watch.name, file_name=sample.file_name, reason=str(error))


def _retry_with_fresh_urls(context: RunContext, trouble: _Trouble) -> None:
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


def _quarantine_refused(context: RunContext, trouble: _Trouble, *, n_registered: int) -> None:
    """Samples that the server refuses are set aside, unless it takes none at all: then the fault is not theirs."""
    if not trouble.refused:
        return
    if n_registered == 0 and len(trouble.refused) > 1:
        raise trouble.refused[0][1]
    with context.database.write() as session:
        for sample, error in trouble.refused:
            samples.record_quarantined(
                session,
                sample_id=sample.id,
                reason=f"refused by the server: {error}",
                now_ms=context.now_ms(),
            )
    crash_point("upload.refused_recorded")
