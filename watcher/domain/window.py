"""Which seconds a poll lists: the fresh window and the overlap before it, which follows the lateness that was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from watcher.domain.errors import ClockError
from watcher.domain.poll_rules import PollRules

# The next late object may be later than the last; a lateness counts half after this time.
_MARGIN = 1.5
_HALF_LIFE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Window:
    """Both ends included, unix seconds.

    Attributes:
        from_s, to_s: the fresh window; empty if from_s > to_s.
        overlap_from_s: the overlap is [overlap_from_s, from_s - 1]; None on the first poll of a watch.
    """

    from_s: int
    to_s: int
    overlap_from_s: int | None

    @property
    def is_empty(self) -> bool:
        """Whether the fresh window holds no second."""
        return self.from_s > self.to_s


def compute_window(
    *, mark_s: int | None, server_now_s: int, rules: PollRules, overlap_s: int | None = None
) -> Window:
    """The window of a poll that starts at `server_now_s` by the server's clock, with `overlap_s` or the rules' own.

    The end is frozen here, before the first page, and never moves back behind the mark: a server clock that went
    back gives an empty fresh window, while the overlap is still listed.
    """
    to_s = max(0, server_now_s - rules.hold_back_s)
    if mark_s is None:
        return Window(from_s=0, to_s=to_s, overlap_from_s=None)
    overlap_s = rules.overlap_s if overlap_s is None else overlap_s
    overlap_from_s = max(0, mark_s - overlap_s) if overlap_s > 0 else None
    return Window(from_s=mark_s + 1, to_s=max(to_s, mark_s), overlap_from_s=overlap_from_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """The lateness that counts for the overlap.

    Attributes:
        since_s: unix time from which on the watch has been observed.
        seen_s: the largest lateness that still counts, in seconds; None if nothing late was ever seen.
        seen_at_s: unix time at which it was seen.
    """

    since_s: float
    seen_s: int | None = None
    seen_at_s: float = 0.0

    def add(self, late_s: float, *, now_s: float) -> Lateness:
        """With one more observation: what is later than all that still counts takes its place, at once."""
        counted_s = self._decay(now_s)
        if self.seen_s is not None and late_s < counted_s:
            return self
        return Lateness(since_s=self.since_s, seen_s=math.ceil(max(0.0, late_s)), seen_at_s=now_s)

    def _decay(self, now_s: float) -> float:
        return 0.0 if self.seen_s is None else _halve(self.seen_s, now_s - self.seen_at_s)

    def compute_overlap(self, rules: PollRules, *, now_s: float) -> int:
        """How far before the mark is listed again, in whole seconds.

        One and a half times the largest lateness, which counts half after each day that brings nothing later, but
        never less than `overlap_min_s` (or, where that is not set, `overlap_s`) nor more than `overlap_max_s`. From
        the rules' `overlap_s` it begins, and shrinks at the same pace. 0 where the rules switch the overlap off.
        A single late object counts in full, as a quantile would not let it.
        """
        if rules.overlap_s == 0:
            return 0
        least_s = rules.overlap_s if rules.overlap_min_s is None else rules.overlap_min_s
        begun_s = _halve(rules.overlap_s, now_s - self.since_s)
        wanted_s = max(begun_s, _MARGIN * self._decay(now_s))
        return max(least_s, min(math.ceil(wanted_s), max(rules.overlap_max_s, least_s)))


def _halve(value: float, age_s: float) -> float:
    return value * math.pow(0.5, min(max(0.0, age_s) / _HALF_LIFE_S, 1000.0))


def check_clock(*, mark_s: int | None, server_now_s: int, local_now_s: float, rules: PollRules) -> None:
    """Refuses a time by which the mark must not move.

    Raises:
        ClockError: the server's clock is absurdly far from ours, or went back far behind the mark.
    """
    limit_s = rules.max_clock_error_s
    off_s = server_now_s - local_now_s
    if abs(off_s) > limit_s:
        raise ClockError(
            f"the server's clock says {format_s(server_now_s)}, this machine's {format_s(local_now_s)}: one of them is "
            f"wrong by {format_span(abs(off_s))}, so the poll waits and the mark stays; set the wrong clock right "
            f"(POLL__MAX_CLOCK_ERROR_S of the watch, {limit_s} s, is the most that is taken)"
        )
    if mark_s is not None and mark_s - server_now_s > limit_s:
        raise ClockError(
            f"the server's clock says {format_s(server_now_s)}, but the mark stands at {format_s(mark_s)}, "
            f"{format_span(mark_s - server_now_s)} later: one of them is wrong, so the poll waits and the mark stays; "
            "set the server's clock right, or set the mark back with `watcher rewind`"
        )


def format_s(seconds: float) -> str:
    """Unix seconds as a date and time; as a number where no calendar reaches."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{int(seconds)} s"


def format_span(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length_s in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.0f} s"
