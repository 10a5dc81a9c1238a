"""No more requests a second to one server than were allowed."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

from watcher.domain.clock import Clock
from watcher.domain.errors import CancelledError


class Throttle:
    """Spaces the requests of a process to one server; a second's worth may come at once after a pause.

    The generic cell rate algorithm (ITU-T I.371), which is a token bucket that keeps one number.

    Args:
        server: only requests to its host and port count, signed URLs among them.
        requests_per_s: the rate.
        clock: where time comes from.
        stop: ends a wait.
    """

    def __init__(self, *, server: str, requests_per_s: float, clock: Clock, stop: threading.Event) -> None:
        self._origin = _read_origin(server)
        self._gap_s = 1.0 / requests_per_s
        self._burst_s = max(1.0, self._gap_s) - self._gap_s
        self._clock = clock
        self._stop = stop
        self._lock = threading.Lock()
        self._due_s = 0.0

    def wait(self, url: str) -> None:
        """Returns when the request may be sent.

        Raises:
            CancelledError: `stop` was set meanwhile.
        """
        if _read_origin(url) != self._origin:
            return
        with self._lock:
            now_s = self._clock.monotonic_s()
            self._due_s = max(self._due_s, now_s - self._burst_s)
            delay_s = self._due_s - now_s
            self._due_s += self._gap_s
        if delay_s > 0 and self._clock.wait_s(self._stop, delay_s):
            raise CancelledError("asked to stop while waiting for a place among the requests")


def _read_origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port
