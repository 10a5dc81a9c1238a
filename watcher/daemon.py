"""The daemon: starts and stops every part in its order, and polls a watch when the scheduler says so."""

from __future__ import annotations

import random
import secrets
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import PlatformCollector, ProcessCollector

from watcher.attach import attach_watch
from watcher.bootstrap import (
    build_deliverer,
    build_platform_config,
    build_platform_server,
    build_runner,
    build_transport,
    clear_work_dir,
    make_folders,
    open_store,
    work_dir,
)
from watcher.database import Database
from watcher.dispatch.local import LocalDispatcher
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ConfigError, WatcherError
from watcher.domain.models import WatchConfig
from watcher.lightly.transport import RequestSeen, Transport
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.ops.app import build_app
from watcher.ops.collector import StoreCollector
from watcher.ops.control import Control
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.ops.parts import OpsParts
from watcher.poll import Poller, PollReport
from watcher.reconcile import Reconciler
from watcher.scheduler import Scheduler
from watcher.serving import ThreadedServer
from watcher.settings import Settings
from watcher.store import counts, deliveries, polls, reconciles, runs, watches
from watcher.store.cutting import cut_batches, is_batch_due
from watcher.store.lock import StoreLock
from watcher.store.reconciles import ReconcileReport

if TYPE_CHECKING:
    from watcher.platform.server import PlatformServer

_log = get_logger("daemon")

