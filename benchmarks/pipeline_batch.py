"""One large batch of small pictures through all steps: memory flat, time linear.

`WATCHER_BENCH_BATCH` sets the number of samples of the large batch (100,000 by default); the small one has a tenth.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.client_servers import report
from benchmarks.pipeline_upload import measure

N_LARGE = int(os.environ.get("WATCHER_BENCH_BATCH", "100000"))
STEPS = "upload,embed,sampling,deliver"
MOST_GROWTH_MB = 40
MOST_TIME_RATIO = 1.3


def main() -> int:
    """Prints samples a second and peak memory of both sizes; 0 if memory is flat and time linear."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        _make_pictures(pictures, 200)
        small = measure(pictures, max(100, N_LARGE // 10), steps=STEPS)
        large = measure(pictures, N_LARGE, steps=STEPS)
    for n, seconds, cpu, mb in (small, large):
        print(
            f"   {n:7,} samples: {seconds:7.1f} s, {n / seconds:6.0f}/s, {cpu / n * 1000:.2f} CPU ms a sample, "
            f"peak {mb:.0f} MB"
        )
    time_ratio = (large[1] / large[0]) / (small[1] / small[0])
    results = [
        report("growth of the peak, MB", large[3] - small[3], MOST_GROWTH_MB, at_least=False),
        report("time a sample, large over small", time_ratio, MOST_TIME_RATIO, at_least=False),
    ]
    return int(not all(results))


def _make_pictures(folder: Path, n: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.jpg", quality=85)


if __name__ == "__main__":
    sys.exit(main())
