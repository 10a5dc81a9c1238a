"""`watcher worker`: takes runs on any machine; needs Postgres and the server, and no leader."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict

from watcher.bootstrap import build_transport, open_store
from watcher.bootstrap_jobs import WORKER_OWNER, JobFactory, build_queue
from watcher.data_folder import clear_work_dir, make_folders
from watcher.database.engine import Database
from watcher.dispatch.local import LocalDispatcher
from watcher.dispatch.queue import RunQueue
from watcher.dispatch.queue_worker import QueueWorker
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import ConfigError, WatcherError
from watcher.domain.models import Step
from watcher.jobs.deliveries import Deliverer
from watcher.jobs.runner import Runner
from watcher.lightly.transport import RequestSeen, Transport
from watcher.lightly.versions import fetch_minimum_version
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.ops.app import build_app
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.ops.parts import OpsParts
from watcher.ops.publish import publish_states
from watcher.ops.tokens import ControlTokens
from watcher.presence import Presence
from watcher.rotation import Rotation
from watcher.serving import ThreadedServer
from watcher.settings.root import Settings
from watcher.site import read_tls
from watcher.traces import open_tracing

_log = get_logger("worker")

_LOOP_LIMIT_S = 60.0
_SPARE_CONNECTIONS = 4


class _Permitted:
    """Deliveries, while this process may take any."""

    def __init__(self, deliverer: Deliverer, presence: Presence) -> None:
        self._deliverer = deliverer
        self._presence = presence

    def run_next(self, *, beat: Callable[[], None]) -> bool:
        return self._presence.problem is None and self._deliverer.run_next(beat=beat)


class Worker:
    """A worker process. `start` and `stop` belong to one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        steps: Collection[Step],
        concurrency: int,
        clock: Clock | None = None,
    ) -> None:
        """Checks the settings.

        Raises:
            ConfigError: the store is no Postgres, the platform is embedded, or the watches contradict each other.
        """
        if settings.is_embedded:
            raise ConfigError(
                "a worker needs a server that all machines reach: set LIGHTLY_TOKEN and LIGHTLY_SERVER_LOCATION, for "
                "example of a `watcher platform`"
            )
        if settings.dispatch != "procrastinate":
            raise ConfigError(
                "a worker takes its runs from the queue: set WATCHER_DISPATCH=procrastinate here and for `watcher run`"
            )
        self.settings = settings
        self.configs = settings.build_watch_configs()
        self._steps = tuple(steps)
        self._concurrency = concurrency
        self._clock = clock or SystemClock()
        self._metrics = Metrics(can_lead=False)
        self._heartbeats = Heartbeats(self._clock)
        self._access = AccessWatch(self._clock)
        self._stop = threading.Event()
        self._interrupt = threading.Event()
        self._rotation = Rotation(settings)
        self._database: Database | None = None
        self._transport: Transport | None = None
        self._queue: RunQueue | None = None
        self._runner: Runner | None = None
        self._deliverer: Deliverer | None = None
        self._deliveries: LocalDispatcher | None = None
        self._presence: Presence | None = None
        self._http: ThreadedServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Opens everything and starts to work.

        Returns:
            Where its health and metrics are.

        Raises:
            WatcherError: something is missing or does not fit; whatever was opened before is closed again.
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> str:
        settings = self.settings
        make_folders(settings, [])
        clear_work_dir(settings, alone=False)
        n_at_work = self._concurrency + (settings.runs.delivery_workers if Step.DELIVER in self._steps else 0)
        database = self._database = open_store(settings, n_connections=n_at_work + _SPARE_CONNECTIONS)
        assert settings.lightly_token is not None
        assert settings.lightly_server_location is not None
        rng = random.Random()  # noqa: S311 - jitter
        transport = self._transport = build_transport(
            settings,
            server=settings.lightly_server_location,
            token=settings.lightly_token.get_secret_value(),
            clock=self._clock,
            rng=rng,
            observer=self._observe,
            stop=self._interrupt,
            database=database,
        )
        for config in self.configs:
            sinks = [sink.name for sink in config.deliver.sinks]
            self._metrics.init_watch(config.name, steps=config.steps, sinks=sinks)
        queue = self._queue = build_queue(self.configs, database=database, clock=self._clock)
        presence = self._presence = Presence(
            database,
            kind="worker",
            configs=self.configs,
            clock=self._clock,
            stop=self._interrupt,
            heartbeats=self._heartbeats,
            work_version=settings.work_version,
        )
        jobs = JobFactory(
            settings=settings,
            configs=self.configs,
            database=database,
            transport=transport,
            metrics=self._metrics,
            clock=self._clock,
            rng=rng,
            stop=self._interrupt,
            owner_start=WORKER_OWNER,
            find_refused=lambda: presence.refused,
            on_failure=self._rotation.wake,
        )
        self._runner = jobs.build_runner()
        if Step.DELIVER in self._steps:
            # The folders of the data directory are the leader's: here is another disk.
            deliverer = self._deliverer = jobs.build_deliverer(takes=lambda sink: not sink.is_folder)
            self._deliveries = self._build_deliveries(deliverer, presence)
        self._http = self._build_http(database, transport)
        self._http.start()
        self._follow_secrets(transport, database, self._http)
        presence.start()
        for loop in ("presence", "worker"):
            self._heartbeats.expect(loop, within_s=_LOOP_LIMIT_S)
        worker = QueueWorker(
            database,
            queue,
            take=self._take,
            steps=self._steps,
            concurrency=self._concurrency,
            find_problem=lambda: presence.problem,
            sweep_every_s=settings.worker.sweep_s,
            stalled_after_s=settings.runs.lease_s,
            stop=self._stop,
            beat=lambda: self._heartbeats.beat("worker"),
            clock=self._clock,
        )
        self._thread = threading.Thread(target=worker.run, name="worker", daemon=True)
        self._thread.start()
        if self._deliveries is not None:
            for number in range(settings.runs.delivery_workers):
                self._heartbeats.expect(f"delivery-{number}", within_s=settings.health.run_limit_s)
            self._deliveries.start()
        self._ask_server(transport)
        _log.info("worker.started", name=database.name, steps=self._steps, concurrency=self._concurrency)
        return self._http.url

    def _build_deliveries(self, deliverer: Deliverer, presence: Presence) -> LocalDispatcher:
        settings = self.settings
        return LocalDispatcher(
            _Permitted(deliverer, presence),
            n_workers=settings.runs.delivery_workers,
            name="delivery",
            stop=self._stop,
            beat=self._heartbeats.beat,
            clock=self._clock,
            idle_wait_s=settings.worker.sweep_s,
        )

    def _follow_secrets(self, transport: Transport, database: Database, http: ThreadedServer) -> None:
        """Takes up secrets in files that change while this process runs, as the daemon does."""
        rotation = self._rotation
        rotation.follow_access(transport, database)
        rotation.follow_watches(self._take_watch_secrets)
        rotation.follow_tls(read_tls(self.settings), lambda _path: http.reload_tls())
        rotation.start(self._stop)

    def _take_watch_secrets(self) -> None:
        configs = self.settings.reload().build_watch_configs()
        for work in (self._runner, self._deliverer):
            if work is not None:
                work.replace_secrets(configs)

    def _build_http(self, database: Database, transport: Transport) -> ThreadedServer:
        publish_states(
            self._metrics,
            database=database,
            access=self._access,
            heartbeats=self._heartbeats,
            clock=self._clock,
            data_dir=self.settings.data_dir,
            is_published=lambda: False,  # what is in the store is told by the leader
        )
        parts = OpsParts(
            database=database,
            transport=transport,
            registry=self._metrics.registry,
            heartbeats=self._heartbeats,
            access=self._access,
            clock=self._clock,
            tokens=ControlTokens(local=secrets.token_urlsafe(32)),
            look_for_requests=lambda: None,
            next_polls=dict,
            role=lambda: "worker",
        )
        return ThreadedServer(
            build_app(parts, control=False),
            host=self.settings.http.host,
            port=self.settings.worker.port,
            name="worker's health and metrics",
            setting="WATCHER_WORKER__PORT",
            tls=read_tls(self.settings),
        )

    def _take(self, run_id: int, step: Step) -> None:
        assert self._runner is not None
        assert self._queue is not None
        if not self._runner.run_next(beat=lambda: self._heartbeats.beat("worker"), steps=(step,)):
            self._queue.return_hint(run_id)
        elif step is Step.DELIVER and self._deliveries is not None:
            self._deliveries.nudge()

    def _ask_server(self, transport: Transport) -> None:
        """So that it is ready, or tells why not, before the first run."""
        try:
            fetch_minimum_version(transport)
        except WatcherError as error:
            _log.warning("server.not_asked", reason=str(error))

    def stop(self) -> bool:
        """Takes no more runs, lets those in work end, interrupts them at the limit; harmless if it was not started.

        Returns:
            False if something was still under way; it goes on elsewhere when its lease ran out.
        """
        self._stop.set()
        self._rotation.wake()
        limit_s = self.settings.drain_timeout_s
        # Most of the time for the work to end by itself, the rest for the others to come to a stop.
        drained = self._join(limit_s=limit_s * 0.8)
        self._interrupt.set()
        drained = drained or self._join(limit_s=max(2.0, limit_s * 0.2))
        if self._presence is not None:
            self._presence.join(timeout_s=2.0)
        if self._http is not None:
            self._http.stop(timeout_s=5.0)
        if self._transport is not None:
            self._transport.close()
        open_tracing(self.settings.traces.endpoint).close()
        if self._database is not None:
            self._database.close()
        return drained

    def _join(self, *, limit_s: float) -> bool:
        """Waits for what is in work; False if something still is at the limit."""
        ends_s = self._clock.monotonic_s() + limit_s
        if self._thread is not None:
            self._thread.join(timeout=limit_s)
            if self._thread.is_alive():
                return False
        left_s = max(0.0, ends_s - self._clock.monotonic_s())
        return self._deliveries is None or self._deliveries.join(timeout_s=left_s)

    def _observe(self, seen: RequestSeen) -> None:
        self._metrics.observe_request(**asdict(seen))
        self._access.observe(endpoint=seen.endpoint, code=seen.code)
        if seen.code == "401":
            self._rotation.check()
