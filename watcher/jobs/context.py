"""What a step is given."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.delivery import Delivery
from watcher.domain.errors import CancelledError, ConfigError, DeadlineExceededError
from watcher.domain.models import Batch, Run, Watch, WatchConfig
from watcher.embedders.base import Embedder
from watcher.jobs.room import Room
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.traces import NO_TRACING, RequestTracer, Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParts:
    """What all runs of a daemon share.

    Attributes:
        configs: the watches by name; one is replaced when its secrets change.
        embedders: by the name of the watch; only of watches with the step `embed`.
        work_dir: for temporary files; on the same disk as the data.
        index_dir: for indexes of vectors, which are made anew when they are gone; None keeps none.
        file_room: bytes of files in work at once.
        pixel_room: pixels decoded at once; each takes 4 to 8 bytes.
        on_failure: called when an attempt failed, for a secret may have changed; must be quick.
    """

    database: Database
    transport: Transport
    configs: dict[str, WatchConfig]
    embedders: Mapping[str, Embedder]
    work_dir: Path
    clock: Clock
    metrics: Metrics
    rng: random.Random
    index_dir: Path | None = None
    tracing: Tracing = NO_TRACING
    file_room: Room = field(default_factory=lambda: Room(64_000_000))
    pixel_room: Room = field(default_factory=lambda: Room(24_000_000))
    on_failure: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkContext:
    """One attempt at something of a batch.

    Attributes:
        stop: set when the daemon shuts down or the lease was lost.
        deadline_s: monotonic time after which the attempt must end.
        beat: tells the health check that the attempt moves.
        is_lost: whether the lease may have run out, as after the process was frozen.
    """

    parts: JobParts
    config: WatchConfig
    watch: Watch
    batch: Batch
    stop: threading.Event
    deadline_s: float
    beat: Callable[[], None]
    is_lost: Callable[[], bool] = lambda: False

    def traced_by(self, tracer: RequestTracer | None) -> Self:
        """The same attempt, whose requests become spans of `tracer`."""
        if tracer is None:
            return self
        parts = replace(self.parts, transport=self.parts.transport.traced_by(tracer))
        return replace(self, parts=parts)

    @property
    def database(self) -> Database:
        """The store."""
        return self.parts.database

    @property
    def transport(self) -> Transport:
        """The API."""
        return self.parts.transport

    @property
    def embedder(self) -> Embedder:
        """The embedder of the watch.

        Raises:
            ConfigError: the watch has none, since its settings leave out the step `embed`.
        """
        embedder = self.parts.embedders.get(self.watch.name)
        if embedder is None:
            raise ConfigError(
                f"the watch {self.watch.name!r} has no embedder any more, but this batch was cut while it had: add "
                f"embed to WATCHER_WATCHES__{self.watch.name.upper()}__STEPS until the batch is through"
            )
        return embedder

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int(self.parts.clock.now_s() * 1000)

    def check(self) -> None:
        """Called between two pieces of work.

        Raises:
            CancelledError: the daemon shuts down; the run goes on where it was.
            DeadlineExceededError: the attempt took too long.
        """
        self.beat()
        if self.parts.clock.monotonic_s() > self.deadline_s:
            raise DeadlineExceededError(
                "the run took longer than WATCHER_RUNS__TIME_LIMIT_S; it goes on where it was"
            )
        if self.is_lost():
            raise CancelledError("the lease ran out before it could be extended: another may be at work")
        if self.stop.is_set():
            raise CancelledError("interrupted by a shutdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(WorkContext):
    """One attempt of one run."""

    run: Run

    @property
    def first_sample_id(self) -> int:
        """Where the run's samples begin: those of its shard, or all of the batch."""
        return self.run.first_sample_id or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryContext(WorkContext):
    """One attempt of one delivery."""

    delivery: Delivery
