"""Gauges computed from the store at each scrape, so that a restart does not lie and removed watches disappear."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import text

from watcher.database import Database
from watcher.domain.errors import StoreError
from watcher.domain.models import BatchState
from watcher.logs import get_logger
from watcher.ops.delivery_gauges import read_delivery_gauges
from watcher.store import batches, claims, novelty, polls, reconciles, samples, watches
from watcher.store.counts import load_counts

_log = get_logger("collector")


class StoreCollector(Collector):
    """Reads states; one scrape at a time, each in one transaction."""

    def __init__(
        self,
        database: Database,
        *,
        configured: frozenset[str],
        is_published: Callable[[], bool] = lambda: True,
    ) -> None:
        """Keeps the store; only watches that are configured are published.

        Of several replicas on one store the leader alone publishes its states (`is_published`), so that sums are right.
        """
        self._is_published = is_published
        self._database = database
        self._configured = configured
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing: the registry must not read the store at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The present states; without a store only `watcher_store_up` 0."""
        up = GaugeMetricFamily("watcher_store_up", "1 if the store answered at this scrape.")
        try:
            with self._lock:
                families = self._read() if self._is_published() else self._look()
        except StoreError as error:
            _log.warning("store.unreadable", error=str(error))
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from families

    def _look(self) -> list[Metric]:
        with self._database.read() as session:
            session.execute(text("SELECT 1"))
        return []

    def _read(self) -> list[Metric]:
        by_state = GaugeMetricFamily(
            "watcher_samples", "Samples in the ledger by state.", labels=["watch", "state"]
        )
        polled = GaugeMetricFamily(
            "watcher_last_successful_poll_timestamp_seconds",
            "End of the last complete poll.",
            labels=["watch"],
        )
        mark = GaugeMetricFamily(
            "watcher_mark_timestamp_seconds", "Everything up to this time is in the ledger.", labels=["watch"]
        )
        pending = GaugeMetricFamily(
            "watcher_oldest_pending_sample_timestamp_seconds",
            "Discovery of the oldest unfinished sample; absent when there is none.",
            labels=["watch"],
        )
        missing = GaugeMetricFamily(
            "watcher_reconcile_missing_samples",
            "Samples the last full comparison found that no poll had found; absent before the first one.",
            labels=["watch"],
        )
        overlap = GaugeMetricFamily(
            "watcher_overlap_seconds",
            "How far before its mark the last poll listed again; absent before the first poll with an overlap.",
            labels=["watch"],
        )
        paused = GaugeMetricFamily("watcher_paused", "1 while a watch is paused.", labels=["watch"])
        by_batch_state = GaugeMetricFamily("watcher_batches", "Batches by state.", labels=["watch", "state"])
        measured = CounterMetricFamily(
            "watcher_measured_samples", "Samples compared with everything known.", labels=["watch"]
        )
        near = CounterMetricFamily(
            "watcher_near_duplicate_samples", "Samples that were much like a known one.", labels=["watch"]
        )
        repeated = CounterMetricFamily(
            "watcher_repeated_samples", "Samples that were the same picture as a known one.", labels=["watch"]
        )
        dark = CounterMetricFamily(
            "watcher_dark_samples", "Samples that were black or without texture.", labels=["watch"]
        )
        ratio = GaugeMetricFamily(
            "watcher_batch_novelty_ratio",
            "Novelty of the newest batch relative to the batches before it; absent before the second.",
            labels=["watch"],
        )
        last_sample = GaugeMetricFamily(
            "watcher_last_sample_timestamp_seconds",
            "Discovery of the newest sample; absent before the first.",
            labels=["watch"],
        )
        waiting = GaugeMetricFamily(
            "watcher_runs_waiting", "Runs that are ready and in nobody's work.", labels=["step"]
        )
        with self._database.read() as session:
            for step, n in claims.count_waiting(session).items():
                waiting.add_metric([step.value], n)
            counts = load_counts(session)
            oldest = samples.load_oldest_pending(session)
            batch_counts = batches.count_by_state(session)
            duplicates = novelty.count_near_duplicates(session)
            n_dark = novelty.count_dark_samples(session)
            ratios = novelty.load_last_ratios(session)
            discoveries = novelty.load_last_discoveries(session)
            delivery_gauges = read_delivery_gauges(session, watch_names=self._configured)
            last_missing = reconciles.load_last_missing(session)
            known = [watch for watch in watches.load_watches(session) if watch.name in self._configured]
            overlaps = {watch.name: polls.load_last_overlap(session, watch_id=watch.id) for watch in known}
        for watch in known:
            for (name, state), n in counts.items():
                if name == watch.name:
                    by_state.add_metric([name, state.value], n)
            for batch_state in BatchState:
                by_batch_state.add_metric(
                    [watch.name, batch_state.value], batch_counts.get((watch.name, batch_state), 0)
                )
            paused.add_metric([watch.name], 0 if watch.paused_ms is None else 1)
            for family, n in zip(
                (measured, near, repeated), duplicates.get(watch.name, (0, 0, 0)), strict=True
            ):
                family.add_metric([watch.name], n)
            dark.add_metric([watch.name], n_dark.get(watch.name, 0))
            if watch.name in ratios:
                ratio.add_metric([watch.name], ratios[watch.name])
            if watch.name in discoveries:
                last_sample.add_metric([watch.name], discoveries[watch.name] / 1000)
            overlap_s = overlaps[watch.name]
            if overlap_s is not None:
                overlap.add_metric([watch.name], overlap_s)
            if watch.name in last_missing:
                missing.add_metric([watch.name], last_missing[watch.name])
            if watch.last_polled_ms is not None:
                polled.add_metric([watch.name], watch.last_polled_ms / 1000)
            if watch.mark_s is not None:
                mark.add_metric([watch.name], watch.mark_s)
            if watch.name in oldest:
                pending.add_metric([watch.name], oldest[watch.name] / 1000)
        return [
            *(by_state, polled, mark, pending, by_batch_state, missing, paused, waiting, overlap),
            *(measured, near, repeated, dark, ratio, last_sample),
            *delivery_gauges,
        ]
