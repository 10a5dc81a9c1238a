"""A process's signs of life, and what it learns from those of the others: may it work, and on which watches?

A worker of another work version than the leader's waits and says so, and a process that understands a watch otherwise
than the leader takes no run of that watch.

It also notices that the store hangs, which is no fault of this process: as long as it does, no loop counts as stalled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Sequence

from sqlalchemy import text

from watcher import __version__
from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.errors import StoreError
from watcher.domain.models import WatchConfig
from watcher.domain.pipeline import WORK_VERSION
from watcher.logs import get_logger
from watcher.ops.bounded import Bounded
from watcher.ops.health import Heartbeats
from watcher.store import processes
from watcher.store.leadership import load_leader
from watcher.store.processes import Process

_log = get_logger("presence")

EVERY_S = 5.0
_TELL_LIMIT_S = 10.0
_SILENT_S = 60.0
_FORGOTTEN_S = 3600.0


def compute_digest(config: WatchConfig) -> str:
    """A fingerprint of everything a watch is told to do; equal for equal settings in all processes.

    What has its default is left out: a setting that only a newer version knows, and nobody set, makes no difference
    while processes of both versions run side by side.
    """
    return hashlib.sha256(repr(_list_chosen(config)).encode()).hexdigest()


def _list_chosen(value: object) -> object:
    """The value, in dataclasses only what differs from the defaults."""
    if isinstance(value, tuple):
        return tuple(_list_chosen(item) for item in value)
    if isinstance(value, frozenset):
        return sorted(map(repr, value))  # the order of a set differs from process to process
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    chosen = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: _list_chosen(item) for field, item in chosen if item != _find_default(field)}


def _find_default(field: dataclasses.Field[object]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


class Presence:
    """A thread that tells the store of this process every few seconds."""

    def __init__(
        self,
        database: Database,
        *,
        kind: str,
        configs: Sequence[WatchConfig],
        clock: Clock,
        stop: threading.Event,
        heartbeats: Heartbeats,
        work_version: int = WORK_VERSION,
        limit_s: float = _TELL_LIMIT_S,
    ) -> None:
        """Keeps the values; `limit_s` is how long the store is waited for."""
        self._database = database
        self._kind = kind
        self._digests = {config.name: compute_digest(config) for config in configs}
        self._clock = clock
        self._stop = stop
        self._heartbeats = heartbeats
        self._limit_s = limit_s
        # Each holds one connection at the most, however long the store hangs.
        self._tell_in_time = Bounded(self.tell, limit_s=limit_s, what="the store")
        self._ask_in_time = Bounded(self._ask, limit_s=limit_s, what="the store")
        self._work_version = work_version
        self._started_ms = int(clock.now_s() * 1000)
        self._thread: threading.Thread | None = None
        self._problem: str | None = "the store was not asked yet"
        self._refused: frozenset[str] = frozenset()
        self._n_processes = 1

    @property
    def problem(self) -> str | None:
        """Why this process may take no run at all; None if it may."""
        return self._problem

    @property
    def refused(self) -> frozenset[str]:
        """Watches that the leader understands otherwise."""
        return self._refused

    @property
    def n_processes(self) -> int:
        """How many processes live, this one included."""
        return self._n_processes

    def start(self) -> None:
        """Gives the first sign of life, then one every few seconds."""
        self._tell_or_log()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        self._thread.start()

    def join(self, *, timeout_s: float) -> None:
        """Waits for the thread after `stop` was set, and takes the process off the list."""
        if self._thread is None:
            return
        self._thread.join(timeout=timeout_s)
        try:
            Bounded(self._forget, limit_s=min(self._limit_s, timeout_s), what="the store")()
        except StoreError as error:
            _log.info("process.not_forgotten", reason=str(error))

    def _forget(self) -> None:
        with self._database.write() as session:
            processes.forget_process(session, name=self._database.name)

    def _ask(self) -> None:
        with self._database.read() as session:
            session.execute(text("SELECT 1"))

    def tell(self) -> None:
        """One sign of life, and a look at the others.

        Raises:
            StoreError: the store cannot be reached or written.
        """
        now_ms = int(self._clock.now_s() * 1000)
        with self._database.write() as session:
            processes.record_process(
                session,
                process=Process(
                    name=self._database.name,
                    kind=self._kind,
                    version=__version__,
                    work_version=self._work_version,
                    started_ms=self._started_ms,
                    seen_ms=now_ms,
                ),
            )
            processes.forget_silent(session, before_ms=now_ms - int(_FORGOTTEN_S * 1000))
            self._n_processes = processes.count_processes(session, since_ms=now_ms - int(_SILENT_S * 1000))
            leader = load_leader(session)
            understood = processes.load_configurations(session)
        problem = None
        if leader.is_in_office and leader.work_version not in (None, self._work_version):
            problem = (
                f"this process works by version {self._work_version}, the leader {leader.holder} by "
                f"{leader.work_version}: it waits until both are of one release"
            )
        refused = frozenset(
            name for name, digest in self._digests.items() if understood.get(name, digest) != digest
        )
        if problem != self._problem and problem is not None:
            _log.warning("process.waits", reason=problem)
        for name in sorted(refused - self._refused):
            _log.warning(
                "watch.refused",
                watch=name,
                reason="its settings differ from the leader's: give all replicas and workers the same",
            )
        self._problem, self._refused = problem, refused

    def _run(self) -> None:
        while not self._clock.wait_s(self._stop, EVERY_S):
            self._heartbeats.beat("presence")
            self._tell_or_log()

    def _tell_or_log(self) -> None:
        try:
            self._tell_in_time()
        except StoreError as error:
            _log.warning("process.not_told", error=str(error))
            self._pardon_if_away()

    def _pardon_if_away(self) -> None:
        """A sign of life may also wait for a lock; only a store that answers nothing excuses the loops."""
        try:
            self._ask_in_time()
        except StoreError:
            self._heartbeats.pardon()
