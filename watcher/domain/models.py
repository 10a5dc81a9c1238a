"""The vocabulary: what a watch is told to do, and what the store remembers of it.

Unix times end in `_s` (whole seconds, the protocol's unit) or `_ms` (milliseconds, the store's unit).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from watcher.domain.delivery import DeliverRules
from watcher.domain.listing_facts import ListingFacts, TimeUnit, WindowEnd
from watcher.domain.poll_rules import PollRules
from watcher.domain.sampling_rules import BudgetPeriod, NoveltyRules, ScoreRules
from watcher.domain.step_rules import EmbedRules, MetadataRules, UploadRules


class Step(StrEnum):
    """A step of the pipeline; the order of the members is the order of the steps."""

    UPLOAD = "upload"
    METADATA = "metadata"
    EMBED = "embed"
    SAMPLING = "sampling"
    DELIVER = "deliver"


class SampleState(StrEnum):
    """Where a sample stands.

    `waiting` for a batch, `processing` in one, `done` with it, `quarantined` with a reason, or `gone` from the
    datasource before it could be read.
    """

    WAITING = "waiting"
    PROCESSING = "processing"
    DONE = "done"
    QUARANTINED = "quarantined"
    GONE = "gone"


class Via(StrEnum):
    """How a sample was discovered: the fresh window, the overlap before it, a reconcile, or by hand."""

    WINDOW = "window"
    OVERLAP = "overlap"
    RECONCILE = "reconcile"
    MANUAL = "manual"


class PollState(StrEnum):
    """A poll is `listing` until its last page is stored; then `done`, or `failed` with its error."""

    LISTING = "listing"
    DONE = "done"
    FAILED = "failed"


class BatchState(StrEnum):
    """A batch is `open` until its last step is done; `dead` when a step gave up."""

    OPEN = "open"
    DONE = "done"
    DEAD = "dead"


class RunState(StrEnum):
    """A run is `ready` (perhaps not before a time), `running` under a lease, `done` or `dead`."""

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"


class SamplingMethod(StrEnum):
    """How samples are picked."""

    ACTIVE_LEARNING = "ACTIVE_LEARNING"
    CORAL = "CORAL"
    CORESET = "CORESET"
    RANDOM = "RANDOM"

    @property
    def needs_scores(self) -> bool:
        """Whether the query tag must have scores."""
        return self in (SamplingMethod.ACTIVE_LEARNING, SamplingMethod.CORAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """When waiting samples become a batch.

    Attributes:
        min_samples: as soon as this many wait.
        max_wait_s: or as soon as the oldest has waited this long.
        max_samples: no batch is larger.
        max_bytes: no batch holds more than about this many bytes, by the mean size of the watch's newest samples;
            as soon as this much waits, a batch is cut.
        cron: batches are cut at these times alone, of what was discovered by then; `min_samples` and `max_wait_s`
            do not count.
        max_open: no more batches than this are open at once; the rest waits in the ledger.
        shard_samples: a step that works sample by sample is cut into runs of at most this many.
        max_running: no more runs of the watch than this are in work at once, over all machines; None for no
            such limit.
    """

    min_samples: int = 100
    max_wait_s: float = 10.0
    max_samples: int = 1000
    max_open: int = 16
    max_bytes: int | None = None
    cron: str | None = None
    shard_samples: int = 250
    max_running: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRules:
    """How many samples of a batch are picked, and how.

    Attributes:
        method: `CORESET`, `RANDOM`, and by scores `CORAL` and `ACTIVE_LEARNING`.
        budget: picks a batch, day or week, at least 1; None if `budget_share` is set.
        budget_share: the same as a share of the samples, above 0 and up to 1.
        budget_per: what the budget is for.
        time_zone: whose days and weeks; a name of the tz database.
        min_distance: no two picks closer than this in the embedding; None switches the rule off.
        preselected_tags: names of tags whose samples count as picked already, such as those that were labelled.
        scores: where scores come from.
        time_limit_s: longest wait for the server's sampling job.
    """

    method: SamplingMethod = SamplingMethod.CORESET
    budget: int | None = 10
    budget_share: float | None = None
    budget_per: BudgetPeriod = BudgetPeriod.BATCH
    time_zone: str = "UTC"
    min_distance: float | None = None
    preselected_tags: tuple[str, ...] = ()
    scores: ScoreRules = field(default_factory=ScoreRules)
    time_limit_s: float = 3600.0

    @property
    def uses_vectors(self) -> bool:
        """Whether it matters where the samples lie in the embedding."""
        by_distance = self.method in (SamplingMethod.CORESET, SamplingMethod.CORAL)
        return by_distance or (self.min_distance or 0.0) > 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """One watch: a dataset kept up to date from its datasource.

    Attributes:
        name: names the watch in commands, metrics, tags and manifests.
        dataset: name of the dataset on the server.
        folder: for the embedded platform, the folder below the data directory that is watched; with another
            server None, since the dataset has its datasource there.
        interval_s: seconds between polls, unless `cron` is set.
        cron: five fields, minute hour day month weekday, UTC.
        jitter_s: a poll starts up to this much later, so that many watches do not start together.
        steps: the steps of the pipeline, in their order.
        silent_after_s: no new sample for this long is worth an alert; 0 for never.
    """

    name: str
    dataset: str
    folder: str | None = None
    interval_s: float = 5.0
    cron: str | None = None
    jitter_s: float = 1.0
    steps: tuple[Step, ...] = (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER)
    silent_after_s: float = 86_400.0
    poll: PollRules = field(default_factory=PollRules)
    batch: BatchRules = field(default_factory=BatchRules)
    upload: UploadRules = field(default_factory=UploadRules)
    metadata: MetadataRules = field(default_factory=MetadataRules)
    embed: EmbedRules = field(default_factory=EmbedRules)
    sampling: SamplingRules = field(default_factory=SamplingRules)
    novelty: NoveltyRules = field(default_factory=NoveltyRules)
    deliver: DeliverRules = field(default_factory=DeliverRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A watch as the store knows it.

    Attributes:
        mark_s: everything up to and including this second is in the ledger; None before the first poll.
        remote_mark_s: what the server was told last.
        last_polled_ms: end of the last successful poll.
        created_ms: when its row was made.
        listing_unit, listing_from_end, listing_to_end: what the probe found, see `listing`; None: not known.
        probed_ms: when the probe looked last.
        lateness_s: the lateness that counts for the overlap, and `lateness_ms` when it was seen.
        problem: why the last poll could not begin.
        paused_ms: since when it is paused; None while it runs.
    """

    id: int
    name: str
    server: str
    dataset_id: str
    mark_s: int | None = None
    remote_mark_s: int | None = None
    last_polled_ms: int | None = None
    paused_ms: int | None = None
    created_ms: int = 0
    listing_unit: str | None = None
    listing_from_end: str | None = None
    listing_to_end: str | None = None
    probed_ms: int | None = None
    lateness_s: int | None = None
    lateness_ms: int | None = None
    problem: str | None = None

    @property
    def listing(self) -> ListingFacts:
        """How the server takes windows; what is not known is as the protocol documents it."""
        return ListingFacts(
            unit=TimeUnit(self.listing_unit or TimeUnit.SECONDS),
            from_end=WindowEnd(self.listing_from_end or WindowEnd.INCLUSIVE),
            to_end=WindowEnd(self.listing_to_end or WindowEnd.INCLUSIVE),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One cycle of a watch: the frozen window and how far its listing got.

    Attributes:
        from_s, to_s: the fresh window, both ends included; empty if from_s > to_s.
        overlap_from_s: start of the overlap, which ends at from_s - 1; None if there is none.
        via: which of the two queries is being listed.
        cursor: where its listing goes on; None at its start.
    """

    id: int
    watch_id: int
    state: PollState
    from_s: int
    to_s: int
    overlap_from_s: int | None
    via: Via
    cursor: str | None
    n_pages: int
    n_listed: int
    n_new: int
    started_ms: int
    finished_ms: int | None = None
    error: str | None = None

    @property
    def overlap_s(self) -> int | None:
        """Length of the overlap; None if there is none."""
        return None if self.overlap_from_s is None else self.from_s - 1 - self.overlap_from_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A row of the ledger.

    Attributes:
        remote_id: id on the server once it is registered and its files are there.
        attempts: how often it was put into a batch before this one.
        available_ms: not put into a batch before this time.
        size_bytes, modified_s, etag: of the object, as its read URL told when it was read last.
        relisted_ms: since when it is to be looked at whether it was written again; None: nothing hints at it.
        n_overwritten: how often it was found written again, the last time at `overwritten_ms`.
    """

    id: int
    watch_id: int
    file_name: str
    read_url: str
    state: SampleState
    via: Via
    poll_id: int
    batch_id: int | None
    remote_id: str | None
    attempts: int
    available_ms: int
    discovered_ms: int
    changed_ms: int
    size_bytes: int | None = None
    modified_s: int | None = None
    reason: str | None = None
    etag: str | None = None
    relisted_ms: int | None = None
    n_overwritten: int = 0
    overwritten_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples that go down the pipeline together.

    Attributes:
        number: counts the batches of a watch from 1; `key` is its natural key on the server.
        steps: the watch's steps when the batch was cut; a later change of settings does not touch it.
        query_tag_id: tag that holds the batch's samples.
        embedding_id: embedding that covers the dataset up to and with this batch.
        sampling_tag_id: tag of the picks, earlier ones included.
    """

    id: int
    watch_id: int
    number: int
    key: str
    state: BatchState
    steps: tuple[Step, ...]
    n_samples: int
    created_ms: int
    finished_ms: int | None = None
    query_tag_id: str | None = None
    embedding_id: str | None = None
    sampling_tag_id: str | None = None
    sampling_tag_name: str | None = None


# What stands as a run's error when nobody was left to tell how its attempt ended.
LEASE_RAN_OUT = "the lease ran out"
PROCESS_ENDED = "its process ended"
ENDED_WITHOUT_A_WORD = frozenset({LEASE_RAN_OUT, PROCESS_ENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One step of one batch, or one shard of it, with its attempts.

    Attributes:
        shard: 0 is the run that ends the step; a large batch has others before it, counted from 1.
        first_sample_id, last_sample_id: which samples of the batch a shard works on, both included; None for all.
        dispatched_ms: when the queue was told of it; None where there is no queue, or it was not yet.
    """

    id: int
    batch_id: int
    watch_id: int
    step: Step
    shard: int
    state: RunState
    attempt: int
    available_ms: int
    created_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None
    lease_owner: str | None = None
    lease_until_ms: int | None = None
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    first_sample_id: int | None = None
    last_sample_id: int | None = None
    dispatched_ms: int | None = None

    @property
    def was_begun_before(self) -> bool:
        """Whether an earlier attempt may have left effects; also one that a shutdown or a replay took off the count."""
        return self.attempt > 1 or self.available_ms > self.created_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleNovelty:
    """How far a sample lay from everything known when its batch was measured.

    Attributes:
        distance: Euclidean, to the nearest one known; None for the very first, and for one without a vector.
        nearest: file name of that one.
    """

    sample_id: int
    distance: float | None
    nearest: str | None
    is_near_duplicate: bool
    is_repeat: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNovelty:
    """How new a batch was.

    Attributes:
        mean_distance: mean distance of its samples to the nearest one known; None where none had one.
        ratio: that, relative to the batches before it; None for the first one.
        n_without_vector: samples of which the embedder made no vector that could be compared.
    """

    embedder: str
    n_samples: int
    n_near_duplicates: int
    n_repeats: int
    mean_distance: float | None
    ratio: float | None
    measured_ms: int
    n_without_vector: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A sample that was picked, its place among the picks of its batch (from 1), and why."""

    batch_id: int
    sample_id: int
    file_name: str
    remote_id: str | None
    rank: int
    reason: dict[str, Any]
