"""The status page over 100 watches, 1,000,000 samples and a day of polls, beside the same page over 100 samples.

The server of the API is never asked: only the store and the page are measured.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import insert

from benchmarks.made_up_server import DATASET_ID

N_WATCHES, N_SAMPLES, N_POLLS = 100, 1_000_000, 1440
N_LOADS = 30
LIMIT_MS = 150.0


def main() -> int:
    """Prints the medians of `/` and `/watches/...` on both stores; 0 if those of the large one are below 150 ms."""
    large = _measure(N_SAMPLES, N_POLLS)
    small = _measure(100, 1)
    for path, taken_ms in large.items():
        print(f"   {path}: {taken_ms:.1f} ms on {N_SAMPLES:,} samples, {small[path]:.1f} ms on 100")
    print(f"   limit {LIMIT_MS:.0f} ms")
    return int(any(taken_ms > LIMIT_MS for taken_ms in large.values()))


def _measure(n_samples: int, n_polls: int) -> dict[str, float]:
    import requests

    from watcher.database.engine import build_database
    from watcher.database.schema import upgrade_schema
    from watcher.domain.clock import SystemClock
    from watcher.lightly.transport import Transport
    from watcher.ops.app import build_app
    from watcher.ops.health import AccessWatch, Heartbeats
    from watcher.ops.parts import OpsParts
    from watcher.ops.tokens import ControlTokens
    from watcher.serving import ThreadedServer
    from watcher.store import SCHEMA

    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        database = build_database(f"sqlite:///{Path(folder)}/store.sqlite")
        upgrade_schema(database, SCHEMA)
        _fill(database, n_samples=n_samples, n_polls=n_polls, now_ms=int(clock.now_s() * 1000))
        transport = Transport(server="http://127.0.0.1:1", token="never-sent", rng=random.Random(1))
        parts = OpsParts(
            database=database,
            transport=transport,
            registry=CollectorRegistry(),
            heartbeats=Heartbeats(clock),
            access=AccessWatch(clock),
            clock=clock,
            tokens=ControlTokens(local="x" * 40),
            look_for_requests=lambda: None,
            next_polls=dict,
        )
        server = ThreadedServer(build_app(parts), host="127.0.0.1", port=0, name="page", setting="-")
        server.start()
        taken: dict[str, float] = {}
        with requests.Session() as session:
            session.trust_env = False
            for path in ("/", "/watches/cam-007", "/log"):
                begun_s = time.perf_counter()
                session.get(server.url + path, timeout=60).raise_for_status()
                print(
                    f"   first {path}: {(time.perf_counter() - begun_s) * 1000:.1f} ms ({n_samples:,} samples)"
                )
                times = []
                for _ in range(N_LOADS):
                    begun_s = time.perf_counter()
                    session.get(server.url + path, timeout=60).raise_for_status()
                    times.append((time.perf_counter() - begun_s) * 1000)
                taken[path] = statistics.median(times)
        server.stop()
        transport.close()
        database.close()
    return taken


def _fill(database: object, *, n_samples: int, n_polls: int, now_ms: int) -> None:
    from watcher.database.engine import Database
    from watcher.store import tables, watches

    assert isinstance(database, Database)
    with database.write() as session:
        ids = [
            watches.ensure_watch(
                session,
                name=f"cam-{number:03d}",
                server="s",
                dataset_id=f"{number:06x}{DATASET_ID[6:]}",
                now_ms=now_ms,
            ).id
            for number in range(N_WATCHES)
        ]
        for watch_id in ids:
            for number in range(10):
                session.execute(
                    insert(tables.batches).values(
                        watch_id=watch_id, number=number + 1, key=f"{watch_id}-{number}", state="done",
                        steps="upload,embed", n_samples=1000, created_ms=now_ms, finished_ms=now_ms,
                    )
                )  # fmt: skip
    for start in range(0, n_polls * N_WATCHES, 20_000):
        with database.write() as session:
            session.execute(
                insert(tables.polls),
                [
                    {
                        "watch_id": ids[number % N_WATCHES], "state": "done", "from_s": 1, "to_s": 2, "via": "window",
                        "n_new": 7, "started_ms": now_ms - 86_400_000 * (n_polls * N_WATCHES - number)
                        // (n_polls * N_WATCHES),
                    }
                    for number in range(start, min(start + 20_000, n_polls * N_WATCHES))
                ],
            )  # fmt: skip
    for start in range(0, n_samples, 20_000):
        with database.write() as session:
            session.execute(
                insert(tables.samples),
                [
                    {
                        "watch_id": ids[number % N_WATCHES], "file_name": f"frame-{number:09d}.jpg",
                        "read_url": "http://127.0.0.1/x", "state": "quarantined" if number % 50 == 0 else "done",
                        "via": "window", "poll_id": 1, "available_ms": 0, "discovered_ms": now_ms,
                        "changed_ms": now_ms,
                    }
                    for number in range(start, min(start + 20_000, n_samples))
                ],
            )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
