"""The upload step through the whole daemon, photographs of 1600 x 1200, beside lightly 1.2.8 in the same run.

Ours polls, reads each picture by its read URL and keeps the ledger; theirs reads a local folder. Both talk to trivial
servers in Python on the same machine. Memory is measured at two sizes of the one batch: it must not grow with it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.client_servers import DATASET_ID, ROOT, TOKEN, find_peer, report, run_program, serve
from benchmarks.client_upload import _THEIRS, _make_photographs
from benchmarks.daemon_server import serve_daemon

N_FEW, N_MANY, N_THEIRS = 80, 320, 40
LEAST_OVER_LIGHTLY = 8.0
MOST_MB = 300
MOST_GROWTH_MB = 30

OURS = """
import json, os, resource, sys, time
server, token, folder, steps, n_objects = sys.argv[1:]
from pathlib import Path
from watcher.daemon import Daemon
from watcher.database.engine import build_database
from watcher.logs import configure_logging
from watcher.memory import limit_arenas
from watcher.settings.root import load_settings
limit_arenas()  # as `watcher run` does
configure_logging(level=os.environ.get("WATCHER_BENCH_LOG", "ERROR"))
watch = "WATCHER_WATCHES__BENCH__"
settings = load_settings({
    "LIGHTLY_TOKEN": token, "LIGHTLY_SERVER_LOCATION": server, "WATCHER_DATA_DIR": folder,
    f"{watch}DATASET": "bench", f"{watch}STEPS": steps, f"{watch}POLL__HOLD_BACK_S": "0",
    f"{watch}BATCH__MIN_SAMPLES": "1", f"{watch}BATCH__MAX_SAMPLES": n_objects, f"{watch}UPLOAD__WORKERS": "8",
})
Path(folder).mkdir(exist_ok=True)
daemon = Daemon(settings)
daemon.open()
begun_s = time.perf_counter()
assert daemon.poll("bench").n_new == int(n_objects)
daemon.run_ready()
seconds = time.perf_counter() - begun_s
with build_database(f"sqlite:///{folder}/watcher.sqlite").read() as session:
    from watcher.domain.models import SampleState
    from watcher.store import counts
    n_done = counts.load_counts(session)["bench", SampleState.DONE]
daemon.stop()
assert n_done == int(n_objects), n_done
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([n_done, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


def measure(photographs: Path, n_objects: int, *, steps: str = "upload") -> Any:
    """(Samples, seconds, CPU seconds, peak MB) of the daemon over `n_objects` in one batch."""
    with tempfile.TemporaryDirectory() as folder, serve_daemon(photographs, n_objects) as server:
        return run_program(
            sys.executable, OURS, server, TOKEN, str(Path(folder, "data")), steps, str(n_objects)
        )


def main() -> int:
    """Prints images a second, CPU seconds an image and peak memory; 0 if the limits hold."""
    peer = find_peer("1.2.8")
    with tempfile.TemporaryDirectory() as folder, serve("upload") as server:
        photographs = Path(folder, "photographs")
        _make_photographs(photographs, N_THEIRS)
        theirs = run_program(
            peer,
            _THEIRS,
            server,
            TOKEN,
            DATASET_ID,
            str(photographs),
            str(ROOT / "tests" / "official"),
            environment={"LIGHTLY_DID_VERSION_CHECK": "True"},
        )
        few, many = measure(photographs, N_FEW), measure(photographs, N_MANY)
    for name, (n, seconds, cpu, mb) in (("lightly 1.2.8", theirs), ("daemon", few), ("daemon", many)):
        print(
            f"   {name:14} {n:4} photographs: {n / seconds:6.1f} images/s, {cpu / n:.3f} CPU s an image, "
            f"peak {mb:.0f} MB"
        )
    ratio = (many[0] / many[1]) / (theirs[0] / theirs[1])
    results = [
        report("times lightly 1.2.8", ratio, LEAST_OVER_LIGHTLY, at_least=True),
        report("peak MB", many[3], MOST_MB, at_least=False),
        report("growth of the peak, MB", many[3] - few[3], MOST_GROWTH_MB, at_least=False),
    ]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
