"""One life of a replica in the simulated world: leads by a lease while it can, as `Daemon` and `Term` do on Postgres."""

from __future__ import annotations

import threading
from typing import Any

from tests.simulation.daemon import Daemon
from watcher.bootstrap_jobs import LOCAL_OWNER
from watcher.domain.crash_points import crash_point
from watcher.leadership import FencedDatabase, Leadership
from watcher.standby import Standby
from watcher.store import deliveries, runs
from watcher.work_folders import clear_abandoned

LEASE_S = 15.0
_DRAIN_S = 25.0


class Replica(Daemon):
    """Its store is shared with others; nothing but the lease says who leads."""

    def __init__(self, *args: Any, **parts: Any) -> None:
        super().__init__(*args, **parts)
        self._leadership = Leadership(self.database, lease_s=LEASE_S, clock=self.clock, metrics=self._metrics)
        # Over SQLite too the lease decides here, as it does on Postgres.
        self._leadership._file_lock = None
        self.fenced = FencedDatabase(self.database, self._leadership)
        self._standby = Standby(
            self._leadership,
            begin=self._begin_term,
            end=self._end_term,
            idle=lambda: None,
            ask_every_s=LEASE_S / 4,
            stop=self.stop,
            beat=lambda: None,
            clock=self.clock,
        )
        self._in_office = self._is_down = False

    @property
    def leads(self) -> bool:
        """Whether it polls, as far as it knows."""
        return self._in_office and not self.process.dead

    def start(self) -> None:
        """Follows until the lead is free."""
        # A thread belongs to the process that starts it.
        self._loop.spawn(self.process, f"{self.process.name} start", lambda: self._standby.start(leads=False))

    def shut_down(self) -> None:
        """SIGTERM: what is under way is drained, and the lead is given back."""
        self._loop.spawn(self.process, f"{self.process.name} stop", self._shut_down)

    @property
    def is_down(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._is_down

    def _shut_down(self) -> None:
        self.stop.set()
        self._standby.join(timeout_s=_DRAIN_S)
        self._end_term()
        self._leadership.release()
        self._is_down = True

    def _begin_term(self) -> None:
        self.term_stop = threading.Event()
        self.watch_ids.clear()
        clear_abandoned(self._folder / "work")
        with self.fenced.write() as session:
            runs.release_all(session, now_ms=self._now_ms(), owner_start=LOCAL_OWNER)
            deliveries.release_all(session, now_ms=self._now_ms(), owner_start=LOCAL_OWNER)
        crash_point("daemon.runs_released")
        jobs = self._build_jobs()
        self._spawn_all(jobs.build_runner(), jobs.build_deliverer())
        self._in_office = True
        self._note(f"{self.process.name} leads in epoch {self._leadership.epoch}")

    def _end_term(self) -> None:
        self._in_office = False
        self.term_stop.set()
        ends = self._loop.now + _DRAIN_S
        while self.n_tasks and self._loop.now < ends:
            self._loop.sleep(0.5)
