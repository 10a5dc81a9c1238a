"""Users seen lately, so that not every page of a listing asks the database who calls."""

from __future__ import annotations

import threading

from watcher.domain.clock import Clock
from watcher.platform.store.users import User

_KEEP_S = 5.0
_MAX_USERS = 1024


class UserCache:
    """Keeps a user for five seconds; a withdrawn token works that much longer at the most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._users: dict[str, tuple[float, User]] = {}
        self._lock = threading.Lock()

    def find(self, token_hash: str) -> User | None:
        """The user, if seen lately."""
        entry = self._users.get(token_hash)
        if entry is None or entry[0] < self._clock.monotonic_s():
            return None
        return entry[1]

    def keep(self, token_hash: str, user: User) -> None:
        """Remembers the user."""
        with self._lock:
            if len(self._users) >= _MAX_USERS:
                self._users.clear()
            self._users[token_hash] = (self._clock.monotonic_s() + _KEEP_S, user)
