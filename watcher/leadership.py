"""One leader among any number of replicas, and transactions that only the leader can commit.

On Postgres the leader holds a lease that it renews; whoever finds it run out begins a new epoch. An SQLite file has one
daemon, held by a file lock; each start begins a new epoch there too, so the rest of the program knows one way only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import FencedError, StoreError, StoreLockedError, StoreUnavailableError
from watcher.domain.pipeline import WORK_VERSION
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.store.leadership import (
    extend_lead,
    give_up_lead,
    load_leader,
    require_epoch,
    take_lead,
)
from watcher.store.lock import FileLock

_log = get_logger("leadership")

DEFAULT_LEASE_S = 15.0
_ASK_AGAIN_S = 0.2


class Leadership:
    """The right to poll, to move marks and to cut batches; held until `release`, or until it is lost.

    Attributes:
        lost: set when another process leads, or when the store could not be told in time that this one lives.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = DEFAULT_LEASE_S,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        work_version: int = WORK_VERSION,
    ) -> None:
        self.lost = threading.Event()
        self._database = database
        self._lease_s = lease_s
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._work_version = work_version
        self._file_lock = FileLock(database) if database.is_sqlite else None
        self._epoch: int | None = None
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    @property
    def epoch(self) -> int | None:
        """The term of office; None while another process leads."""
        return self._epoch

    def acquire(self, *, wait_s: float = 0.0) -> None:
        """Takes the lead, and keeps it by signs of life.

        Args:
            wait_s: how long to wait for the lease of another one, perhaps killed, to run out; not for a file lock,
                which ends with its process.

        Raises:
            StoreLockedError: another process leads.
            StoreUnavailableError: the store cannot be reached or written.
        """
        if self._epoch is not None and not self.lost.is_set():
            return
        if self._file_lock is not None:
            self._file_lock.acquire()
        ends_s = self._clock.monotonic_s() + wait_s
        try:
            while True:
                try:
                    self._begin()
                except StoreLockedError:
                    if self._clock.monotonic_s() >= ends_s:
                        raise
                    self._clock.wait_s(threading.Event(), _ASK_AGAIN_S)
                else:
                    return
        except BaseException:
            if self._file_lock is not None:
                self._file_lock.release()
            raise

    def _begin(self) -> None:
        asked_s = self._clock.monotonic_s()
        with self._database.write() as session:
            epoch = take_lead(
                session,
                holder=self._database.name,
                lease_ms=int(self._lease_s * 1000),
                work_version=self._work_version,
                force=self._file_lock is not None,
            )
            leader = load_leader(session)
        if epoch is None:
            raise StoreLockedError(
                f"another daemon works on this store: {leader.holder} leads in epoch {leader.epoch}, and its lease "
                f"holds for another {leader.left_ms / 1000:.1f} s unless it is renewed. Stop it, or use another "
                "database"
            )
        self._epoch = epoch
        self.lost = threading.Event()
        self._ended = threading.Event()
        if self._file_lock is None:
            self._heart = threading.Thread(
                target=self._keep,
                args=(epoch, asked_s, self.lost, self._ended),
                name="leadership",
                daemon=True,
            )
            self._heart.start()
        _log.info("leadership.taken", epoch=epoch, holder=self._database.name)

    def _keep(self, epoch: int, renewed_s: float, lost: threading.Event, ended: threading.Event) -> None:
        """Renews the lease; gives up when another leads, or when the lease may have run out unrenewed."""
        while not self._clock.wait_s(ended, self._lease_s / 4):
            asked_s = self._clock.monotonic_s()
            try:
                with self._database.write() as session:
                    held = extend_lead(
                        session,
                        holder=self._database.name,
                        epoch=epoch,
                        lease_ms=int(self._lease_s * 1000),
                    )
                    if not held:
                        leader = load_leader(session)
            except StoreError as error:
                _log.warning("leadership.not_renewed", epoch=epoch, error=str(error))
                if self._clock.monotonic_s() - renewed_s > self._lease_s:
                    _log.warning("leadership.lost", epoch=epoch, reason="the store could not be told in time")
                    lost.set()
                    return
                continue
            if not held:
                _log.warning("leadership.lost", epoch=epoch, leader=leader.holder, now=leader.epoch)
                lost.set()
                return
            renewed_s = asked_s

    def check(self, session: Session) -> None:
        """Called first in each transaction of the leader.

        Raises:
            FencedError: this process no longer leads, or never did.
        """
        try:
            # Epoch 0 is nobody's.
            require_epoch(session, epoch=self._epoch or 0)
        except FencedError:
            self.lost.set()
            if self._metrics is not None:
                self._metrics.fenced_writes.inc()
            raise

    def release(self) -> None:
        """Gives the lead back; harmless if it is not held."""
        epoch, self._epoch = self._epoch, None
        self._ended.set()
        if self._heart is not None:
            self._heart.join(timeout=self._lease_s)
            self._heart = None
        if epoch is not None and not self.lost.is_set():
            try:
                with self._database.write() as session:
                    give_up_lead(session, holder=self._database.name, epoch=epoch)
            except StoreUnavailableError as error:
                _log.warning("leadership.not_given_up", epoch=epoch, error=str(error))
        if self._file_lock is not None:
            self._file_lock.release()


class FencedDatabase(Database):
    """The store as the leader sees it: `write()` begins with the check of the epoch, so none can be forgotten."""

    def __init__(self, database: Database, leadership: Leadership) -> None:
        super().__init__(database.engine, name=database.name)
        self.replaced = database.replaced
        self._store = database
        self._leadership = leadership

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that is rolled back at the end."""
        with self._store.read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end if this process leads."""
        with self._store.write() as session:
            self._leadership.check(session)
            yield session
