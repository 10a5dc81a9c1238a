"""Logins of the status page: a signed cookie for a token that was shown once; nothing of it is kept in memory.

Whoever knows the token can check the cookie, so a login holds on every replica with that token and after a restart. It
ends with its time, with its token, and in a browser that logs out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from watcher.domain.clock import Clock
from watcher.ops.tokens import ControlTokens

COOKIE = "watcher_session"
NOTICE_COOKIE = "watcher_notice"
LIFE_S = 12 * 3600
NOTICE_LIFE_S = 60
_MOST_COOKIE_CHARACTERS = 200
# With its cookie's name and attributes below the 4096 bytes that every browser takes.
_MOST_NOTICE_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Login:
    """One login.

    Attributes:
        caller: whose token it was.
        form_token: stands in every form, so that no other site can send one.
        notice: what the last change said, until it was shown.
        key: signs what belongs to this login.
    """

    caller: str
    form_token: str = field(repr=False)
    key: bytes = field(repr=False)
    notice: str | None = None

    def seal_notice(self, text: str) -> str:
        """A cookie that brings the text to the next page, whichever replica serves it; cut to 2000 bytes."""
        packed = _pack(text.encode()[:_MOST_NOTICE_BYTES])
        return f"{packed}.{_sign(self.key, 'notice', packed)}"


class Sessions:
    """Makes the cookies and checks them; holds no state."""

    def __init__(self, tokens: ControlTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def open(self, token: str) -> str | None:
        """The value of the cookie; None for a wrong token."""
        key = self._tokens.find_key(token)
        if key is None:
            return None
        body = f"{int(self._clock.now_s()) + LIFE_S}.{secrets.token_urlsafe(16)}"
        return f"{body}.{_sign(key, 'login', body)}"

    def find(self, cookie: str, notice: str = "") -> Login | None:
        """The login of a cookie; None if it was not made here or by a replica, is over, or its token counts no more.

        Args:
            cookie: the login.
            notice: what `Login.seal_notice` gave; left out of the login if it is of another one.
        """
        body, _, signature = cookie.rpartition(".")
        ends = body.partition(".")[0]
        if not (len(cookie) <= _MOST_COOKIE_CHARACTERS and cookie.isascii() and ends.isdecimal()):
            return None
        # Neither a time that is over nor one that no login of ours could have.
        if not 0 < int(ends) - self._clock.now_s() <= LIFE_S + 60:
            return None
        found = self._tokens.find_by_key(
            lambda key: hmac.compare_digest(_sign(key, "login", body), signature)
        )
        if found is None:
            return None
        caller, key = found
        own_key = hmac.digest(key, b"of " + cookie.encode(), "sha256")
        return Login(caller, _sign(own_key, "form", ""), own_key, _open_notice(own_key, notice))


def _open_notice(key: bytes, sealed: str) -> str | None:
    packed, _, signature = sealed.rpartition(".")
    if not (sealed.isascii() and hmac.compare_digest(_sign(key, "notice", packed), signature)):
        return None
    try:
        return base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)).decode("utf-8", "ignore")
    except binascii.Error:
        return None


def _sign(key: bytes, purpose: str, text: str) -> str:
    return _pack(hmac.digest(key, f"{purpose} {text}".encode(), hashlib.sha256))


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
