"""How tests wait: until something holds, with a limit that only what hangs reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

# Tests run beside others on few cores: a limit near the usual time would fail of load alone.
LIMIT_S = 60.0


def wait_for(
    condition: Callable[[], object],
    *,
    what: str = "the condition holds",
    limit_s: float = LIMIT_S,
    explain: Callable[[], str] = str,
    every_s: float = 0.2,
) -> None:
    """Waits until the condition holds; fails with `what` and an explanation at the limit.

    The pauses grow from 2 ms to `every_s`: what comes at once is seen at once, what takes long is not asked all the time.
    """
    ends_s = time.monotonic() + limit_s
    pause_s = 0.002
    while not condition():
        assert time.monotonic() < ends_s, f"not within {limit_s:.0f} s: {what}\n{explain()}"
        time.sleep(pause_s)
        pause_s = min(every_s, pause_s * 1.5)
