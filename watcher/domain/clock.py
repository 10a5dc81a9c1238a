"""Time is passed in; `SystemClock` is the one reader of it."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the package may ask about time."""

    def now_s(self) -> float:
        """Unix time in seconds."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        """Waits until `event` is set or `seconds` have passed; tells whether it was set."""


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds since some fixed point."""
        return time.monotonic()

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        """Waits until `event` is set or `seconds` have passed; tells whether it was set."""
        return event.wait(max(0.0, seconds))
