"""Two worker processes against one on a step that only computes, and what the dispatch of a shard costs.

Real `watcher worker` processes over a throw-away Postgres and the made-up platform in a process; the step is the upload
of pictures large enough to keep a core busy. Needs two free cores: on a loaded machine the ratio is lower. Beside it
two bare processes that do nothing but the step's computing: what this machine can give at the most.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from sqlalchemy import func, select, text

from benchmarks.client_servers import ROOT
from tests import postgres
from tests.acceptance.forge import Forge
from tests.scale.scene import Scene, wait_for
from watcher.database.engine import build_database
from watcher.store.tables import runs

N_PICTURES = int(os.environ.get("PICTURES", "480"))
SHARD = 6
LEAST_SPEEDUP = 1.8
MOST_OVERHEAD = 0.05
_N_BARE = 60
_BARE = """
import sys
from pathlib import Path
from watcher.images import build_thumbnail, compute_metadata, extract_exif, read_image
for _ in range(int(sys.argv[2])):
    image = read_image(Path(sys.argv[1]).read_bytes())
    compute_metadata(image), extract_exif(image), build_thumbnail(image)
"""


def main() -> int:
    """Prints speed-up and overhead beside their limits; 0 if both hold."""
    client = postgres.Client(f"bench-{os.getpid()}")
    forge = Forge()
    try:
        taken = {
            n: run_once(client.server, forge, n_workers=n, n_pictures=N_PICTURES, shard=SHARD) for n in (1, 2)
        }
    finally:
        forge.close()
        client.close()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "large.jpg")
        _make_photograph(picture)
        bare = 2 * _run_bare(picture, 1) / _run_bare(picture, 2)
    speedup = taken[1][0] / taken[2][0]
    overhead = taken[1][1]
    print(
        f"   {N_PICTURES} pictures in shards of {SHARD}: {taken[1][0]:.1f} s by one, {taken[2][0]:.1f} s by two workers"
    )
    print(f"   speed-up {speedup:.2f} (limit {LEAST_SPEEDUP}); of two bare processes {bare:.2f}")
    print(f"   between two shards of a worker {overhead:.1%} of a shard's time (limit {MOST_OVERHEAD:.0%})")
    return int(speedup < LEAST_SPEEDUP or overhead > MOST_OVERHEAD)


def run_once(
    server: postgres.Server, forge: Forge, *, n_workers: int, n_pictures: int, shard: int
) -> tuple[float, float]:
    """Seconds from the first start of a shard to the last end, and the share of them in which no shard ran."""
    admin = build_database(server.url("postgres"))
    name = postgres.new_database_name()
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    admin.close()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(
            Path(folder),
            forge,
            server.url(name),
            WATCHER_WATCHES__CAMS__BATCH__SHARD_SAMPLES=str(shard),
            WATCHER_WATCHES__CAMS__BATCH__MIN_SAMPLES=str(n_pictures),
            WATCHER_WATCHES__CAMS__BATCH__MAX_WAIT_S="600",
            WATCHER_WATCHES__CAMS__UPLOAD__WORKERS="1",
            # One listing, as it is with pictures that are all there; the tests' two a second would take their part.
            WATCHER_WATCHES__CAMS__SCHEDULE__INTERVAL_S="60",
            WATCHER_RUNS__LEASE_S="60",
        )
        try:
            picture = Path(folder) / "large.jpg"
            _make_photograph(picture)
            for number in range(n_pictures):
                os.link(picture, scene.folder / f"{number:06d}.jpg")
            replica = scene.add_replica()
            replica.start()
            wait_for(
                lambda: scene.count_states() == {"processing": n_pictures}, limit_s=120, what="all are listed"
            )
            workers = [scene.add_worker("--concurrency", "1") for _ in range(n_workers)]
            for worker in workers:
                worker.start()
            scene.wait_until_done(
                n_pictures, limit_s=600, every_s=2.0
            )  # what was measured stands in the store
            return _read_times(scene, n_workers=n_workers)
        finally:
            scene.close()


def _run_bare(picture: Path, n_processes: int) -> float:
    """Seconds until as many processes have each computed their pictures."""
    begun_s = time.perf_counter()
    command = [sys.executable, "-c", _BARE, str(picture), str(_N_BARE)]
    started = [subprocess.Popen(command, cwd=ROOT) for _ in range(n_processes)]
    for process in started:
        if process.wait(timeout=300):
            raise RuntimeError(f"a bare process ended with {process.returncode}")
    return time.perf_counter() - begun_s


def _make_photograph(path: Path) -> None:
    """24 megapixels with a sensor's grain, 1.7 MB: what a camera makes, and much to compute for each byte read."""
    import numpy as np
    from skimage import data

    coarse = Image.fromarray(data.coffee()).resize((6000, 4000), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 2, (4000, 6000, 3)).astype(np.float32)
    pixels = (np.asarray(coarse, dtype=np.float32) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", quality=85)


def _read_times(scene: Scene, *, n_workers: int) -> tuple[float, float]:
    database = scene.open_store()
    with database.read() as session:
        first, last, busy = session.execute(
            select(
                func.min(runs.c.started_ms),
                func.max(runs.c.finished_ms),
                func.sum(runs.c.finished_ms - runs.c.started_ms),
            ).where(runs.c.shard > 0)
        ).one()
    database.close()
    whole_s = (last - first) / 1000
    return whole_s, 1 - float(busy) / 1000 / (whole_s * n_workers)
