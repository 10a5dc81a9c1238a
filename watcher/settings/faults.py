"""All that is wrong with a group of settings, gathered, so that nobody mends one fault only to meet the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from watcher.domain.errors import ConfigError

T = TypeVar("T")


class Faults:
    """Gathers the texts of errors.

    Args:
        start: what each text begins with, such as the name of the watch.
    """

    def __init__(self, start: str = "") -> None:
        self._start = start
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """One more fault, or several of a line each."""
        self.texts += [f"{self._start}{line}" for line in text.splitlines()]

    def gather(self, build: Callable[[], T], otherwise: T) -> T:
        """What `build` makes; `otherwise`, and its fault is gathered, if it cannot."""
        try:
            return build()
        except ConfigError as error:
            self.add(str(error))
            return otherwise

    def refuse(self) -> None:
        """Raises ConfigError with all of them, a line each, if there are any."""
        if self.texts:
            raise ConfigError("\n".join(self.texts))
