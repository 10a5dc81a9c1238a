"""Who may change something: the token of this run for the commands on this machine, and the one that is configured."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

LOCAL = "local"
_MOST_TOKEN_CHARACTERS = 4096


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

    def _find(self, given: str) -> str | None:
        shown = _digest(given[:_MOST_TOKEN_CHARACTERS])
        configured = self._configured()
        is_configured = secrets.compare_digest(shown, _digest(configured or ""))
        is_local = secrets.compare_digest(shown, self._local)
        if is_local:
            return LOCAL
        return self._name if is_configured and configured else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
