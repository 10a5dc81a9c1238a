"""The metrics that are computed from the store: their names, and one reading of all of them.

A new one is a `Family` in `FAMILIES` and a line in one of the `_read_` functions; what it costs may not depend on the
number of samples or watches beyond a statement for all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.domain.delivery import DeliveryState
from watcher.domain.models import BatchState, Watch
from watcher.store import (
    batches,
    claims,
    deliveries,
    novelty,
    polls,
    queue,
    reconciles,
    samples,
    source_checks,
    watches,
)
from watcher.store.counts import load_counts


@dataclass(frozen=True, slots=True)
class Family:
    """One metric computed from the store: its name, what it tells, its labels."""

    name: str
    text: str
    labels: tuple[str, ...] = ("watch",)
    kind: Literal["gauge", "counter"] = "gauge"


SAMPLES = Family("watcher_samples", "Samples in the ledger by state.", ("watch", "state"))
LAST_POLL = Family("watcher_last_successful_poll_timestamp_seconds", "End of the last complete poll.")
MARK = Family("watcher_mark_timestamp_seconds", "Everything up to this time is in the ledger.")
OLDEST_PENDING = Family(
    "watcher_oldest_pending_sample_timestamp_seconds",
    "Discovery of the oldest unfinished sample; absent when there is none.",
)
LAST_SAMPLE = Family(
    "watcher_last_sample_timestamp_seconds", "Discovery of the newest sample; absent before the first."
)
MISSING = Family(
    "watcher_reconcile_missing_samples",
    "Samples the last full comparison found that no poll had found; absent before the first one.",
)
CHECKED = Family(
    "watcher_source_checked_timestamp_seconds",
    "The last look for objects that polls passed over; absent before the first one.",
)
AHEAD = Family(
    "watcher_source_ahead_samples",
    "Objects that the last look at the source found and no poll did, though polls ended well; 100 at the most, absent "
    "before the first look.",
)
OVERLAP = Family(
    "watcher_overlap_seconds",
    "How far before its mark the last poll listed again; absent before the first poll with an overlap.",
)
PAUSED = Family("watcher_paused", "1 while a watch is paused.")
BATCHES = Family("watcher_batches", "Batches by state.", ("watch", "state"))
QUEUED = Family(
    "watcher_queue_runs",
    "Runs that are not finished: ready now, delayed until their time, or running.",
    ("watch", "state"),
)
WAITING = Family("watcher_runs_waiting", "Runs that are ready and in nobody's work.", ("step",))
OLDEST_READY = Family(
    "watcher_queue_oldest_ready_timestamp_seconds",
    "Since when the run that is ready for the longest waits; absent when none is.",
)
UNKNOWN = Family(
    "watcher_oldest_unknown_outcome_timestamp_seconds",
    "Making of the oldest unfinished run of whose last attempt nobody knows whether the server carried it out; "
    "absent when there is none.",
)
MEASURED = Family("watcher_measured_samples", "Samples compared with everything known.", kind="counter")
NEAR = Family("watcher_near_duplicate_samples", "Samples that were much like a known one.", kind="counter")
REPEATED = Family(
    "watcher_repeated_samples", "Samples that were the same picture as a known one.", kind="counter"
)
WITHOUT_VECTOR = Family(
    "watcher_samples_without_vector", "Samples of which the embedder made no usable vector.", kind="counter"
)
DARK = Family("watcher_dark_samples", "Samples that were black or without texture.", kind="counter")
NOVELTY = Family(
    "watcher_batch_novelty_ratio",
    "Novelty of the newest batch relative to the batches before it; absent before the second.",
)
DELIVERIES = Family("watcher_deliveries", "Deliveries by state.", ("watch", "sink", "state"))
OLDEST_DELIVERY = Family(
    "watcher_oldest_pending_delivery_timestamp_seconds",
    "Promise of the oldest delivery that its sink has not confirmed; absent when there is none.",
    ("watch", "sink"),
)
STORE_SIZE = Family("watcher_store_size_bytes", "Size of the store on its disk.", ())
DISK_FREE = Family(
    "watcher_disk_free_bytes",
    "Room left on the disk of the data folder, or of the store if elsewhere.",
    ("disk",),
)
DISK_SIZE = Family("watcher_disk_size_bytes", "Size of that disk.", ("disk",))

FAMILIES = (
    SAMPLES,
    LAST_POLL,
    MARK,
    OLDEST_PENDING,
    LAST_SAMPLE,
    MISSING,
    CHECKED,
    AHEAD,
    OVERLAP,
    PAUSED,
    BATCHES,
    QUEUED,
    WAITING,
    OLDEST_READY,
    UNKNOWN,
    MEASURED,
    NEAR,
    REPEATED,
    WITHOUT_VECTOR,
    DARK,
    NOVELTY,
    DELIVERIES,
    OLDEST_DELIVERY,
    STORE_SIZE,
    DISK_FREE,
    DISK_SIZE,
)

Series = tuple[tuple[str, ...], float]


class Reading:
    """The values of one moment, by gauge."""

    def __init__(self) -> None:
        self._series: dict[str, list[Series]] = {family.name: [] for family in FAMILIES}

    def add(self, family: Family, labels: Sequence[str], value: float) -> None:
        """One series."""
        self._series[family.name].append((tuple(labels), value))

    def build_families(self) -> list[Metric]:
        """For the registry; a metric without series is left out."""
        built: list[Metric] = []
        for family in FAMILIES:
            series = self._series[family.name]
            if series:
                build = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metric = build(family.name, family.text, labels=family.labels)
                for labels, value in series:
                    metric.add_metric(labels, value)
                built.append(metric)
        return built


def read_states(
    database: Database, *, configured: frozenset[str], disks: Mapping[str, Path], now_ms: int
) -> Reading:
    """Reads every gauge in one transaction; the cost does not depend on the number of samples.

    Args:
        database: the store.
        configured: only these watches are told, so that removed ones disappear.
        disks: folders whose disks are measured, by label.
        now_ms: the present.

    Raises:
        StoreError: the store cannot be read.
    """
    reading = Reading()
    with database.read() as session:
        known = [watch for watch in watches.load_watches(session) if watch.name in configured]
        _read_watches(session, reading, known, now_ms)
        _read_novelty(session, reading, known)
        _read_deliveries(session, reading, {watch.name for watch in known})
        reading.add(STORE_SIZE, (), measure_store(database, session))
    for disk, folder in disks.items():
        usage = shutil.disk_usage(folder)
        reading.add(DISK_FREE, [disk], usage.free)
        reading.add(DISK_SIZE, [disk], usage.total)
    return reading


def _read_watches(session: Session, reading: Reading, known: list[Watch], now_ms: int) -> None:
    names = {watch.name for watch in known}
    for (name, state), n in load_counts(session).items():
        if name in names:
            reading.add(SAMPLES, [name, state.value], n)
    batch_counts = batches.count_by_state(session)
    overlaps = polls.load_last_overlaps(session)
    last_missing = reconciles.load_last_missing(session)
    looks = source_checks.load_last_checks(session)
    waiting = queue.load_queues(session, now_ms=now_ms)
    for step, n in claims.count_waiting(session).items():
        reading.add(WAITING, [step.value], n)
    for watch in known:
        for batch_state in BatchState:
            reading.add(
                BATCHES, [watch.name, batch_state.value], batch_counts.get((watch.name, batch_state), 0)
            )
        if watch.id in overlaps:
            reading.add(OVERLAP, [watch.name], overlaps[watch.id])
        reading.add(PAUSED, [watch.name], 0 if watch.paused_ms is None else 1)
        if watch.name in looks:
            checked_ms, n_ahead = looks[watch.name]
            reading.add(CHECKED, [watch.name], checked_ms / 1000)
            reading.add(AHEAD, [watch.name], n_ahead)
        if watch.name in last_missing:
            reading.add(MISSING, [watch.name], last_missing[watch.name])
        if watch.last_polled_ms is not None:
            reading.add(LAST_POLL, [watch.name], watch.last_polled_ms / 1000)
        if watch.mark_s is not None:
            reading.add(MARK, [watch.name], watch.mark_s)
        runs = waiting.get(watch.name, queue.Queue())
        for queue_state, n in (
            ("ready", runs.n_ready),
            ("delayed", runs.n_delayed),
            ("running", runs.n_running),
        ):
            reading.add(QUEUED, [watch.name, queue_state], n)
        if runs.oldest_ready_ms is not None:
            reading.add(OLDEST_READY, [watch.name], runs.oldest_ready_ms / 1000)
        if runs.oldest_unknown_ms is not None:
            reading.add(UNKNOWN, [watch.name], runs.oldest_unknown_ms / 1000)
    for family, times in (
        (OLDEST_PENDING, samples.load_oldest_pending(session)),
        (LAST_SAMPLE, samples.load_newest_discovered(session)),
    ):
        for name, at_ms in times.items():
            if name in names:
                reading.add(family, [name], at_ms / 1000)


def _read_novelty(session: Session, reading: Reading, known: list[Watch]) -> None:
    measured = novelty.count_measurements(session)
    n_dark = novelty.count_dark_samples(session)
    ratios = novelty.load_last_ratios(session)
    for watch in known:
        counted = measured.get(watch.name, (0, 0, 0, 0))
        for family, n in zip((MEASURED, NEAR, REPEATED, WITHOUT_VECTOR), counted, strict=True):
            reading.add(family, [watch.name], n)
        reading.add(DARK, [watch.name], n_dark.get(watch.name, 0))
        if watch.name in ratios:
            reading.add(NOVELTY, [watch.name], ratios[watch.name])


def _read_deliveries(session: Session, reading: Reading, names: set[str]) -> None:
    counted = deliveries.count_by_state(session)
    for watch, sink in sorted({(watch, sink) for watch, sink, _state in counted if watch in names}):
        for state in DeliveryState:
            reading.add(DELIVERIES, [watch, sink, state.value], counted.get((watch, sink, state), 0))
    for (watch, sink), promised_ms in deliveries.load_oldest_open(session).items():
        if watch in names:
            reading.add(OLDEST_DELIVERY, [watch, sink], promised_ms / 1000)


def measure_store(database: Database, session: Session) -> int:
    """Bytes of the store on its disk, journal included."""
    if not database.is_sqlite:
        return queue.measure_postgres(session)
    path = Path(str(database.engine.url.database))
    files = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    return sum(file.stat().st_size for file in files if file.exists())


def find_disks(database: Database, *, data_dir: Path) -> dict[str, Path]:
    """The folders whose disks matter: the data folder, and the store's if it lies on another disk."""
    disks = {"data": data_dir}
    if database.is_sqlite:
        folder = Path(str(database.engine.url.database)).resolve().parent
        if folder.exists() and folder.stat().st_dev != data_dir.stat().st_dev:
            disks["store"] = folder
    return disks
