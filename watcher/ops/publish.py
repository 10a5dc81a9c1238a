"""Connects the registry with everything that is asked at a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.metrics import LOOPS, Metrics
from watcher.ops.collector import StoreCollector
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.ops.states import find_disks


def publish_states(
    metrics: Metrics,
    *,
    database: Database,
    access: AccessWatch,
    heartbeats: Heartbeats,
    clock: Clock,
    watches: Iterable[str] = (),
    data_dir: Path,
    is_published: Callable[[], bool] = lambda: True,
) -> None:
    """Adds the states of the store, the disk, the loops, the credentials and the process; once a registry.

    While `is_published` is false, the store is only asked whether it answers: its states are told by the leader alone.
    """
    database.observe(
        query=metrics.store_query_duration_s.observe, commit=metrics.store_commit_duration_s.observe
    )
    metrics.credentials_refused.set_function(lambda: float(access.get().is_refused))
    for loop in LOOPS:
        metrics.stalled_loops.labels(loop=loop).set_function(partial(heartbeats.count_stalled, loop))
    metrics.registry.register(
        StoreCollector(
            database,
            configured=frozenset(watches),
            clock=clock,
            disks=find_disks(database, data_dir=data_dir),
            is_published=is_published,
        )
    )
    ProcessCollector(registry=metrics.registry)
    PlatformCollector(registry=metrics.registry)
    GCCollector(registry=metrics.registry)
