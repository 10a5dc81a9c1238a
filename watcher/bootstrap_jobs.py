"""Settings -> what claims and runs the steps and the deliveries of the watches."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from watcher.data_folder import work_dir
from watcher.database.engine import Database
from watcher.dispatch.queue import RunQueue
from watcher.domain.backoff import Backoff
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.delivery import SinkConfig
from watcher.domain.errors import ConfigError, EmbedderUnavailableError, ScoresError
from watcher.domain.models import Step, WatchConfig
from watcher.domain.step_rules import EmbedderKind
from watcher.embedders.base import Embedder
from watcher.embedders.choosing import build_embedder, build_embedders
from watcher.jobs.context import JobParts
from watcher.jobs.deliveries import Deliverer, DeliveryLimits
from watcher.jobs.embedder_changes import refuse_changes
from watcher.jobs.room import Room
from watcher.jobs.runner import Runner, RunRules
from watcher.jobs.score_sources import check_score_file
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.settings.faults import Faults
from watcher.settings.root import Settings
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


def check_files(settings: Settings, configs: list[WatchConfig]) -> None:
    """Opens what the watches name beside their settings: models, and files of scores.

    `run` refuses a model that this refuses. It starts without a file of scores, which may come later and is read anew
    at each sampling; until then the sampling of the watch waits.

    Raises:
        ConfigError: all that cannot be used, a line each.
    """
    faults = Faults()
    for config in configs:
        own = Faults(f"watch {config.name!r}: ")
        own.gather(partial(_open_model, settings, config), None)
        own.gather(partial(_open_scores, config), None)
        faults.texts += own.texts
    faults.refuse()


def _open_model(settings: Settings, config: WatchConfig) -> None:
    if Step.EMBED not in config.steps or config.embed.kind is not EmbedderKind.ONNX:
        return
    try:
        build_embedder(config, work_dir=work_dir(settings), clock=SystemClock())
    except EmbedderUnavailableError as error:
        raise ConfigError(str(error)) from error


def _open_scores(config: WatchConfig) -> None:
    file = config.sampling.scores.file
    if Step.SAMPLING not in config.steps or file is None:
        return
    try:
        check_score_file(Path(file))
    except ScoresError as error:
        raise ConfigError(
            f"sampling.scores.file: {error}; `watcher run` starts without it, but each sampling waits for it: make it, "
            "or name another one"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFactory:
    """What builds those who claim and run the steps, and make the deliveries, of the configured watches.

    Attributes:
        settings: for limits and places.
        configs: the watches.
        database: the store.
        transport: the API.
        metrics: where runs are counted.
        clock: where time comes from.
        rng: jitter.
        stop: set when the process shuts down.
        owner_start: what the names begin with under which runs and deliveries are held.
        find_refused: names watches of which nothing may be taken at present.
        on_failure: called when an attempt failed.
    """

    settings: Settings
    configs: list[WatchConfig]
    database: Database
    transport: Transport
    metrics: Metrics
    clock: Clock
    rng: random.Random
    stop: threading.Event
    owner_start: str = LOCAL_OWNER
    find_refused: Callable[[], Collection[str]] = frozenset
    on_failure: Callable[[], None] = lambda: None

    def build_runner(self, *, changing: str | None = None) -> Runner:
        """What claims and runs the steps, under a name of its own.

        Args:
            changing: a watch whose embedder is about to be changed.

        Raises:
            ConfigError: a model cannot be used.
            EmbedderChangedError: a watch has another embedder than its dataset's vectors.
        """
        embedders = build_embedders(
            self.configs,
            work_dir=work_dir(self.settings),
            clock=self.clock,
            ca_certs=self.settings.lightly_ca_certs,
        )
        refuse_changes(self.database, embedders, changing=changing)
        rules = self.settings.runs
        return Runner(
            self._build_parts(embedders),
            owner=self._owner,
            rules=RunRules(
                lease_s=rules.lease_s,
                time_limit_s=rules.time_limit_s,
                backoff=Backoff(
                    base_s=rules.retry_base_s, cap_s=rules.retry_cap_s, max_attempts=rules.max_attempts
                ),
            ),
            stop=self.stop,
            find_refused=self.find_refused,
        )

    def build_deliverer(self, *, takes: Callable[[SinkConfig], bool] | None = None) -> Deliverer:
        """What claims and makes deliveries, under a name of its own; `takes` as in `Deliverer`."""
        parts = self._build_parts({})
        sink_parts = SinkParts(
            data_dir=self.settings.data_dir,
            work_dir=parts.work_dir,
            clock=self.clock,
            connect_timeout_s=self.settings.api.connect_timeout_s,
            ca_certs=self.settings.lightly_ca_certs,
        )
        rules = self.settings.runs
        return Deliverer(
            parts,
            build_sink=partial(build_sink, parts=sink_parts),
            owner=self._owner,
            limits=DeliveryLimits(
                lease_s=rules.lease_s, time_limit_s=rules.time_limit_s, retry_base_s=rules.retry_base_s
            ),
            stop=self.stop,
            takes=takes,
            find_refused=self.find_refused,
        )

    @property
    def _owner(self) -> str:
        return f"{self.owner_start}{self.database.name}"

    def _build_parts(self, embedders: Mapping[str, Embedder]) -> JobParts:
        return JobParts(
            database=self.database,
            transport=self.transport,
            configs={config.name: config for config in self.configs},
            embedders=embedders,
            work_dir=work_dir(self.settings),
            index_dir=self.settings.data_dir / "neighbours",
            clock=self.clock,
            metrics=self.metrics,
            rng=self.rng,
            tracing=open_tracing(self.settings.traces.endpoint),
            file_room=Room(self.settings.runs.max_bytes_in_flight),
            pixel_room=Room(self.settings.runs.max_pixels_in_flight),
            on_failure=self.on_failure,
        )
