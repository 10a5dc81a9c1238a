"""Names in a tag of 1,000,000 samples, and whether ten times the samples take ten times the time."""

from __future__ import annotations

import random
import sys
import time

from benchmarks.client_servers import report
from watcher.domain.bitmask import BitMask
from watcher.lightly.workflows.download import select_by_mask

N_SAMPLES = 1_000_000
MOST_SECONDS = 1.0
MOST_GROWTH = 20.0


def main() -> int:
    """Prints seconds for a tag of every second sample, from and to its text; 0 if the limits hold."""
    small = min(_measure(N_SAMPLES // 10) for _ in range(5))
    large = min(_measure(N_SAMPLES) for _ in range(5))
    in_time = report(f"seconds for {N_SAMPLES:,} samples", large, MOST_SECONDS, at_least=False)
    linear = report("times the tenth", large / small, MOST_GROWTH, at_least=False)
    return int(not (in_time and linear))


def _measure(n: int) -> float:
    rng = random.Random(1)
    names = [f"frame-{number}.jpg" for number in range(n)]
    positions = sorted(rng.sample(range(n), n // 2))
    begun_s = time.perf_counter()
    text = BitMask.from_indices(positions).to_hex()
    found = select_by_mask(text, names)
    taken_s = time.perf_counter() - begun_s
    assert len(found) == n // 2
    assert found[0] == names[positions[0]]
    return taken_s


if __name__ == "__main__":
    sys.exit(main())
