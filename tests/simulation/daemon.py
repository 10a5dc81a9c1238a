"""One life of a daemon in the simulated world: the real poller, reconciler and runner, wired as `Daemon` wires them."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

from tests.simulation.loop import Loop, Process, SimClock
from tests.simulation.network import Network
from tests.simulation.profile import Profile
from tests.simulation.server import API, TOKEN
from tests.simulation.stand_ins import SimDatabase, open_engine
from watcher.attach import attach_watch
from watcher.bootstrap_jobs import JobFactory
from watcher.database.engine import Database
from watcher.dispatch.local import Work
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import StoreLockedError, WatcherError
from watcher.domain.models import WatchConfig
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.poll import Poller
from watcher.reconcile import Reconciler
from watcher.settings.groups import RunSettings
from watcher.settings.root import Settings
from watcher.store import deliveries, runs, watches
from watcher.store.lock import FileLock


class Daemon:
    """Built, started, and then left to the loop; dies with its process."""

    def __init__(
        self,
        loop: Loop,
        profile: Profile,
        network: Network,
        *,
        number: int,
        folder: Path,
        store_url: str,
        metrics: Metrics,
        clock_offset_s: float,
        note: Callable[[str], None],
        store_fails: Callable[[], str],
        idle_s: Callable[[], float],
    ) -> None:
        self.process = Process(f"daemon {number}", clock_offset_s=clock_offset_s)
        self.stop = threading.Event()
        # Until the end of a term of office, which here lasts as long as the process.
        self.term_stop = self.stop
        self.n_tasks = 0
        self.watch_ids: dict[str, int] = {}
        self.reconciles = profile.reconciles
        self.errors: list[str] = []
        self._loop = loop
        self._profile = profile
        self._folder = folder
        self._metrics = metrics
        self._note = note
        self._idle_s = idle_s
        self._rng = random.Random(f"{profile.seed} {self.process.name}")
        self.clock = SimClock(loop, self.process, profile.epoch_s)
        self._engine = open_engine(store_url, pool_size=20)
        self.database: Database = SimDatabase(self._engine, loop, self.process, store_fails)
        # What a leader alone may write.
        self.fenced = self.database
        self._lock = FileLock(self.database)
        # Over Postgres too, where a real daemon has a lease instead; a name there is no file.
        self._lock._path = folder / "store.lock"
        self.transport = Transport(
            server=API,
            token=TOKEN,
            clock=self.clock,
            rng=self._rng,
            stop=self.stop,
        )
        network.attach(self.transport, self.process)

    def start(self) -> None:
        """Takes the store and starts the tasks.

        Raises:
            StoreLockedError: another one has it.
        """
        try:
            self._lock.acquire()
        except StoreLockedError:
            self._engine.dispose()
            raise
        self._spawn("main", self._main)

    @property
    def leads(self) -> bool:
        """Whether it polls."""
        return not self.process.dead

    def shut_down(self) -> None:
        """SIGTERM: what is under way is drained."""
        self.stop.set()

    @property
    def is_down(self) -> bool:
        """Whether nothing of it runs any more."""
        return not self.n_tasks

    def _main(self) -> None:
        for left in (self._folder / "work").iterdir():
            left.unlink() if left.is_file() else _remove(left)
        while True:
            try:
                with self.database.write() as session:
                    runs.release_all(session, now_ms=self._now_ms())
                    deliveries.release_all(session, now_ms=self._now_ms())
                break
            except WatcherError as error:
                self._note(f"not opened: {error}")
                self._loop.sleep(5.0)
        crash_point("daemon.runs_released")
        while True:
            try:
                jobs = self._build_jobs()
                runner, deliverer = jobs.build_runner(), jobs.build_deliverer()
                break
            except WatcherError as error:  # building reads the store; a real daemon tries again as well
                self._note(f"not built: {error}")
                self._loop.sleep(5.0)
        self._spawn_all(runner, deliverer)

    def _spawn_all(self, runner: Work, deliverer: Work) -> None:
        """The tasks of a term of office."""
        for number in range(self._profile.n_workers):
            self._spawn(f"worker {number}", lambda number=number: self._work(runner, f"worker {number}"))
        self._spawn("delivery 0", lambda: self._work(deliverer, "delivery 0"))
        for config in self._profile.configs:
            self._spawn(f"poll {config.name}", lambda config=config: self._poll_for_ever(config))

    def _build_jobs(self) -> JobFactory:
        runs_settings = RunSettings(
            lease_s=30, time_limit_s=900, retry_base_s=1, retry_cap_s=60, max_attempts=40
        )
        return JobFactory(
            settings=Settings(data_dir=self._folder, runs=runs_settings),
            configs=self._profile.configs,
            database=self.database,
            transport=self.transport,
            metrics=self._metrics,
            clock=self.clock,
            rng=self._rng,
            stop=self.term_stop,
        )

    def _spawn(self, name: str, target: Callable[[], object]) -> None:
        def counted() -> None:
            try:
                target()
            finally:
                self.n_tasks -= 1

        self.n_tasks += 1
        self._loop.spawn(self.process, f"{self.process.name} {name}", counted)

    def _work(self, runner: Work, name: str) -> None:
        """As `LocalDispatcher`, only that it is idle for longer."""
        stop = self.term_stop
        while not stop.is_set():
            wait_s = 0.0
            try:
                if not runner.run_next(beat=lambda: None):
                    wait_s = self._idle_s()
            except WatcherError as error:
                self._note(f"{name}: {error}")
                wait_s = 5.0
            if wait_s:
                self._loop.sleep(wait_s, stop)

    def _poll_for_ever(self, config: WatchConfig) -> None:
        n_polls, stop = 0, self.term_stop
        while not stop.is_set():
            try:
                self.poll(config)
                n_polls += 1
                if n_polls % 5 == 4 and self.reconciles:
                    self.reconcile(config)
            except WatcherError as error:
                self._note(f"poll {config.name}: {type(error).__name__}: {error}")
            self._loop.sleep(self._profile.interval_s * self._rng.uniform(0.8, 1.2), stop)

    def poll(self, config: WatchConfig) -> None:
        """One cycle, unless the watch is paused."""
        with self.database.read() as session:
            watch = watches.load_watch(session, name=config.name)
        if watch is not None and watch.paused_ms is not None:
            return
        report = Poller(
            database=self.fenced,
            transport=self.transport,
            config=config,
            watch_id=self._attach(config),
            clock=self.clock,
            metrics=self._metrics,
            stop=self.term_stop,
        ).run_cycle()
        self._note(f"polled {config.name}: {report}")

    def reconcile(self, config: WatchConfig) -> None:
        report = Reconciler(
            database=self.fenced,
            transport=self.transport,
            config=config,
            watch_id=self._attach(config),
            clock=self.clock,
            metrics=self._metrics,
            work_dir=self._folder / "work",
            stop=self.term_stop,
        ).run()
        self._note(f"reconciled {config.name}: missing {report.missing}, unexplained {report.n_unexplained}")

    def _attach(self, config: WatchConfig) -> int:
        """The id of the watch's row; the server is asked once a term of office, as by `Duties`."""
        if config.name not in self.watch_ids:
            self.watch_ids[config.name] = attach_watch(
                self.fenced, self.transport, config=config, server_identity="sim", now_ms=self._now_ms()
            ).id
        return self.watch_ids[config.name]

    def drop(self) -> None:
        """What the operating system does for the dead: the lock is free, the connections are closed."""
        self._loop.kill(self.process)
        self._lock.release()
        self._engine.dispose()

    def _now_ms(self) -> int:
        return int(self.clock.now_s() * 1000)


def _remove(folder: Path) -> None:
    for inner in folder.iterdir():
        with contextlib.suppress(OSError):
            inner.unlink()
    folder.rmdir()