EMBEDDED_SERVER = "embedded"
_SCHEDULER_LIMIT_S = 60.0
_WORKER_LIMIT_S = 900.0
_IDLE_POLLS_KEPT_MS = 7 * 86_400 * 1000
_MAINTENANCE_S = 3600.0
_CUT_S = 2.0
_RECONCILE_CHECK_S = 600.0
_FOLD_S = 300.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the running daemon is reached."""

    http: str
    server: str


class Daemon:
    """The whole daemon. `start` and `stop` belong to one thread; everything else happens in its own."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.configs = settings.build_watch_configs()
        self._clock = clock or SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter
        self._metrics = Metrics()
        self._heartbeats = Heartbeats(self._clock)
        self._access = AccessWatch(self._clock)
        self._stop = threading.Event()
        self._watch_ids: dict[str, int] = {}
        self._database: Database | None = None
        self._lock: StoreLock | None = None
        self._platform: PlatformServer | None = None
        self._transport: Transport | None = None
        self._dispatcher: LocalDispatcher | None = None
        self._deliveries: LocalDispatcher | None = None
        self._scheduler: Scheduler | None = None
        self._http: ThreadedServer | None = None

    def open(self) -> None:
        """Takes the store, starts the embedded platform, and gets ready to poll in the foreground.

        Raises:
            WatcherError: something is missing; whatever was opened before is closed again.
        """
        try:
            self._open()
        except BaseException:
            self.stop()
            raise

    def _open(self) -> None:
        make_folders(self.settings, self.configs)
        database = self._database = open_store(self.settings)
        self._lock = StoreLock(database)
        self._lock.acquire()
        clear_work_dir(self.settings)
        self._metrics.leader.set(1)
        server = self.settings.lightly_server_location
        if self.settings.is_embedded:
            platform_config = build_platform_config(self.settings)
            self._platform = build_platform_server(platform_config, clock=self._clock)
            self._platform.start()
            server, token = self._platform.url, platform_config.token
        else:
            assert self.settings.lightly_token is not None
            token = self.settings.lightly_token.get_secret_value()
        assert server is not None
        self._transport = build_transport(
            self.settings,
            server=server,
            token=token,
            clock=self._clock,
            rng=self._rng,
            observer=self._observe,
            stop=self._stop,
        )
        with database.write() as session:
            n_left = runs.release_all(session, now_ms=self._now_ms())
            n_left += deliveries.release_all(session, now_ms=self._now_ms())
        crash_point("daemon.runs_released")
        if n_left:
            _log.info("runs.taken_up", n=n_left)
        for config in self.configs:
            sinks = [sink.name for sink in config.deliver.sinks]
            self._metrics.init_watch(config.name, steps=config.steps, sinks=sinks)
        parts: Any = {
            "database": database,
            "transport": self._transport,
            "metrics": self._metrics,
            "clock": self._clock,
            "rng": self._rng,
            "stop": self._stop,
        }
        self._dispatcher = LocalDispatcher(
            build_runner(self.settings, self.configs, **parts),
            n_workers=self.settings.runs.workers,
            stop=self._stop,
            beat=self._heartbeats.beat,
            clock=self._clock,
        )
        self._deliveries = LocalDispatcher(
            build_deliverer(self.settings, self.configs, **parts),
            n_workers=self.settings.runs.delivery_workers,
            name="delivery",
            stop=self._stop,
            beat=self._heartbeats.beat,
            clock=self._clock,
        )

    def start(self) -> Addresses:
        """Opens everything and starts polling.

        Returns:
            Where to look.

        Raises:
            WatcherError: as `open`; a port that is taken is named.
        """
        self.open()
        assert self._database is not None
        assert self._transport is not None
        assert self._dispatcher is not None
        assert self._deliveries is not None
        try:
            scheduler = self._scheduler = Scheduler(
                metrics=self._metrics, beat=lambda: self._heartbeats.beat("scheduler")
            )
            for config in self.configs:
                scheduler.add_watch(config, partial(self._poll_unless_paused, config.name))
            scheduler.add_maintenance("polls", interval_s=_MAINTENANCE_S, task=self._forget_idle_polls)
            scheduler.add_maintenance("counts", interval_s=_FOLD_S, task=self._fold_counts)
            scheduler.add_maintenance("batches", interval_s=_CUT_S, task=self._cut_due)
            scheduler.add_maintenance("reconcile", interval_s=_RECONCILE_CHECK_S, task=self._reconcile_due)
            self._register_collectors(self._database)
            control_token = secrets.token_urlsafe(32)
            parts = OpsParts(
                database=self._database,
                transport=self._transport,
                registry=self._metrics.registry,
                heartbeats=self._heartbeats,
                access=self._access,
                clock=self._clock,
                control_token=control_token,
                poll_now=scheduler.poll_now,
                audit_now=self._audit_now,
                next_polls=scheduler.next_polls,
            )
            self._http = ThreadedServer(
                build_app(parts),
                host=self.settings.http.host,
                port=self.settings.http.port,
                name="status page",
                setting="WATCHER_HTTP__PORT",
            )
            self._http.start()
            Control(url=self._http.url, token=control_token).write(self.settings.data_dir)
            self._heartbeats.expect("scheduler", within_s=_SCHEDULER_LIMIT_S)
            for number in range(self.settings.runs.workers):
                self._heartbeats.expect(f"worker-{number}", within_s=_WORKER_LIMIT_S)
            for number in range(self.settings.runs.delivery_workers):
                self._heartbeats.expect(f"delivery-{number}", within_s=_WORKER_LIMIT_S)
            self._dispatcher.start()
            self._deliveries.start()
            scheduler.start()
        except BaseException:
            self.stop()
            raise
        addresses = Addresses(http=self._http.url, server=self._transport.server)
        _log.info("daemon.started", watches=[config.name for config in self.configs], http=addresses.http)
        return addresses

    def poll(self, name: str) -> PollReport:
        """One cycle of one watch, attached to its dataset first if need be.

        Raises:
            WatcherError: see `Poller.run_cycle`.
        """
        config = self._find_config(name)
        assert self._database is not None
        assert self._transport is not None
        outcome = "failed"
        try:
            watch_id = self._attach(config)
            report = Poller(
                database=self._database,
                transport=self._transport,
                config=config,
                watch_id=watch_id,
                clock=self._clock,
                metrics=self._metrics,
                stop=self._stop,
            ).run_cycle()
            outcome = "ok"
        finally:
            self._metrics.polls.labels(watch=name, outcome=outcome).inc()
        log = _log.info if report.n_new or report.resumed else _log.debug
        log(
            "poll.ended",
            watch=name,
            listed=report.n_listed,
            new=report.n_new,
            late=report.n_late,
            batches=report.n_batches,
            mark_s=report.to_s,
            resumed=report.resumed,
            duration_s=round(report.duration_s, 3),
        )
        return report

    def _find_config(self, name: str) -> WatchConfig:
        config = next((config for config in self.configs if config.name == name), None)
        if config is None:
            known = ", ".join(config.name for config in self.configs)
            raise ConfigError(f"there is no watch {name!r}; configured are: {known}")
        return config

    def _attach(self, config: WatchConfig) -> int:
        """The id of the watch's row; the server is asked the first time."""
        assert self._database is not None
        assert self._transport is not None
        if config.name not in self._watch_ids:
            watch = attach_watch(
                self._database,
                self._transport,
                config=config,
                server_identity=self._server_identity(),
                now_ms=self._now_ms(),
            )
            self._watch_ids[config.name] = watch.id
        return self._watch_ids[config.name]

    def _poll_unless_paused(self, name: str) -> None:
        assert self._database is not None
        with self._database.read() as session:
            watch = watches.load_watch(session, name=name)
        if watch is None or watch.paused_ms is None:
            self.poll(name)

    def reconcile(self, name: str) -> ReconcileReport:
        """A full comparison of one watch's datasource, ledger and dataset.

        Raises:
            WatcherError: see `Reconciler.run`.
        """
        assert self._database is not None
        assert self._transport is not None
        config = self._find_config(name)
        return Reconciler(
            database=self._database,
            transport=self._transport,
            config=config,
            watch_id=self._attach(config),
            clock=self._clock,
            metrics=self._metrics,
            work_dir=work_dir(self.settings),
            stop=self._stop,
        ).run()

    def _cut_due(self) -> None:
        """Cuts batches whose time came between two polls: by age, by cron, or of samples that were put off."""
        assert self._database is not None
        for config in self.configs:
            now_ms = self._now_ms()
            with self._database.read() as session:
                watch = watches.load_watch(session, name=config.name)
                due = (
                    watch is not None
                    and watch.paused_ms is None
                    and is_batch_due(session, watch_id=watch.id, config=config, now_ms=now_ms)
                )
            if watch is not None and due:
                with self._database.write() as session:
                    n = cut_batches(session, watch_id=watch.id, config=config, now_ms=now_ms)
                crash_point("daemon.batches_cut")
                _log.info("batches.cut", watch=config.name, n=n)

    def _audit_now(self, name: str) -> bool:
        if self._scheduler is None or name not in {config.name for config in self.configs}:
            return False
        self._scheduler.run_once(f"audit:{name}", partial(self.reconcile, name))
        return True

    def _reconcile_due(self) -> None:
        """Reconciles the watches whose last comparison is older than their interval, one after another."""
        assert self._database is not None
        for config in self.configs:
            with self._database.read() as session:
                watch = watches.load_watch(session, name=config.name)
                last = None if watch is None else reconciles.load_last_report(session, watch_id=watch.id)
            interval_ms = config.poll.reconcile_interval_s * 1000
            if watch is None or watch.mark_s is None or watch.paused_ms is not None or not interval_ms:
                continue
            if last is None or self._now_ms() - last[1].finished_ms >= interval_ms:
                try:
                    self.reconcile(config.name)
                except WatcherError as error:
                    _log.warning("reconcile.failed", watch=config.name, error=str(error))

    @property
    def must_restart(self) -> bool:
        """Whether another file lies in the place of the store: what this daemon remembers belongs to the old one."""
        return self._database is not None and self._database.replaced.is_set()

    def run_ready(self) -> int:
        """Runs in the foreground whatever is ready, then delivers; returns the number of attempts at both."""
        assert self._dispatcher is not None
        assert self._deliveries is not None
        return self._dispatcher.run_until_idle() + self._deliveries.run_until_idle()

    def stop(self) -> bool:
        """Drains and closes everything; harmless where nothing was started.

        Returns:
            False if something was still under way at the end of `WATCHER_DRAIN_TIMEOUT_S`; it goes on at the next
            start.
        """
        begun_s = self._clock.monotonic_s()
        self._stop.set()

        def left_s() -> float:
            return max(0.0, self.settings.drain_timeout_s - (self._clock.monotonic_s() - begun_s))

        drained = True
        if self._scheduler is not None:
            drained &= self._scheduler.stop(timeout_s=left_s())
        for dispatcher in (self._dispatcher, self._deliveries):
            if dispatcher is not None:
                drained &= dispatcher.join(timeout_s=left_s())
        if self._http is not None:
            self._http.stop(timeout_s=5.0)
            Control.remove(self.settings.data_dir)
        if self._transport is not None:
            self._transport.close()
        if self._platform is not None:
            self._platform.stop(timeout_s=max(5.0, left_s()))
        if self._lock is not None:
            self._lock.release()
        if self._database is not None:
            self._database.close()
        return drained

    def _register_collectors(self, database: Database) -> None:
        registry = self._metrics.registry
        registry.register(StoreCollector(database, configured=frozenset(c.name for c in self.configs)))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def _forget_idle_polls(self) -> None:
        assert self._database is not None
        with self._database.write() as session:
            polls.delete_idle_polls(session, before_ms=self._now_ms() - _IDLE_POLLS_KEPT_MS)

    def _fold_counts(self) -> None:
        assert self._database is not None
        with self._database.write() as session:
            counts.fold_counts(session)

    def _observe(self, seen: RequestSeen) -> None:
        self._metrics.observe_request(endpoint=seen.endpoint, code=seen.code, duration_s=seen.duration_s)
        self._access.observe(endpoint=seen.endpoint, code=seen.code)

    def _server_identity(self) -> str:
        """Names the server in the store; the embedded platform is the same one whatever its port."""
        return (
            EMBEDDED_SERVER
            if self._platform is not None
            else (self._transport.server if self._transport else "")
        )

    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)
