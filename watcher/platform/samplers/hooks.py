"""How a long computation tells its caller where it stands, and hears that it shall stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watcher.domain.errors import CancelledError


@dataclass(frozen=True, slots=True)
class Hooks:
    """The caller's ends of a running sampling.

    Attributes:
        progress: called with (picks made, picks wanted); both count new picks only.
        cancelled: asked every few milliseconds of work; True ends the sampling.
    """

    progress: Callable[[int, int], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raises CancelledError if the caller wants an end."""
        if self.cancelled is not None and self.cancelled():
            raise CancelledError("the sampling was cancelled before it was complete")

    def report(self, done: int, total: int) -> None:
        """Tells the caller how far the sampling is."""
        if self.progress is not None:
            self.progress(done, total)
