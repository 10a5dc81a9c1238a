"""What the next poll and its batches would do and cost, without doing it: nothing is written, here or on the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.domain.budget import compute_allowance, compute_period, describe_budget
from watcher.domain.delivery import ImageReference, LabelStudioRules, SinkConfig, WebhookRules
from watcher.domain.errors import ApiException, TransportError, WatcherError
from watcher.domain.listing_facts import ListingFacts
from watcher.domain.models import SamplingRules, Step, Watch, WatchConfig
from watcher.domain.names import explain_bad_name
from watcher.domain.own_output import SERVERS_OUTPUT, is_input
from watcher.domain.pipeline import compute_batch_size, compute_most_samples
from watcher.domain.redaction import redact
from watcher.domain.sampling_rules import BudgetPeriod
from watcher.domain.step_rules import UploadMode
from watcher.domain.window import compute_window
from watcher.lateness import build_lateness
from watcher.lightly import datasets
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.listing import iter_pages
from watcher.store import batches, deliveries, novelty, picks, samples, watches
from watcher.store.cutting import FIRST_MEAN_BYTES

# Requests of a step besides those for each sample, and for each sample by upload mode: counted in a quiet run of each.
# Waiting for the server's sampling takes one more every few seconds.
_CALLS_A_BATCH = {Step.UPLOAD: 4, Step.METADATA: 0, Step.EMBED: 5, Step.SAMPLING: 11, Step.DELIVER: 0}
_CALLS_A_SAMPLE = {UploadMode.METADATA: 2, UploadMode.THUMBNAILS: 3, UploadMode.FULL: 4}
_MEAN_OF = 200


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A step of all planned batches; `n_requests` is about how many it takes, None if it is not known what is new."""

    step: str
    n_requests: int | None


class DeliveryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one sink would get; `n_requests` is about how many go to the platform and the sink.

    The numbers are None if it is not known what is new.
    """

    sink: str
    kind: str
    n_deliveries: int | None
    n_picks: int | None
    n_requests: int | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A watch's next poll and batches.

    Where it is not known what is new, nothing that follows from it is known either, and all that is None.

    Attributes:
        is_attached: whether the watch has its dataset yet; the first poll makes it.
        is_paused: then nothing of this happens before `watcher resume`.
        n_new: files the poll would find; None if the datasource was not listed, see `listing`.
        n_pages: requests the listing takes.
        listing: why `n_new` is not known; empty if it is.
        n_waiting: files in the ledger that wait for a batch, besides the new ones.
        batch_sizes: samples of each batch that would be cut of both.
        n_left: samples that no batch takes yet, since too many are open.
        is_due: whether the first one would be cut at once; else when enough wait, or for long enough, or by cron.
        n_bytes: of all samples in the batches; None while nothing of the watch was read.
        n_picks: at most so many would be picked, were the batches cut now; fewer where near-duplicates are kept out,
            files are broken, or `min_distance` and `min_ratio` end the picks.
        budget: of the sampling, such as `100 a day`; empty without the step.
        n_spent: picks that the present day or week has had of it, with the most that open batches will still take.
        n_open_batches: under way already.
        n_unconfirmed: deliveries under way or given up.
    """

    watch: str
    dataset: str
    is_attached: bool
    is_paused: bool
    n_new: int | None
    n_pages: int | None
    listing: str
    n_waiting: int
    batch_sizes: list[int] | None
    n_left: int | None
    is_due: bool | None
    n_bytes: int | None
    bytes_are: str
    steps: list[StepPlan]
    n_picks: int | None
    budget: str
    n_spent: int
    deliveries: list[DeliveryPlan]
    n_open_batches: int
    n_unconfirmed: int


