"""Settings -> what claims and runs the steps and the deliveries of the watches."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from functools import partial

from watcher.data_folder import work_dir
from watcher.database import Database
from watcher.dispatch.queue import RunQueue
from watcher.domain.backoff import Backoff
from watcher.domain.clock import Clock
from watcher.domain.delivery import SinkConfig
from watcher.domain.models import WatchConfig
from watcher.embedders.choosing import build_embedders
from watcher.jobs.context import JobParts
from watcher.jobs.deliveries import Deliverer, DeliveryLimits
from watcher.jobs.embedder_changes import refuse_changes
from watcher.jobs.room import Room
from watcher.jobs.runner import Runner, RunRules
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.settings import Settings
from watcher.sinks.base import SinkParts
from watcher.sinks.building import build_sink
from watcher.traces import open_tracing

# What the names of those begin with who hold runs: threads of a leader, or workers.
LOCAL_OWNER = "leader of "
WORKER_OWNER = "worker of "


def build_queue(configs: list[WatchConfig], *, database: Database, clock: Clock) -> RunQueue:
    """The queue of runs; from now on the transactions of `database` tell it what became ready."""
    limits = {c.name: c.batch.max_running for c in configs if c.batch.max_running is not None}
    queue = RunQueue(database, clock=clock, most_running=limits)
    queue.attach(database)
    return queue


def build_runner(
    settings: Settings,
    configs: list[WatchConfig],
    *,
    database: Database,
    transport: Transport,
    metrics: Metrics,
    clock: Clock,
    rng: random.Random,
    stop: threading.Event,
    changing: str | None = None,
    owner_start: str = LOCAL_OWNER,
    find_refused: Callable[[], Collection[str]] = frozenset,
    on_failure: Callable[[], None] = lambda: None,
) -> Runner:
    """What claims and runs the steps of the configured watches, under a name of its own.

    Args:
        settings: for limits and places.
        configs: the watches.
        database: the store.
        transport: the API.
        metrics: where runs are counted.
        clock: where time comes from.
        rng: jitter.
        stop: set when the process shuts down.
        changing: a watch whose embedder is about to be changed.
        owner_start: what the name begins with under which runs are held.
        find_refused: names watches of which no run may be taken at present.
        on_failure: called when an attempt failed.

    Raises:
        ConfigError: a model cannot be used.
        EmbedderChangedError: a watch has another embedder than its dataset's vectors.
    """
    embedders = build_embedders(
        configs, work_dir=work_dir(settings), clock=clock, ca_certs=settings.lightly_ca_certs
    )
    refuse_changes(database, embedders, changing=changing)
    parts = JobParts(
        database=database,
        transport=transport,
        configs={config.name: config for config in configs},
        embedders=embedders,
        work_dir=work_dir(settings),
        index_dir=settings.data_dir / "neighbours",
        clock=clock,
        metrics=metrics,
        rng=rng,
        tracing=open_tracing(settings.traces.endpoint),
        file_room=Room(settings.runs.max_bytes_in_flight),
        pixel_room=Room(settings.runs.max_pixels_in_flight),
        on_failure=on_failure,
    )
    rules = settings.runs
    return Runner(
        parts,
        owner=f"{owner_start}{database.name}",
        rules=RunRules(
            lease_s=rules.lease_s,
            time_limit_s=rules.time_limit_s,
            backoff=Backoff(
                base_s=rules.retry_base_s, cap_s=rules.retry_cap_s, max_attempts=rules.max_attempts
            ),
        ),
        stop=stop,
        find_refused=find_refused,
    )


def build_deliverer(
    settings: Settings,
    configs: list[WatchConfig],
    *,
    database: Database,
    transport: Transport,
    metrics: Metrics,
    clock: Clock,
    rng: random.Random,
    stop: threading.Event,
    owner_start: str = LOCAL_OWNER,
    takes: Callable[[SinkConfig], bool] | None = None,
    find_refused: Callable[[], Collection[str]] = frozenset,
    on_failure: Callable[[], None] = lambda: None,
) -> Deliverer:
    """What claims and makes deliveries of the configured watches, under a name of its own; see `Deliverer`."""
    parts = JobParts(
        database=database,
        transport=transport,
        configs={config.name: config for config in configs},
        embedders={},
        work_dir=work_dir(settings),
        clock=clock,
        metrics=metrics,
        rng=rng,
        tracing=open_tracing(settings.traces.endpoint),
        on_failure=on_failure,
    )
    sink_parts = SinkParts(
        data_dir=settings.data_dir,
        work_dir=parts.work_dir,
        clock=clock,
        connect_timeout_s=settings.api.connect_timeout_s,
        ca_certs=settings.lightly_ca_certs,
    )
    return Deliverer(
        parts,
        build_sink=partial(build_sink, parts=sink_parts),
        owner=f"{owner_start}{database.name}",
        limits=DeliveryLimits(
            lease_s=settings.runs.lease_s,
            time_limit_s=settings.runs.time_limit_s,
            retry_base_s=settings.runs.retry_base_s,
        ),
        stop=stop,
        takes=takes,
        find_refused=find_refused,
    )
