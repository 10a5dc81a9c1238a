"""Who may change something: the token of this run for the commands on this machine, and the one that is configured."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from functools import lru_cache

LOCAL = "local"
_MOST_TOKEN_CHARACTERS = 4096
_DERIVING_ROUNDS = 200_000


class ControlTokens:
    """Finds whose token was shown. Comparisons take the same time whatever was sent.

    Args:
        local: made at each start, and kept beside the data for the local commands.
        configured: gives the configured token as it is now; None where none is set.
        look: called before a token is refused, in case the configured one has changed; must be quick.
        name: how the audit log calls the holder of the configured one.
    """

    def __init__(
        self,
        *,
        local: str,
        configured: Callable[[], str | None] = lambda: None,
        look: Callable[[], None] = lambda: None,
        name: str = "control",
    ) -> None:
        self._local = _digest(local)
        self._configured = configured
        self._look = look
        self._name = name

    def find_caller(self, given: str) -> str | None:
        """`local`, the name of the configured token, or None for every other text."""
        found = self._find(given)
        if found is None and given:
            self._look()
            found = self._find(given)
        return found

    def find_key(self, given: str) -> bytes | None:
        """The key that signs for whoever shows that token; None for a wrong one.

        It is the same in all processes with that token, and does not give the token away.
        """
        if self.find_caller(given) is None:
            return None
        return _derive_key(_digest(given[:_MOST_TOKEN_CHARACTERS]))

    def find_by_key(self, fits: Callable[[bytes], bool]) -> tuple[str, bytes] | None:
        """The first caller whose key `fits`, and the key; None if none does."""
        found = self._find_by_key(fits)
        if found is None:
            self._look()
            found = self._find_by_key(fits)
        return found

    def _find_by_key(self, fits: Callable[[bytes], bool]) -> tuple[str, bytes] | None:
        configured = self._configured()
        digests = [(LOCAL, self._local)]
        if configured:
            digests.append((self._name, _digest(configured)))
        for caller, digest in digests:
            key = _derive_key(digest)
            if fits(key):
                return caller, key
        return None

    def _find(self, given: str) -> str | None:
        shown = _digest(given[:_MOST_TOKEN_CHARACTERS])
        configured = self._configured()
        is_configured = secrets.compare_digest(shown, _digest(configured or ""))
        is_local = secrets.compare_digest(shown, self._local)
        if is_local:
            return LOCAL
        return self._name if is_configured and configured else None


@lru_cache(maxsize=8)
def _derive_key(digest: bytes) -> bytes:
    """Slow on purpose, about 0.1 s and once a token: what is signed with the key must not help to guess the token."""
    return hashlib.pbkdf2_hmac("sha256", digest, b"watcher login", _DERIVING_ROUNDS)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
