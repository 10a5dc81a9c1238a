"""Claims a delivery, calls its sink, records the outcome: each in one transaction.

Beside the runs of batches and with workers of its own: a receiver that hangs or is down for days holds up neither the
other receivers nor the next batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from watcher.domain.backoff import Backoff
from watcher.domain.crash_points import crash_point
from watcher.domain.delivery import (
    Delivery,
    DeliveryState,
    ImageReference,
    SinkConfig,
    compute_delivery_id,
)
from watcher.domain.errors import (
    ApiException,
    CancelledError,
    ConfigError,
    DeliveryRefusedError,
    ProtocolError,
    UnknownOutcomeError,
)
from watcher.domain.models import WatchConfig
from watcher.domain.tracing import compute_trace_id
from watcher.jobs.attempts import make_attempt, record_failure
from watcher.jobs.context import DeliveryContext, JobParts
from watcher.jobs.lease import Lease
from watcher.jobs.picked import iter_chunks
from watcher.lightly import datasources
from watcher.logs import get_logger
from watcher.sinks.base import Handover, PickedSample, Receipt, Sink
from watcher.store import batches, claims, deliveries, picks, watches

_log = get_logger("deliveries")

# A receiver that was too slow may still be at it; what it does then must be there to be found.
_UNKNOWN_OUTCOME_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """How deliveries are leased and retried, whatever their watch.

    Attributes:
        lease_s: how long a claim lasts without a heartbeat.
        time_limit_s: longest attempt.
        retry_base_s: wait after the first failure.
    """

    lease_s: float = 60.0
    time_limit_s: float = 21_600.0
    retry_base_s: float = 2.0


class Deliverer:
    """Makes one delivery at a time in the calling thread; safe for several threads at once.

    Args:
        build_sink: a sink of its configuration, by watch; kept for as long as this object lives.
        takes: whether deliveries to a sink are made here; absent: all are, those to sinks that are no longer
            configured too.
        find_refused: names watches of which no delivery may be taken at present.
    """

    def __init__(
        self,
        parts: JobParts,
        *,
        build_sink: Callable[[SinkConfig], Sink],
        owner: str,
        limits: DeliveryLimits,
        stop: threading.Event,
        takes: Callable[[SinkConfig], bool] | None = None,
        find_refused: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._parts = parts
        self._build_sink = build_sink
        self._owner = owner
        self._limits = limits
        self._stop = stop
        self._find_refused = find_refused
        self._only = None if takes is None else _list_sinks(parts.configs, takes)
        self._sinks: dict[tuple[str, str], Sink] = {}
        self._lock = threading.Lock()

    def replace_secrets(self, configs: Iterable[WatchConfig]) -> None:
        """Takes the sinks of these watches anew from the next attempt on; one under way ends with the old ones."""
        with self._lock:
            for config in configs:
                known = self._parts.configs.get(config.name)
                if known is not None and known.deliver != config.deliver:
                    self._parts.configs[config.name] = config
                    for place in [place for place in self._sinks if place[0] == config.name]:
                        del self._sinks[place]

    def run_next(self, *, beat: Callable[[], None]) -> bool:
        """Claims and makes one delivery.

        Args:
            beat: called whenever the attempt moves.

        Returns:
            False if none was ready.

        Raises:
            StoreUnavailableError: the store failed; a claimed delivery is taken up again when its lease ran out.
        """
        claimed_s = self._parts.clock.monotonic_s()
        now_ms = self._now_ms()
        with self._parts.database.read() as session:
            if not claims.has_claimable_delivery(session, now_ms=now_ms):
                return False
        with self._parts.database.write() as session:
            delivery = deliveries.claim_delivery(
                session,
                owner=self._owner,
                now_ms=now_ms,
                lease_ms=int(self._limits.lease_s * 1000),
                watch_names=self._parts.configs.keys() - set(self._find_refused()),
                sinks=self._only,
            )
        if delivery is None:
            return False
        crash_point("deliveries.claimed")
        with Lease(
            what=f"delivery-{delivery.id}",
            clock=self._parts.clock,
            lease_s=self._limits.lease_s,
            time_limit_s=self._limits.time_limit_s,
            extend=lambda until_ms: self._extend_lease(delivery, until_ms),
            stop=self._stop,
            claimed_s=claimed_s,
        ) as lease:
            self._attempt(delivery, lease, beat)
        return True

    def _attempt(self, delivery: Delivery, lease: Lease, beat: Callable[[], None]) -> None:
        clock = self._parts.clock
        begun_s = clock.monotonic_s()
        with self._parts.database.read() as session:
            watch = watches.load_watch_by_id(session, watch_id=delivery.watch_id)
            batch = batches.load_batch(session, batch_id=delivery.batch_id)
        context = DeliveryContext(
            parts=self._parts,
            config=self._parts.configs[watch.name],
            watch=watch,
            batch=batch,
            delivery=delivery,
            stop=lease.lost,
            deadline_s=lease.deadline_s,
            is_lost=lease.has_run_out,
            beat=beat,
        )
        log = _log.bind(watch=watch.name, batch=batch.key, sink=delivery.sink, attempt=delivery.attempt)

        def work() -> Receipt:
            with self._parts.tracing.run(
                trace_id=compute_trace_id(watch, batch),
                step="delivery",
                facts={"watch": watch.name, "batch": batch.key, "sink": delivery.sink},
            ) as tracer:
                return self._deliver(context.traced_by(tracer))

        outcome = make_attempt(work, on_crash=lambda error: log.error("delivery.crashed", exc_info=error))
        with self._parts.database.write() as session:
            label, facts = self._record(session, context, outcome)
        crash_point("deliveries.recorded")
        if isinstance(outcome, Exception):
            self._parts.on_failure()
        metrics = self._parts.metrics
        metrics.delivery_attempts.labels(watch=watch.name, sink=delivery.sink, outcome=label).inc()
        duration_s = clock.monotonic_s() - begun_s
        metrics.delivery_duration_s.labels(kind=delivery.kind, outcome=label).observe(duration_s)
        (log.info if label in {"done", "interrupted"} else log.warning)(
            "delivery.ended",
            outcome=label,
            duration_s=round(duration_s, 3),
            n_picks=delivery.n_picks,
            **facts,
        )

    def _deliver(self, context: DeliveryContext) -> Receipt:
        watch, batch, delivery = context.watch, context.batch, context.delivery
        sink = self._get_sink(watch.name, delivery.sink)
        digest = delivery.picks_digest
        if digest is None:
            with self._parts.database.read() as session:
                digest = picks.load_picks_digest(session, batch_id=batch.id)

        def chunks(size: int, after_rank: int) -> Iterator[list[PickedSample]]:
            return iter_chunks(context, reference=sink.reference, size=size, after_rank=after_rank)

        return sink.deliver(
            Handover(
                id=compute_delivery_id(
                    dataset_id=watch.dataset_id,
                    batch_key=batch.key,
                    sink=delivery.sink,
                    picks_digest=delivery.picks_digest,
                ),
                watch=watch.name,
                dataset_id=watch.dataset_id,
                batch_key=batch.key,
                tag=batch.sampling_tag_name or batch.key,
                n_picks=delivery.n_picks,
                picks_digest=digest,
                progress=delivery.progress,
                source=_fetch_source(context) if sink.reference is ImageReference.URI else None,
                iter_chunks=chunks,
                save_progress=lambda progress: self._save_progress(delivery, progress),
                record_tasks=lambda tasks: self._record_tasks(delivery, tasks),
                check=context.check,
            )
        )

    def _get_sink(self, watch: str, name: str) -> Sink:
        with self._lock:
            sinks = self._parts.configs[watch].deliver.sinks
            config = next((sink for sink in sinks if sink.name == name), None)
            if config is None:
                raise DeliveryRefusedError(
                    f"watch {watch!r} has no sink {name!r} any more: `watcher drop {watch} --sink {name}` lets its "
                    f"deliveries be, or configure it again, then `watcher replay {watch}`"
                )
            if (watch, name) not in self._sinks:
                self._sinks[watch, name] = self._build_sink(config)
            return self._sinks[watch, name]

    def _save_progress(self, delivery: Delivery, progress: Mapping[str, Any]) -> None:
        with self._parts.database.write() as session:
            held = deliveries.save_progress(
                session, delivery_id=delivery.id, owner=self._owner, progress=progress
            )
        crash_point("deliveries.progress_saved")
        if not held:
            raise CancelledError("another worker has taken this delivery over")

    def _record_tasks(self, delivery: Delivery, tasks: Mapping[int, str]) -> None:
        with self._parts.database.write() as session:
            deliveries.record_tasks(session, delivery_id=delivery.id, tasks=tasks)
        crash_point("deliveries.tasks_recorded")

    def _record(
        self, session: Session, context: DeliveryContext, outcome: Receipt | Exception
    ) -> tuple[str, dict[str, object]]:
        """Writes what became of the attempt; returns the outcome's label and what to tell of it."""
        delivery, now_ms, rules = context.delivery, self._now_ms(), context.config.deliver
        facts: dict[str, object]
        if isinstance(outcome, Receipt):
            label, facts = "done", {"location": outcome.location, **outcome.facts}
            held = deliveries.end_delivery(
                session,
                delivery_id=delivery.id,
                owner=self._owner,
                state=DeliveryState.DONE,
                now_ms=now_ms,
                location=outcome.location,
            )
        else:
            failure = record_failure(
                session,
                _HeldDelivery(delivery, self._owner),
                outcome,
                now_ms=now_ms,
                jitter=self._parts.rng.random(),
                is_final=is_hopeless(outcome) or now_ms - delivery.created_ms >= rules.give_up_after_s * 1000,
                backoff=Backoff(base_s=self._limits.retry_base_s, cap_s=rules.retry_cap_s),
                floor_s=_UNKNOWN_OUTCOME_WAIT_S if isinstance(outcome, UnknownOutcomeError) else None,
            )
            label, held = failure.label, failure.held
            facts = {} if failure.error is None else {"error": failure.error}
            if failure.delay_s is not None:
                facts["retry_in_s"] = round(failure.delay_s, 1)
        if not held:
            facts["lease"] = "lost"
        return label, facts

    def _extend_lease(self, delivery: Delivery, until_ms: int) -> bool:
        with self._parts.database.write() as session:
            held = deliveries.extend_lease(
                session, delivery_id=delivery.id, owner=self._owner, until_ms=until_ms
            )
        crash_point("deliveries.lease_extended")
        return held

    def _now_ms(self) -> int:
        return int(self._parts.clock.now_s() * 1000)


