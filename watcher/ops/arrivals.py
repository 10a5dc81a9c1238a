"""How many samples arrived in each of the last 24 hours, read from the polls and kept between two looks."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec
from sqlalchemy.orm import Session

from watcher.store import latest

HOURS = 24
_HOUR_MS = 3_600_000
_OPEN_HOURS = 3
_BAR, _GAP, _HEIGHT = 3, 1, 22


class Sparkline(msgspec.Struct, frozen=True, kw_only=True):
    """Bars of a small picture, `width` by `height`, as (x, y, height)."""

    width: int
    height: int
    bars: list[tuple[int, float, float]]
    total: int
    peak: int


class Arrivals:
    """Reads the hours that may still change at each look, and the whole day at the first one.

    Thread-safe. A poll counts in the hour in which it started; one that lists for more than three hours counts with
    what it had found by then.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._read_from: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def load(self, session: Session, *, now_ms: int) -> dict[str, list[int]]:
        """Arrivals by watch name, oldest hour first; watches without any are left out."""
        hour = now_ms // _HOUR_MS
        oldest = hour - HOURS + 1
        with self._lock:
            if self._read_from is None or self._read_from[0] < oldest:
                self._read_from = oldest, latest.find_first_poll_since(session, since_ms=oldest * _HOUR_MS)
            from_hour, first_poll_id = self._read_from
            found = latest.count_arrivals(session, first_poll_id=first_poll_id)
            kept = {key: n for key, n in self._counts.items() if oldest <= key[1] < from_hour}
            counts = self._counts = kept | found
            if hour - from_hour >= _OPEN_HOURS:
                since_ms = (hour - _OPEN_HOURS + 1) * _HOUR_MS
                first = latest.find_first_poll_since(session, since_ms=since_ms)
                self._read_from = hour - _OPEN_HOURS + 1, first
        arrivals: dict[str, list[int]] = {}
        for (watch, at), n in counts.items():
            if oldest <= at <= hour:
                arrivals.setdefault(watch, [0] * HOURS)[at - oldest] = n
        return arrivals


def draw(counts: Sequence[int]) -> Sparkline:
    """The picture of the counts; an hour with any arrival is at least one unit high."""
    peak = max(counts, default=0)
    bars = []
    for place, n in enumerate(counts):
        if n:
            height = max(1.0, round(_HEIGHT * n / peak, 1))
            bars.append((place * (_BAR + _GAP), round(_HEIGHT - height, 1), height))
    return Sparkline(
        width=len(counts) * (_BAR + _GAP) - _GAP, height=_HEIGHT, bars=bars, total=sum(counts), peak=peak
    )
