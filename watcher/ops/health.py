"""Alive while every loop moves; ready while the store and the server can be used."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from watcher.domain.clock import Clock


class Heartbeats:
    """When each loop last moved, and by when it must move again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, tuple[float, float]] = {}
        self._numbers = itertools.count(1)

    def expect(self, loop: str, *, within_s: float) -> None:
        """Starts to watch over a loop; its first beat is now."""
        with self._lock:
            self._beats[loop] = (self._clock.monotonic_s(), within_s)

    @contextmanager
    def watching(self, kind: str, what: str, *, within_s: float) -> Iterator[Callable[[], None]]:
        """Watches over one piece of work, which calls what it is given whenever it moves.

        Args:
            kind: one of `metrics.LOOPS`.
            what: names the work beside others of its kind.
            within_s: longest time between two signs of life.
        """
        name = f"{kind}-{what}-{next(self._numbers)}"
        self.expect(name, within_s=within_s)
        try:
            yield partial(self.beat, name)
        finally:
            with self._lock:
                del self._beats[name]

    def beat(self, loop: str) -> None:
        """The loop moved; loops nobody watches over are ignored."""
        with self._lock:
            if loop in self._beats:
                self._beats[loop] = (self._clock.monotonic_s(), self._beats[loop][1])

    def pardon(self) -> None:
        """Gives every loop its whole time again: the store does not answer, and whoever waits for it does not hang."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._beats = {loop: (now_s, within_s) for loop, (_, within_s) in self._beats.items()}

    def forget(self, loop: str) -> None:
        """The loop ended as it should."""
        with self._lock:
            self._beats.pop(loop, None)

    def find_stalled(self) -> dict[str, float]:
        """The loops that are overdue, with the seconds since their last beat."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            return {
                loop: now_s - last_s
                for loop, (last_s, within_s) in self._beats.items()
                if now_s - last_s > within_s
            }

    def count_stalled(self, kind: str) -> int:
        """How many loops of a kind are overdue; the kind is the part of the name before the first hyphen."""
        return Counter(loop.partition("-")[0] for loop in self.find_stalled())[kind]


@dataclass(frozen=True, slots=True)
class Access:
    """What the last answers of the server said of the credentials.

    Attributes:
        last_ok_s: unix time of the last answer that accepted the token; None if there was none.
        refused_s: unix time of the last answer that refused it.
    """

    last_ok_s: float | None = None
    refused_s: float | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the newest word of the server was a refusal."""
        return self.refused_s is not None and (self.last_ok_s is None or self.refused_s > self.last_ok_s)


class AccessWatch:
    """Keeps the newest `Access`; told of every request."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._access = Access()

    def observe(self, *, endpoint: str, code: str) -> None:
        """Takes note of one answer; signed URLs say nothing of the token."""
        if " /v1/" not in endpoint:
            return
        now_s = self._clock.now_s()
        with self._lock:
            if code == "401":
                self._access = Access(last_ok_s=self._access.last_ok_s, refused_s=now_s)
            elif code.startswith("2"):
                self._access = Access(last_ok_s=now_s, refused_s=self._access.refused_s)

    def get(self) -> Access:
        """The newest state."""
        with self._lock:
            return self._access