def plan_watch(
    database: Database | None,
    *,
    config: WatchConfig,
    transport: Transport | None,
    now_ms: int,
    why_not_listed: str = "the server was not asked",
    find_own_output: Callable[[str], re.Pattern[str]] = lambda _: SERVERS_OUTPUT,
) -> Plan:
    """Plans a watch.

    Args:
        database: the store; only read. None where there is none yet.
        config: the watch.
        transport: to list what is new; without it only the ledger is looked at.
        now_ms: the present, unix milliseconds.
        why_not_listed: told where there is no transport.
        find_own_output: gives for the id of a dataset what matches names that the daemon or the server wrote itself.

    Returns:
        The plan. Cost: one listing of the next poll's window, memory one page of it.
    """
    watch: Watch | None = None
    if database is not None:
        with database.read() as session:
            watch = watches.load_watch(session, name=config.name)
    n_new, n_pages, listing = None, None, why_not_listed
    if transport is not None:
        n_new, n_pages, listing = _count_new(database, config, watch, transport, now_ms, find_own_output)
    mean_bytes: float | None = None
    n_waiting = n_open = n_unconfirmed = 0
    spending = _Spending(config.sampling)
    oldest_ms: int | None = None
    if database is not None and watch is not None:
        with database.read() as session:
            oldest_ms = samples.load_oldest_waiting(session, watch_id=watch.id, now_ms=now_ms)
            n_waiting = samples.count_waiting(
                session,
                watch_id=watch.id,
                until_ms=now_ms,
                limit=config.batch.max_samples * config.batch.max_open,
            )
            mean_bytes = samples.load_mean_size(session, watch_id=watch.id, n=_MEAN_OF)
            n_open = batches.count_open(session, watch_id=watch.id)
            n_unconfirmed = len(deliveries.load_unconfirmed(session, watch_id=watch.id, limit=10_000))
            spending = _load_spending(session, config, watch_id=watch.id, now_ms=now_ms)
    ahead = (
        _plan_nothing(config)
        if n_new is None
        else _plan_batches(
            config,
            n_ready=n_waiting + n_new,
            n_open=n_open,
            mean_bytes=mean_bytes,
            oldest_wait_s=0.0 if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            spending=copy(spending),
        )
    )
    return Plan(
        watch=config.name,
        dataset=config.dataset,
        is_attached=watch is not None,
        is_paused=watch is not None and watch.paused_ms is not None,
        n_new=n_new,
        n_pages=n_pages,
        listing=listing,
        n_waiting=n_waiting,
        budget=describe_budget(config.sampling) if Step.SAMPLING in config.steps else "",
        n_spent=spending.n_picked,
        n_open_batches=n_open,
        n_unconfirmed=n_unconfirmed,
        **ahead,
    )


def _plan_nothing(config: WatchConfig) -> dict[str, Any]:
    """What is told of the batches where it is not known what is new."""
    return {
        "batch_sizes": None,
        "n_left": None,
        "is_due": None,
        "n_bytes": None,
        "bytes_are": "unknown",
        "steps": [StepPlan(step=step.value, n_requests=None) for step in config.steps],
        "n_picks": None if Step.SAMPLING in config.steps else 0,
        "deliveries": [
            DeliveryPlan(
                sink=sink.name, kind=sink.kind.value, n_deliveries=None, n_picks=None, n_requests=None
            )
            for sink in config.deliver.sinks
            if Step.DELIVER in config.steps
        ],
    }


def _plan_batches(
    config: WatchConfig,
    *,
    n_ready: int,
    n_open: int,
    mean_bytes: float | None,
    oldest_wait_s: float,
    spending: _Spending,
) -> dict[str, Any]:
    sizes = list(_iter_sizes(config, n_ready=n_ready, n_open=n_open, mean_bytes=mean_bytes))
    is_due = config.batch.cron is None and bool(
        compute_batch_size(
            n_waiting=n_ready,
            oldest_wait_s=oldest_wait_s,
            n_open=n_open,
            rules=config.batch,
            most_samples=_compute_most(config, mean_bytes),
        )
    )
    n_planned = sum(sizes)
    n_picks = [spending.spend(size) if Step.SAMPLING in config.steps else 0 for size in sizes]
    return {
        "batch_sizes": sizes,
        "n_left": n_ready - n_planned,
        "is_due": is_due,
        "n_bytes": None if mean_bytes is None else round(mean_bytes * n_planned),
        "bytes_are": "unknown" if mean_bytes is None else f"estimated by the newest {_MEAN_OF} samples",
        "steps": [
            StepPlan(step=step.value, n_requests=_count_requests(config, step, sizes))
            for step in config.steps
        ],
        "n_picks": sum(n_picks),
        # A batch of which nothing is picked makes no delivery.
        "deliveries": [
            _plan_sink(sink, [n for n in n_picks if n])
            for sink in config.deliver.sinks
            if Step.DELIVER in config.steps
        ],
    }


def _explain_absence(config: WatchConfig) -> str:
    if config.folder is None:  # another server, on which nobody but its users makes datasets
        return (
            f"the server has no dataset {config.dataset!r}: create it there and configure its datasource, or correct "
            f"WATCHER_WATCHES__{config.name.upper()}__DATASET"
        )
    return f"there is no dataset {config.dataset!r} on the server yet: the first poll makes it"


def _count_new(
    database: Database | None,
    config: WatchConfig,
    watch: Watch | None,
    transport: Transport,
    now_ms: int,
    find_own_output: Callable[[str], re.Pattern[str]],
) -> tuple[int | None, int | None, str]:
    """Files of the next window that the ledger does not know and a batch may take, pages listed, and why not."""
    try:
        dataset_id = watch.dataset_id if watch is not None else _find_dataset(transport, config.dataset)
        if dataset_id is None:
            return None, None, _explain_absence(config)
        first, last = _compute_range(config, watch, now_ms)
        own_output = find_own_output(dataset_id)
        n_new = n_pages = 0
        for page in iter_pages(
            transport, dataset_id=dataset_id, from_s=first, to_s=last, max_pages=config.poll.max_pages
        ):
            n_pages += 1
            names = {
                row.file_name
                for row in page.rows
                if is_input(row.file_name, own_output=own_output, is_sidecar=config.metadata.is_sidecar)
                and explain_bad_name(row.file_name) is None
            }
            if database is not None and watch is not None:
                with database.read() as session:
                    names -= samples.load_samples_named(
                        session, watch_id=watch.id, file_names=sorted(names)
                    ).keys()
            n_new += len(names)
    except (ApiException, TransportError, WatcherError) as error:
        return None, None, redact(str(error))
    return n_new, n_pages, ""


