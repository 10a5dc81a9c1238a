"""No more requests a second to one server than were allowed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from watcher.domain.clock import Clock
from watcher.domain.errors import CancelledError

# Of the second's worth that may come at once, this much the common row grants after a pause; a process may be late with
# a place by the other half.
SHARED_BURST_S = 0.5
_KEPT_S = 0.5
_SLICE_S = 0.25
# A process that is late each time, on a machine that hardly moves, sends nevertheless.
_MOST_TRIES = 5


class RateLimit(Protocol):
    """What lets requests wait for their turn."""

    def wait(self, url: str) -> None:
        """Returns when the request may be sent.

        Raises:
            CancelledError: the process stops.
        """
        ...


class SharedThrottle:
    """Spaces the requests of any number of processes to one server.

    A process takes places in a slice of up to a quarter of a second, and the next slice only when the time of the last
    one is over: so processes that want more than there is take turns, whatever the number of their threads, and the
    common row is asked about four times a second, not once a request. A slice grows while it is used up soon, shrinks
    to what was used of it; and places nobody used half a second after their time are forfeited, those of a dead process
    with them.

    In any stretch of time the server gets no more than the rate allows for it and one second more, and a request for
    each thread that was late.

    Args:
        server: only requests to its host and port count, signed URLs among them.
        requests_per_s: the rate of all together.
        reserve: takes so many places; returns in how many seconds the first of them is due, 0 or less for at once.
            The others follow at the distance of the rate.
        clock: where time comes from.
        stop: ends a wait.
    """

    def __init__(
        self,
        *,
        server: str,
        requests_per_s: float,
        reserve: Callable[[int], float],
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._origin = _read_origin(server)
        self._gap_s = 1.0 / requests_per_s
        self._most = max(1, int(requests_per_s * _SLICE_S))
        self._reserve = reserve
        self._clock = clock
        self._stop = stop
        self._lock = threading.Lock()
        self._places: deque[tuple[float, float]] = deque()  # when each is due, and until when it is good
        self._size = 1
        self._n_used = 0
        self._taken_s = self._ends_s = float("-inf")

    def wait(self, url: str) -> None:
        """Returns when the request may be sent.

        Raises:
            CancelledError: `stop` was set meanwhile.
            StoreUnavailableError: the common row cannot be asked.
        """
        if _read_origin(url) != self._origin:
            return
        for _ in range(_MOST_TRIES):
            due_s, good_until_s = self._take_place()
            self._sleep_until(due_s)
            if self._clock.monotonic_s() <= good_until_s:
                return

    def _take_place(self) -> tuple[float, float]:
        with self._lock:
            while True:
                now_s = self._clock.monotonic_s()
                while self._places:
                    place = self._places.popleft()
                    if place[1] >= now_s:
                        self._n_used += 1
                        return place
                    self._size = max(1, self._n_used)
                if now_s < self._ends_s:
                    self._size = min(2 * self._size, self._most)  # more was wanted than it held
                elif now_s < self._taken_s + _KEPT_S:
                    self._size = min(self._size + 1, self._most)  # one more would have been used, too
                self._sleep_until(self._ends_s)  # another process may be waiting for its own
                self._take_slice()

    def _take_slice(self) -> None:
        delay_s = self._reserve(self._size)
        now_s = self._clock.monotonic_s()  # read afterwards, so that no place is due too early
        for number in range(self._size):
            due_s = now_s + delay_s + number * self._gap_s
            self._places.append((due_s, max(due_s, now_s) + _KEPT_S))
        self._n_used = 0
        self._taken_s = now_s
        self._ends_s = now_s + delay_s + self._size * self._gap_s

    def _sleep_until(self, due_s: float) -> None:
        delay_s = due_s - self._clock.monotonic_s()
        if self._stop.is_set() or (delay_s > 0 and self._clock.wait_s(self._stop, delay_s)):
            raise CancelledError("asked to stop while waiting for a place among the requests")


def read_server_name(server: str) -> str:
    """Scheme, host and port: what is limited together, whatever the path.

    Args:
        server: the address of the server.
    """
    scheme, host, port = _read_origin(server)
    return f"{scheme}://{host}:{port}"


def _read_origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port
