"""The token of a transport: checked, replaced while calls go on, kept out of every text."""

from __future__ import annotations

from urllib.parse import quote

from watcher.lightly.addresses import check_token


class Token:
    """Its value now, and the last few it had."""

    def __init__(self, value: str) -> None:
        self.value = check_token(value)
        self._former: tuple[str, ...] = ()

    def replace(self, value: str) -> None:
        """Sends another token from the next try on; a call just refused with the old one is made again.

        Raises:
            ConfigError: it is no usable token; the old one stays.
        """
        usable = check_token(value)
        self._former = (*self._former[-3:], self.value)
        self.value = usable

    def hide(self, text: str) -> str:
        """The text without this token and the former ones."""
        for secret in (self.value, *self._former):
            for written in {secret, quote(secret, safe="")}:
                text = text.replace(written, "***")
        return text
