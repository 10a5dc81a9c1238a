"""The limit of requests to a server, of all processes together: over the store, or a file beside an SQLite store."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.lightly.throttle import SHARED_BURST_S, SharedThrottle, read_server_name
from watcher.lightly.transport import Transport
from watcher.logs import get_logger
from watcher.store.request_rates import reserve_places

_log = get_logger("request_rate")

_LOCK_LIMIT_S = 1.0
_LOCK_LOOK_S = 0.005
_MOST_BYTES = 4096
# What lies further ahead than this many processes can bring about was written by a clock that was turned back since.
_MOST_PROCESSES = 100


class _Due(msgspec.Struct):
    """What the file holds."""

    server: str
    due_s: float


class PlacesFile:
    """Places among the requests to a server, given to all processes of a machine from one file.

    The generic cell rate algorithm (ITU-T I.371) by the machine's clock. Where the file cannot be used, this process
    keeps count by itself and says so once: a disk that is full holds up no request.

    Args:
        path: the file; made at the first use, readable by its owner alone.
        server: whose requests are counted. A file that counts those of another one is begun anew.
        gap_s: distance between two places.
        clock: where time comes from.
        stop: ends the wait for the file, which another process has for less than a millisecond.
    """

    def __init__(self, path: Path, *, server: str, gap_s: float, clock: Clock, stop: threading.Event) -> None:
        self._path = path
        self._server = server
        self._gap_s = gap_s
        self._burst_s = max(0.0, SHARED_BURST_S - gap_s)
        self._clock = clock
        self._stop = stop
        self._own_due_s = 0.0
        self._is_told = False

    def reserve(self, n: int) -> float:
        """Takes the next `n` places; returns in how many seconds the first is due, 0 or less for at once."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._lock(handle)
                now_s = self._clock.now_s()
                first_s = self._compute_first(self._read(handle), now_s)
                self._own_due_s = first_s + n * self._gap_s
                body = msgspec.json.encode(_Due(server=self._server, due_s=self._own_due_s))
                os.pwrite(handle, body, 0)
                os.ftruncate(handle, len(body))
            finally:
                os.close(handle)  # gives the lock back
        except OSError as error:
            if not self._is_told:
                _log.warning("request_rate.kept_alone", path=str(self._path), reason=error.strerror)
                self._is_told = True
            now_s = self._clock.now_s()
            first_s = self._compute_first(self._own_due_s, now_s)
            self._own_due_s = first_s + n * self._gap_s
        return first_s - now_s

    def _compute_first(self, due_s: float, now_s: float) -> float:
        if due_s > now_s + _MOST_PROCESSES * max(self._gap_s, 0.25):
            due_s = 0.0
        return max(due_s, now_s - self._burst_s)

    def _read(self, handle: int) -> float:
        try:
            kept = msgspec.json.decode(os.pread(handle, _MOST_BYTES, 0), type=_Due)
        except msgspec.MsgspecError:  # new, or cut off by a kill
            return 0.0
        return kept.due_s if kept.server == self._server else 0.0

    def _lock(self, handle: int) -> None:
        """Takes the lock of the file.

        Raises:
            TimeoutError: a process that was frozen has it.
        """
        ends_s = self._clock.monotonic_s() + _LOCK_LIMIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock.monotonic_s() > ends_s or self._clock.wait_s(self._stop, _LOCK_LOOK_S):
                    raise TimeoutError(0, "another process does not give it back") from None
            else:
                return


def limit_rate(
    transport: Transport,
    requests_per_s: float,
    *,
    database: Database | None,
    path: Path,
    clock: Clock,
    stop: threading.Event,
) -> None:
    """From now on the requests of `transport` to its server keep to the rate, together with those of other processes.

    Args:
        transport: whose requests.
        requests_per_s: the rate of all together.
        database: the store; its row is asked if that is Postgres.
        path: the file that is asked otherwise.
        clock: where time comes from.
        stop: ends a wait.
    """
    server = read_server_name(transport.server)
    gap_s = 1.0 / requests_per_s
    if database is None or database.is_sqlite:
        reserve: Callable[[int], float] = PlacesFile(
            path, server=server, gap_s=gap_s, clock=clock, stop=stop
        ).reserve
    else:
        reserve = _reserve_in_store(database, server=server, gap_s=gap_s)
    transport.connections.limit_rate(
        SharedThrottle(
            server=transport.server, requests_per_s=requests_per_s, reserve=reserve, clock=clock, stop=stop
        )
    )


def _reserve_in_store(database: Database, *, server: str, gap_s: float) -> Callable[[int], float]:
    def reserve(n: int) -> float:
        with database.write() as session:
            delay_us = reserve_places(
                session,
                server=server,
                n=n,
                gap_us=round(gap_s * 1e6),
                burst_us=round(max(0.0, SHARED_BURST_S - gap_s) * 1e6),
            )
        return delay_us / 1e6

    return reserve
