"""What became of the samples of an upload: kept sample by sample, so that an interrupted run goes on with the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, ImageError, WatcherError
from watcher.domain.models import Sample, Via
from watcher.domain.object_facts import ObjectFacts, may_still_be_written
from watcher.jobs.context import RunContext
from watcher.lateness import record_lateness
from watcher.logs import get_logger
from watcher.store import novelty, overwrites, samples

_log = get_logger("upload")

# The server refused the sample itself, not the caller or the moment: asking again would not help.
_REFUSALS = frozenset({400, 413, 422})
_MOST_REFUSALS_WITHOUT_SUCCESS = 20


class UnfitError(ImageError):
    """An image that cannot be used, and what its read URL told of it."""

    def __init__(self, error: ImageError, seen: ObjectFacts) -> None:
        super().__init__(str(error), truncated=error.truncated)
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A sample that is on the server with its files.

    Attributes:
        seen: what its read URL told of it.
        brightness: mean of its levels, 0 to 1.
        contrast: deviation of its levels, 0 to 1.
    """

    sample: Sample
    remote_id: str
    seen: ObjectFacts
    brightness: float
    contrast: float


@dataclass(slots=True)
class Trouble:
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


def record_uploaded(context: RunContext, uploaded: list[Uploaded]) -> None:
    """Notes samples as registered, all in one transaction: a commit is a large part of the cost of a small one."""
    if not uploaded:
        return
    now_ms = context.now_ms()
    with context.database.write() as session:
        for one in uploaded:
            _record_one(context, session, one, now_ms=now_ms)
    crash_point("upload.sample_recorded")
    for one in uploaded:
        sample = one.sample
        if sample.via in {Via.OVERLAP, Via.RECONCILE} and one.seen.modified_s is not None:
            late_s = max(0.0, sample.discovered_ms / 1000 - one.seen.modified_s)
            context.parts.metrics.sample_lateness_s.labels(watch=context.watch.name).observe(late_s)
            record_lateness(context.database, watch_id=sample.watch_id, late_s=late_s, now_ms=now_ms)


def _record_one(context: RunContext, session: Session, uploaded: Uploaded, *, now_ms: int) -> None:
    sample = uploaded.sample
    samples.record_registered(
        session,
        sample_id=sample.id,
        remote_id=uploaded.remote_id,
        size_bytes=uploaded.seen.size_bytes or 0,
        modified_s=uploaded.seen.modified_s,
        now_ms=now_ms,
    )
    overwrites.record_seen(session, sample_id=sample.id, facts=uploaded.seen)
    if sample.n_overwritten:
        overwrites.forget_vectors(
            session, watch_id=sample.watch_id, sample_id=sample.id, file_name=sample.file_name
        )
    if uploaded.contrast < context.config.novelty.dark_contrast:
        novelty.record_dark_sample(
            session,
            sample_id=sample.id,
            watch_id=sample.watch_id,
            brightness=uploaded.brightness,
            contrast=uploaded.contrast,
            now_ms=now_ms,
        )


def set_aside(context: RunContext, sample: Sample, error: ImageError) -> None:
    """A file that ends early may still be being written, so it waits; anything else is quarantined."""
    rules = context.config.upload
    now_ms = context.now_ms()
    waits = error.truncated and sample.attempts < rules.settle_attempts
    before = ObjectFacts(size_bytes=sample.size_bytes, modified_s=sample.modified_s, etag=sample.etag)
    seen = error.seen if isinstance(error, UnfitError) else ObjectFacts()
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


def quarantine_refused(context: RunContext, trouble: Trouble, *, n_registered: int) -> None:
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
