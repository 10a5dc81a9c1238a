"""How long to wait before the next try: exponential, capped, jittered, never shorter than the other side asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of waits.

    Attributes:
        base_s: wait after the first failure, in seconds.
        cap_s: longest wait, in seconds.
        max_attempts: tries in all; after the last one the caller gives up.
    """

    base_s: float = 1.0
    cap_s: float = 3600.0
    max_attempts: int = 8

    def compute_delay_s(self, *, attempt: int, jitter: float, floor_s: float | None = None) -> float:
        """Wait after the failed try number `attempt` (from 1).

        Args:
            attempt: number of the try that failed, from 1.
            jitter: a random number in [0, 1); the wait lies between half of the full one and the full one, so
                that many waiters spread out while none comes back at once ("equal jitter").
            floor_s: what the other side asked for (`Retry-After`), never undercut, and not capped.
        """
        full = min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60))
        delay = full / 2 + full / 2 * jitter
        return max(delay, floor_s or 0.0)

    def is_exhausted(self, *, attempt: int) -> bool:
        """Whether try number `attempt` was the last one."""
        return attempt >= self.max_attempts
