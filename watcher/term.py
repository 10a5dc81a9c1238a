"""One term of office: everything that a process does only while it leads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from watcher.bootstrap_jobs import LOCAL_OWNER, JobFactory
from watcher.data_folder import StatementKey, clear_work_dir, work_dir
from watcher.database.engine import Database
from watcher.dispatch.local import LocalDispatcher
from watcher.dispatch.queue import RunQueue
from watcher.domain.clock import Clock
from watcher.domain.crash_points import crash_point
from watcher.domain.models import WatchConfig
from watcher.duties import Duties
from watcher.leadership import FencedDatabase, Leadership
from watcher.lightly.transport import Transport
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.ops.health import Heartbeats
from watcher.presence import compute_digest
from watcher.scheduler import Scheduler
from watcher.settings.root import Settings
from watcher.store import deliveries, processes, runs

_log = get_logger("daemon")

EMBEDDED_SERVER = "embedded"
SCHEDULER_LIMIT_S = 60.0
_MAINTENANCE_S = 3600.0
_LOOK_S = 2.0
_RECONCILE_CHECK_S = 600.0
_FOLD_S = 300.0
_SOURCES_CHECK_S = 60.0
_SHORTEST_S = 1.0


class Term:
    """Made when the lead was taken; `start` polls and works, `end` stops all of it."""

    def __init__(
        self,
        settings: Settings,
        configs: list[WatchConfig],
        *,
        store: Database,
        leadership: Leadership,
        transport: Transport,
        metrics: Metrics,
        heartbeats: Heartbeats,
        queue: RunQueue | None,
        statement_key: StatementKey,
        clock: Clock,
        rng: random.Random,
        changing: str | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes over what an earlier leader left; afterwards polls and runs can be made in the foreground.

        Raises:
            FencedError: another process leads already.
            WatcherError: the store failed, or an embedder cannot be used.
        """
        self._settings = settings
        self._configs = configs
        self._database = FencedDatabase(store, leadership)
        self._heartbeats = heartbeats
        self._metrics = metrics
        self._queue = queue
        self._clock = clock
        self._ended = threading.Event()
        self.scheduler: Scheduler | None = None
        self._take_over()
        statement_key.load()
        if statement_key.local_path is not None and not store.is_sqlite:
            _log.warning(
                "statement.key_is_local",
                path=str(statement_key.local_path),
                setting="WATCHER_STATEMENT__KEY",
            )
        self.duties = Duties(
            database=self._database,
            transport=transport,
            configs=configs,
            clock=clock,
            metrics=metrics,
            work_dir=work_dir(settings),
            # The embedded platform is the same one whatever its port.
            server_identity=EMBEDDED_SERVER if settings.is_embedded else transport.server,
            stop=self._ended,
            statement_key=statement_key.load,
            watching=partial(heartbeats.watching, within_s=settings.health.poll_limit_s),
        )
        jobs = JobFactory(
            settings=settings,
            configs=configs,
            # Runs and deliveries are held by leases of their own.
            database=store,
            transport=transport,
            metrics=metrics,
            clock=clock,
            rng=rng,
            stop=self._ended,
            on_failure=on_failure,
        )
        rules = settings.runs
        self._runner = jobs.build_runner(changing=changing)
        self._deliverer = jobs.build_deliverer()
        self._runs = self._build_dispatcher(self._runner, n_workers=rules.workers, name="worker")
        self._deliveries = self._build_dispatcher(
            self._deliverer, n_workers=rules.delivery_workers, name="delivery"
        )
        metrics.leader.set(1)

    def _build_dispatcher(self, work: Any, *, n_workers: int, name: str) -> LocalDispatcher:
        return LocalDispatcher(
            work,
            n_workers=n_workers,
            name=name,
            stop=self._ended,
            beat=self._heartbeats.beat,
            clock=self._clock,
        )

    def _take_over(self) -> None:
        now_ms = int(self._clock.now_s() * 1000)
        # Beside Postgres workers, replicas and a leader of before may be at work there too.
        clear_work_dir(self._settings, alone=self._database.is_sqlite)
        # Those of an earlier leader; workers on other machines keep theirs.
        owner = None if self._database.is_sqlite else LOCAL_OWNER
        with self._database.write() as session:
            n_left = runs.release_all(session, now_ms=now_ms, owner_start=owner)
            n_left += deliveries.release_all(session, now_ms=now_ms, owner_start=owner)
            # Those who understand a watch otherwise take no run of it.
            processes.record_configurations(
                session,
                digests={config.name: compute_digest(config) for config in self._configs},
                now_ms=now_ms,
            )
        crash_point("daemon.runs_released")
        if n_left:
            _log.info("runs.taken_up", n=n_left)

    def start(self) -> None:
        """Polls on schedule, and works on what is ready unless workers do."""
        scheduler = self.scheduler = Scheduler(
            metrics=self._metrics, beat=lambda: self._heartbeats.beat("scheduler")
        )
        duties = self.duties
        for config in self._configs:
            scheduler.add_watch(config, partial(duties.poll_unless_paused, config.name))
        scheduler.add_maintenance("polls", interval_s=_MAINTENANCE_S, task=duties.forget_idle_polls)
        scheduler.add_maintenance("counts", interval_s=_FOLD_S, task=duties.fold_counts)
        scheduler.add_maintenance("batches", interval_s=_LOOK_S, task=self._look)
        scheduler.add_maintenance("reconcile", interval_s=_RECONCILE_CHECK_S, task=duties.reconcile_due)
        looks_s = [_SOURCES_CHECK_S, *(config.poll.source_check_interval_s for config in self._configs)]
        scheduler.add_maintenance(
            "sources",
            interval_s=max(_SHORTEST_S, min(filter(None, looks_s))),
            task=duties.check_sources_due,
        )
        self._heartbeats.expect("scheduler", within_s=SCHEDULER_LIMIT_S)
        if self._queue is None:
            for number in range(self._settings.runs.workers):
                self._heartbeats.expect(f"worker-{number}", within_s=self._settings.health.run_limit_s)
            self._runs.start()
        else:
            sweep_s = self._settings.worker.sweep_s
            scheduler.add_maintenance("queue", interval_s=sweep_s, task=self._queue.sweep)
        for number in range(self._settings.runs.delivery_workers):
            self._heartbeats.expect(f"delivery-{number}", within_s=self._settings.health.run_limit_s)
        self._deliveries.start()
        scheduler.start()

    def _look(self) -> None:
        self._take_up_requests()
        self.duties.cut_due()

    def _take_up_requests(self) -> None:
        if self.scheduler is not None:
            self.duties.take_up_requests(poll=self.scheduler.poll_now, audit=self._audit_now)

    def _audit_now(self, name: str) -> None:
        if self.scheduler is not None:
            self.scheduler.run_once(f"audit:{name}", partial(self.duties.reconcile, name))

    def look_for_requests(self) -> None:
        """Takes up now what a person asked for, instead of within two seconds."""
        if self.scheduler is not None:
            self.scheduler.run_once("requests", self._take_up_requests)

    def replace_secrets(self, configs: list[WatchConfig]) -> None:
        """Takes up the secrets of sinks and embedders; all else of the watches is as it was."""
        self._runner.replace_secrets(configs)
        self._deliverer.replace_secrets(configs)

    def run_ready(self) -> int:
        """Runs in the foreground whatever is ready, then delivers; returns the number of attempts at both."""
        return self._runs.run_until_idle() + self._deliveries.run_until_idle()

    def end(self, *, left_s: Callable[[], float]) -> bool:
        """Stops all of it; False if something was still under way when the time was over."""
        self._ended.set()
        self._metrics.leader.set(0)
        drained = True
        if self.scheduler is not None:
            drained &= self.scheduler.stop(timeout_s=left_s())
            self._heartbeats.forget("scheduler")
        drained &= self._runs.join(timeout_s=left_s())
        drained &= self._deliveries.join(timeout_s=left_s())
        rules = self._settings.runs
        for name, n_workers in (("worker", rules.workers), ("delivery", rules.delivery_workers)):
            for number in range(n_workers):
                self._heartbeats.forget(f"{name}-{number}")
        return drained
