"""How a server takes the windows of its listing: in which unit, and whether their ends belong to them.

The protocol documents whole seconds, both ends included. Servers that count in milliseconds, or leave an end out,
are told apart by `watcher.probe`; this module turns our windows into theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TimeUnit(StrEnum):
    """Unit of the numbers in `from`, `to` and the server's mark."""

    SECONDS = "s"
    MILLISECONDS = "ms"


class WindowEnd(StrEnum):
    """Whether an object of exactly that time is listed."""

    INCLUSIVE = "inclusive"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingFacts:
    """What is known of a server's listing; the defaults are the documented protocol."""

    unit: TimeUnit = TimeUnit.SECONDS
    from_end: WindowEnd = WindowEnd.INCLUSIVE
    to_end: WindowEnd = WindowEnd.INCLUSIVE

    def compute_range(self, from_s: int, to_s: int) -> tuple[int, int]:
        """The `from` and `to` that make the server list exactly the seconds [from_s, to_s], both included."""
        first, last = from_s, to_s
        if self.unit is TimeUnit.MILLISECONDS:
            first, last = 1000 * from_s, 1000 * to_s + 999
        if self.from_end is WindowEnd.EXCLUSIVE:
            first = max(0, first - 1)
        if self.to_end is WindowEnd.EXCLUSIVE:
            last += 1
        return first, last

    def compute_mark(self, mark_s: int) -> int:
        """The mark as the server counts: the last moment of that second."""
        return mark_s if self.unit is TimeUnit.SECONDS else 1000 * mark_s + 999

    def __str__(self) -> str:
        unit = "seconds" if self.unit is TimeUnit.SECONDS else "milliseconds"
        return f"{unit}, from {self.from_end}, to {self.to_end}"
