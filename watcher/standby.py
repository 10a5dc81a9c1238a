"""Leads while it can: begins a term of office when the lead is free, ends it when the lead is lost.

Between two terms the process is a follower: it serves its pages and waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from watcher.domain.clock import Clock
from watcher.domain.errors import StoreError, StoreLockedError, WatcherError
from watcher.leadership import Leadership
from watcher.lightly.transport import Transport
from watcher.lightly.versions import fetch_minimum_version
from watcher.logs import get_logger
from watcher.ops.bounded import Bounded
from watcher.ops.health import AccessWatch

_log = get_logger("standby")

_LOOK_S = 0.25
_RELEASE_LIMIT_S = 5.0


class ServerInquiry:
    """A follower asks the server now and then, so that it knows of its state and is ready when its turn comes.

    In a thread, one at once: a server that hangs must not keep the follower from the lead, nor make it look stalled.
    """

    def __init__(self, transport: Transport, access: AccessWatch) -> None:
        self._transport = transport
        self._access = access
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Asks, unless the server has accepted the token already or a question is under way."""
        if self._access.get().last_ok_s is not None or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._ask, name="server", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            fetch_minimum_version(self._transport)
        except WatcherError as error:
            _log.info("server.not_asked", reason=str(error))


def release_in_time(leadership: Leadership, *, limit_s: float = _RELEASE_LIMIT_S) -> None:
    """Gives the lead back at the end of a process; where the store hangs, the lease runs out instead."""
    try:
        Bounded(leadership.release, limit_s=limit_s, what="the store")()
    except StoreError as error:
        _log.warning("leadership.not_given_up", epoch=leadership.epoch, error=str(error))


class Standby:
    """A thread that follows the leadership.

    Args:
        leadership: what is wanted; perhaps held already.
        begin: starts what only the leader does.
        end: stops it, and returns when nothing of it runs any more or its time is over.
        idle: called now and then while another process leads; must be quick.
        ask_every_s: how often a follower asks whether the lead is free.
    """

    def __init__(
        self,
        leadership: Leadership,
        *,
        begin: Callable[[], None],
        end: Callable[[], None],
        idle: Callable[[], None],
        ask_every_s: float,
        stop: threading.Event,
        beat: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._leadership = leadership
        self._begin = begin
        self._end = end
        self._idle = idle
        self._ask_every_s = ask_every_s
        self._stop = stop
        self._beat = beat
        self._clock = clock
        self._thread: threading.Thread | None = None

    def start(self, *, leads: bool) -> None:
        """Starts the thread; `leads` tells whether a term has begun already."""
        self._thread = threading.Thread(target=self._follow, args=(leads,), name="standby", daemon=True)
        self._thread.start()

    def join(self, *, timeout_s: float) -> None:
        """Waits for the thread after `stop` was set."""
        if self._thread is not None:
            self._thread.join(timeout=timeout_s)

    def _follow(self, leads: bool) -> None:
        while not self._stop.is_set():
            self._beat()
            if leads:
                if self._clock.wait_s(self._leadership.lost, _LOOK_S) and not self._stop.is_set():
                    self._end()
                    self._leadership.release()
                    leads = False
                continue
            leads = self._try()
            if not leads:
                self._clock.wait_s(self._stop, self._ask_every_s)

    def _try(self) -> bool:
        try:
            self._idle()
            self._leadership.acquire()
        except StoreLockedError:
            return False
        except StoreError as error:
            _log.warning("leadership.not_asked", error=str(error))
            return False
        try:
            self._begin()
        except WatcherError as error:
            _log.warning("term.not_begun", error=str(error))
        except Exception:  # noqa: BLE001 - a follower that died would be missed when it is needed
            _log.exception("term.crashed")
        else:
            return True
        self._end()
        self._leadership.release()
        return False
