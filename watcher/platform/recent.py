"""Answers of the database kept for some seconds, so that not every page of a listing asks again."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from watcher.domain.clock import Clock

_T = TypeVar("_T")
_MAX_ENTRIES = 1024


class Recent(Generic[_T]):
    """At most 1024 values, each for a fixed time; what another process changed shows that much later."""

    def __init__(self, clock: Clock, *, keep_s: float) -> None:
        self._clock = clock
        self._keep_s = keep_s
        self._entries: dict[tuple[str, ...], tuple[float, _T]] = {}
        self._lock = threading.Lock()

    def find(self, *key: str) -> _T | None:
        """The value, if kept lately."""
        entry = self._entries.get(key)
        if entry is None or entry[0] < self._clock.monotonic_s():
            return None
        return entry[1]

    def keep(self, value: _T, *key: str) -> None:
        """Remembers the value."""
        with self._lock:
            if len(self._entries) >= _MAX_ENTRIES:
                self._entries.clear()
            self._entries[key] = (self._clock.monotonic_s() + self._keep_s, value)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