def _compute_range(config: WatchConfig, watch: Watch | None, now_ms: int) -> tuple[int, int]:
    """What the next poll lists, its overlap included, in the numbers of the server."""
    window = compute_window(
        mark_s=None if watch is None else watch.mark_s,
        server_now_s=now_ms // 1000,
        rules=config.poll,
        overlap_s=None
        if watch is None
        else build_lateness(watch).compute_overlap(config.poll, now_s=now_ms / 1000),
    )
    from_s = window.from_s if window.overlap_from_s is None else window.overlap_from_s
    return (ListingFacts() if watch is None else watch.listing).compute_range(from_s, window.to_s)


def _find_dataset(transport: Transport, name: str) -> str | None:
    found = datasets.fetch_datasets_by_name(transport, name=name, exact=True)
    return found[0].id if found else None


def _compute_most(config: WatchConfig, mean_bytes: float | None) -> int:
    """Samples of the largest batch, as the cutting counts them."""
    return compute_most_samples(config.batch, mean_bytes=mean_bytes or FIRST_MEAN_BYTES)


def _iter_sizes(config: WatchConfig, *, n_ready: int, n_open: int, mean_bytes: float | None) -> Iterator[int]:
    """Sizes of the batches once they are due."""
    most = _compute_most(config, mean_bytes)
    for _ in range(max(0, config.batch.max_open - n_open)):
        if n_ready <= 0:
            return
        yield min(n_ready, most)
        n_ready -= most


@dataclass(slots=True)
class _Spending:
    """What the present day or week, or a batch by itself, has had of the budget; grows with each planned batch."""

    rules: SamplingRules
    n_samples: int = 0
    n_picked: int = 0

    def spend(self, n_samples: int) -> int:
        """The most picks of the next batch, which has so many samples."""
        if self.rules.budget_per is BudgetPeriod.BATCH:
            return min(n_samples, compute_allowance(self.rules, n_samples=n_samples, n_picked=0))
        self.n_samples += n_samples
        left = compute_allowance(self.rules, n_samples=self.n_samples, n_picked=self.n_picked)
        n_picks = min(n_samples, left)
        self.n_picked += n_picks
        return n_picks


def _load_spending(session: Session, config: WatchConfig, *, watch_id: int, now_ms: int) -> _Spending:
    """What is spent of a day's or week's budget, with the most that batches under way will take of it before."""
    rules = config.sampling
    if rules.budget_per is BudgetPeriod.BATCH:
        return _Spending(rules)
    from_ms, to_ms = compute_period(at_ms=now_ms, per=rules.budget_per, time_zone=rules.time_zone)
    period = {"watch_id": watch_id, "from_ms": from_ms, "to_ms": to_ms}
    unsampled = batches.load_unsampled(session, **period)
    # An open batch counts by its own size below, be it measured already or not.
    measured = [novelty.load_batch_novelty(session, batch_id=batch_id) for batch_id, _ in unsampled]
    spending = _Spending(
        rules,
        n_samples=novelty.count_measured(session, **period)
        - sum(m.n_samples for m in measured if m is not None),
        n_picked=picks.count_picks_between(session, **period),
    )
    for (_, n_samples), known in zip(unsampled, measured, strict=True):
        spending.spend(n_samples if known is None else known.n_samples)
    return spending


def _count_requests(config: WatchConfig, step: Step, sizes: list[int]) -> int:
    n = _CALLS_A_BATCH[step] * len(sizes)
    if step is Step.UPLOAD:
        n += _CALLS_A_SAMPLE[config.upload.mode] * sum(sizes)
    elif step in (Step.METADATA, Step.EMBED):  # a sidecar each, a picture each
        n += sum(sizes)
    return n


def _plan_sink(sink: SinkConfig, picks: list[int]) -> DeliveryPlan:
    rules = sink.rules
    n_picks = sum(picks)
    n_requests = n_picks  # a read URL each
    if isinstance(rules, WebhookRules):
        n_requests += sum(-(-n // rules.max_picks) for n in picks)
    elif isinstance(rules, LabelStudioRules):
        if rules.image is not ImageReference.READ_URL:
            n_requests = 2 * len(picks)
        n_requests += sum(2 + -(-n // rules.max_tasks) for n in picks)
    elif rules.is_bucket:
        n_requests += len(picks)
    return DeliveryPlan(
        sink=sink.name,
        kind=sink.kind.value,
        n_deliveries=len(picks),
        n_picks=n_picks,
        n_requests=n_requests,
    )
