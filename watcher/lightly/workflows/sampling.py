"""Running a sampling to its end: polled politely, within a time limit, cancellable."""

from __future__ import annotations

import threading
from collections.abc import Callable

from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import (
    ApiException,
    CancelledError,
    DatasetError,
    DeadlineExceededError,
    SamplingError,
    TransportError,
    UnknownOutcomeError,
)
from watcher.domain.redaction import redact
from watcher.lightly import jobs, samplings, tags
from watcher.lightly.transport import Transport
from watcher.lightly.wire.jobs import JobStatusData
from watcher.lightly.wire.samplings import SamplingCreateRequest
from watcher.lightly.wire.tags import TagData

MIN_POLL_S = 0.2
MAX_POLL_S = 60.0
MAX_CONSECUTIVE_FAILURES = 20
_MAX_TRIES = 3
_LONGEST_PAUSE_S = 30.0


def run_sampling(
    transport: Transport,
    *,
    dataset_id: str,
    embedding_id: str,
    request: SamplingCreateRequest,
    deadline_s: float,
    cancel: threading.Event | None = None,
    on_progress: Callable[[JobStatusData], None] | None = None,
    on_wait: Callable[[], None] | None = None,
    adopt_existing: bool = False,
    first_wait_s: float = 1.0,
    present_tags: list[TagData] | None = None,
) -> TagData:
    """Starts a sampling, waits for its job, gives the tag of the picked samples.

    The name of the new tag is the natural key: after an unknown outcome the tag of that name is looked up before
    the sampling is started again, and a job that fails because an earlier one took the name counts as done. A name
    that is taken although there is no such tag yet belongs to a job that was lost sight of: its tag is waited for.

    Args:
        transport: the way.
        dataset_id: what from.
        embedding_id: by which vectors; must be processed.
        request: the sampling.
        deadline_s: longest time in all, in seconds. The server's job is not stopped when it is over.
        cancel: set it to stop waiting.
        on_progress: called with the state of the job after each poll.
        on_wait: called after each wait for a job whose id is not known.
        adopt_existing: whether a tag of the name counts as this sampling's result; else it is an error.
        first_wait_s: wait before the first poll, in seconds; later ones are the server's, within 0.2 s and 60 s.
        present_tags: the tags of the dataset, if the caller has just fetched them.

    Raises:
        DatasetError: the name cannot be one, or is taken.
        SamplingError: the job failed; the text is the server's.
        DeadlineExceededError: no end in time.
        CancelledError: `cancel` was set.
        ApiException: any 4xx at once; other failures of polls when there were 20 in a row.
    """
    tags.check_tag_name(request.new_tag_name)
    clock = transport.clock
    stop = cancel or threading.Event()
    end_s = clock.monotonic_s() + deadline_s
    present = tags.fetch_tags(transport, dataset_id=dataset_id) if present_tags is None else present_tags
    found = next((tag for tag in present if tag.name == request.new_tag_name), None)
    if found is not None:
        if adopt_existing:
            return found
        raise DatasetError(f"there is a tag {request.new_tag_name!r} already: choose another name")
    adopt = adopt_existing
    wait_s, n_unknown = max(MIN_POLL_S, first_wait_s), 0
    while True:
        try:
            job_id = samplings.create_sampling(
                transport, dataset_id=dataset_id, embedding_id=embedding_id, request=request
            )
            crash_point("sampling.asked")
            tag_id = _wait_for_tag_id(transport, job_id, stop, end_s, first_wait_s, on_progress)
            return tags.fetch_tag(transport, dataset_id=dataset_id, tag_id=tag_id)
        except UnknownOutcomeError:
            adopt = True
            n_unknown += 1
            if n_unknown == _MAX_TRIES:
                raise
        except SamplingError:
            found = _find_adoptable(transport, dataset_id, request.new_tag_name, adopt=adopt)
            if found is None:
                raise
            return found
        except ApiException as error:
            if error.code != "TAG_NAME_EXISTS" or not adopt:
                raise
        found = _find_adoptable(transport, dataset_id, request.new_tag_name, adopt=adopt)
        if found is not None:
            return found
        # A job whose id was lost holds the name: its tag is about to come, or the name is free again if it fails.
        _pause(clock, stop, wait_s, end_s, name=request.new_tag_name)
        wait_s = min(_LONGEST_PAUSE_S, wait_s * 2)
        if on_wait is not None:
            on_wait()


def _pause(clock: Clock, stop: threading.Event, wait_s: float, end_s: float, *, name: str) -> None:
    left_s = end_s - clock.monotonic_s()
    if left_s <= 0:
        raise DeadlineExceededError(
            f"the sampling {name!r} did not end in time; it goes on at the server: look for its tag later"
        )
    if clock.wait_s(stop, min(wait_s, left_s)):
        raise CancelledError(
            f"asked to stop while the sampling {name!r} was running; it goes on at the server"
        )


def _find_adoptable(transport: Transport, dataset_id: str, name: str, *, adopt: bool) -> TagData | None:
    return tags.fetch_tag_by_name(transport, dataset_id=dataset_id, name=name) if adopt else None


def _wait_for_tag_id(
    transport: Transport,
    job_id: str,
    stop: threading.Event,
    end_s: float,
    wait_s: float,
    on_progress: Callable[[JobStatusData], None] | None,
) -> str:
    clock = transport.clock
    n_failures = 0
    while True:
        left_s = end_s - clock.monotonic_s()
        if clock.wait_s(stop, max(0.0, min(wait_s, left_s))):
            raise CancelledError(f"asked to stop while job {job_id} was running; it goes on at the server")
        if left_s <= wait_s:
            raise DeadlineExceededError(
                f"job {job_id} did not end in time; it goes on at the server: look for its tag later"
            )
        try:
            job = jobs.fetch_job(transport, job_id=job_id)
        except (ApiException, TransportError) as error:
            n_failures += 1
            if not error.retryable or n_failures >= MAX_CONSECUTIVE_FAILURES:
                raise
            wait_s = min(MAX_POLL_S, max(1.0, error.retry_after_s or 0.0) * min(n_failures, 10))
            continue
        n_failures = 0
        if on_progress is not None:
            on_progress(job)
        if job.status == "FAILED":
            raise SamplingError(redact(job.error or "the sampling failed, and the server does not say why"))
        if job.status == "FINISHED":
            tag_id = job.result.data if job.result is not None else None
            if not isinstance(tag_id, str) or not tag_id:
                raise SamplingError(f"job {job_id} finished without a tag")
            return tag_id
        wait_s = min(MAX_POLL_S, max(MIN_POLL_S, job.wait_time_till_next_poll))
