"""Logins of the status page: a random cookie for a token that was shown once, kept in memory until a restart."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from watcher.domain.clock import Clock
from watcher.ops.tokens import ControlTokens

COOKIE = "watcher_session"
LIFE_S = 12 * 3600
_MOST = 200


@dataclass(slots=True)
class Login:
    """One login.

    Attributes:
        caller: whose token it was.
        form_token: stands in every form, so that no other site can send one.
        notice: what the last change said, until it was shown.
    """

    caller: str
    ends_s: float
    token: str = field(repr=False)
    form_token: str = field(repr=False)
    notice: str | None = None

    def take_notice(self) -> str | None:
        """The notice, once."""
        notice, self.notice = self.notice, None
        return notice


class Sessions:
    """The logins, at most 200 and 12 hours each; one ends with its token. Thread-safe."""

    def __init__(self, tokens: ControlTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        self._logins: dict[str, Login] = {}
        self._lock = threading.Lock()

    def open(self, token: str) -> str | None:
        """The value of the cookie; None for a wrong token."""
        caller = self._tokens.find_caller(token)
        if caller is None:
            return None
        cookie = secrets.token_urlsafe(32)
        login = Login(
            caller=caller,
            ends_s=self._clock.monotonic_s() + LIFE_S,
            token=token,
            form_token=secrets.token_urlsafe(32),
        )
        with self._lock:
            self._logins[cookie] = login
            while len(self._logins) > _MOST:
                self._logins.pop(next(iter(self._logins)))
        return cookie

    def find(self, cookie: str) -> Login | None:
        """The login of a cookie; None if there is none, it is over, or its token counts no more."""
        with self._lock:
            login = self._logins.get(cookie)
        if login is None:
            return None
        if login.ends_s <= self._clock.monotonic_s() or self._tokens.find_caller(login.token) != login.caller:
            self.close(cookie)
            return None
        return login

    def close(self, cookie: str) -> None:
        """Ends a login; harmless if there is none."""
        with self._lock:
            self._logins.pop(cookie, None)