@dataclass(frozen=True, slots=True)
class _HeldDelivery:
    """A delivery as `record_failure` sees it."""

    delivery: Delivery
    owner: str

    @property
    def attempt(self) -> int:
        return self.delivery.attempt

    def postpone(
        self, session: Session, *, available_ms: int, error: str | None, count_attempt: bool
    ) -> bool:
        return deliveries.postpone_delivery(
            session,
            delivery_id=self.delivery.id,
            owner=self.owner,
            available_ms=available_ms,
            error=error,
            count_attempt=count_attempt,
        )

    def bury(self, session: Session, *, now_ms: int, error: str) -> bool:
        return deliveries.end_delivery(
            session,
            delivery_id=self.delivery.id,
            owner=self.owner,
            state=DeliveryState.DEAD,
            now_ms=now_ms,
            error=error,
        )


def is_hopeless(error: Exception) -> bool:
    """Whether no wait helps: the receiver said so, or the settings must change.

    Whatever else a receiver answers is tried for days: one that is being deployed answers 404, and one that is mended
    accepts what it refused the day before.
    """
    return isinstance(error, (DeliveryRefusedError, ConfigError))


def _list_sinks(
    configs: Mapping[str, WatchConfig], takes: Callable[[SinkConfig], bool]
) -> frozenset[tuple[str, str]]:
    """The sinks that are taken, as (watch, name)."""
    return frozenset(
        (name, sink.name) for name, config in configs.items() for sink in config.deliver.sinks if takes(sink)
    )


def _fetch_source(context: DeliveryContext) -> str | None:
    """The path of the dataset's datasource; None if the server does not tell."""
    try:
        settings = datasources.fetch_datasource(context.transport, dataset_id=context.watch.dataset_id)
    except (ApiException, ProtocolError):
        return None
    return getattr(settings, "full_path", None)
