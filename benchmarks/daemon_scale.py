"""The daemon with 100 watches over a ledger of 1,000,000 samples: start, memory, idle share, time of a scrape."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import requests
from sqlalchemy import text

from benchmarks.daemon_idle import READY_LIMIT_S, _read_cpu_s, _read_resident_mb, _read_url, _wait_until_ready

N_WATCHES = 100
N_SAMPLES = int(os.environ.get("BENCH_SAMPLES", "1000000"))
IDLE_S = 20
N_SCRAPES = 20
READY_LIMIT, MEMORY_LIMIT_MB, CPU_LIMIT, SCRAPE_LIMIT_S = 2.0, 120, 0.02, 0.1


def main() -> int:
    """Prints the four figures beside their limits; 0 if all hold."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "LIGHTLY_"))},
            "WATCHER_DATA_DIR": folder,
            "WATCHER_HTTP__PORT": "0",
            "WATCHER_PLATFORM__PORT": "0",
            **{f"WATCHER_WATCHES__CAM{n:03}__SCHEDULE__INTERVAL_S": "600" for n in range(N_WATCHES)},
        }
        with _Daemon(environ) as daemon:  # attaches the watches
            ends_s = time.monotonic() + 300
            while daemon.count("watcher_mark_timestamp_seconds") < N_WATCHES:
                assert time.monotonic() < ends_s, "the watches are not attached"
                time.sleep(0.5)
        _fill(Path(folder))
        begun_s = time.monotonic()
        with _Daemon(environ) as daemon:
            ready_s = time.monotonic() - begun_s
            time.sleep(15)  # the first polls
            cpu_before_s = _read_cpu_s(daemon.pid)
            time.sleep(IDLE_S)
            share = (_read_cpu_s(daemon.pid) - cpu_before_s) / IDLE_S
            resident_mb = _read_resident_mb(daemon.pid)
            taken_s = []
            for _ in range(N_SCRAPES):
                scrape_begun_s = time.perf_counter()
                n_lines = daemon.count("watcher_")
                taken_s.append(time.perf_counter() - scrape_begun_s)
            scrape_s = statistics.median(taken_s)
    print(f"   ready after {ready_s:.2f} s (limit {READY_LIMIT:g})")
    print(
        f"   {resident_mb:.0f} MB resident (limit {MEMORY_LIMIT_MB}), {share:.1%} of a core (limit {CPU_LIMIT:.0%})"
    )
    print(
        f"   scrape of {n_lines:,} series over {N_SAMPLES:,} samples: {scrape_s * 1000:.0f} ms "
        f"(limit {SCRAPE_LIMIT_S * 1000:.0f})"
    )
    return int(
        ready_s > READY_LIMIT
        or resident_mb > MEMORY_LIMIT_MB
        or share > CPU_LIMIT
        or scrape_s > SCRAPE_LIMIT_S
    )


class _Daemon:
    """A running daemon, ended at the end of the block."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "watcher", "run"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        self._url = _read_url(self._process)
        _wait_until_ready(self._url, time.monotonic() + READY_LIMIT_S)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._session.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=120)

    def count(self, name: str) -> int:
        """How many series have a name that begins so, by one scrape."""
        answer = self._session.get(f"{self._url}/metrics", timeout=60)
        return sum(line.startswith(name) for line in answer.text.splitlines())


def _fill(folder: Path) -> None:
    """Finished samples, the same number for each watch."""
    from watcher.database.engine import build_database

    database = build_database(f"sqlite:///{folder / 'watcher.sqlite'}")
    with database.write() as session:
        session.execute(
            text(
                "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :each) "
                "INSERT INTO samples (watch_id, file_name, read_url, state, via, poll_id, available_ms, "
                "discovered_ms, changed_ms) SELECT watches.id, 'camera/' || n || '.jpg', 'http://127.0.0.1/x', "
                "'done', 'window', 1, 0, 0, 0 FROM watches, numbers"
            ),
            {"each": N_SAMPLES // N_WATCHES},
        )
    database.close()


if __name__ == "__main__":
    sys.exit(main())
