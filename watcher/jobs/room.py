"""How much may be in memory at once, over all runs of a process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_UP_S = 0.5


class Room:
    """A number of bytes, or of pixels, of which work takes its share and gives it back; first come, first served.

    Who needs more than there is gets it alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """What is taken at the moment."""
        return self._used

    @contextmanager
    def hold(self, n: int, check: Callable[[], None]) -> Iterator[None]:
        """Waits until `n` fit in, and keeps them for the block; `check` is called while waiting and may raise."""
        with self.share(check) as share:
            share.set(n)
            yield

    @contextmanager
    def share(self, check: Callable[[], None]) -> Iterator[Share]:
        """A share whose size is told later; it is given back at the end of the block."""
        share = Share(self, check)
        try:
            yield share
        finally:
            share.set(0)

    def _take(self, n: int, check: Callable[[], None]) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or (self._used and self._used + n > self.limit):
                    check()
                    self._changed.wait(_LOOK_UP_S)
                self._used += n
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _give_back(self, n: int) -> None:
        with self._changed:
            self._used -= n
            self._changed.notify_all()


class Share:
    """What one piece of work has of a room; one thread at a time."""

    def __init__(self, room: Room, check: Callable[[], None]) -> None:
        self._room = room
        self._check = check
        self._n = 0

    def set(self, n: int) -> None:
        """Gives back what it has, then takes `n`: nobody waits with something in hand, so none wait for each other."""
        if n == self._n:
            return
        held, self._n = self._n, 0
        if held:
            self._room._give_back(held)  # noqa: SLF001 - two halves of one thing
        if n:
            self._room._take(n, self._check)  # noqa: SLF001 - likewise
            self._n = n
