"""Polling new objects into the ledger.

Speed: rows a second of a durable poll of 100,000 new objects through the platform's own listing into SQLite, beside
the bare listing of lightly 1.5.26 over the same objects of the same server, which keeps nothing.
Durability: the same poll against the same with SQLite's `synchronous` off, which waits for no disk; in turns, from a
server that makes up its pages.
Memory: peak of the polling process at 10,000 and at 1,000,000 rows, from a server that makes up its pages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.client_servers import find_peer
from benchmarks.made_up_server import DATASET_ID, TOKEN, made_up_server

N_OBJECTS = 100_000
SMALL, LARGE = 10_000, 1_000_000
MOST_GROWTH_MB = 30
LEAST_DURABLE_RATIO = 0.8
N_TURNS = 3
PAGE = 1000

_PLATFORM = """
import sys, threading
from pathlib import Path
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.logs import configure_logging
configure_logging(level="ERROR")
root = Path(sys.argv[1])
server = PlatformServer(PlatformConfig(token=sys.argv[2], datasource_root=root, data_dir=root / "platform", port=0))
server.start()
print(server.url, flush=True)
sys.stdin.read()
server.stop()
"""

_OURS = """
import json, random, resource, sys, threading, time
from pathlib import Path
from sqlalchemy import event
from watcher.database.engine import build_database
from watcher.database.schema import upgrade_schema
from watcher.domain.clock import SystemClock
from watcher.domain.models import BatchRules, WatchConfig
from watcher.domain.poll_rules import PollRules
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.poll import Poller
from watcher.store import SCHEMA, watches
from watcher.store.counts import load_counts
server, token, dataset_id, folder, *durability = sys.argv[1:]
database = build_database(f"sqlite:///{folder}/ledger.sqlite")
if durability:
    event.listen(database.engine, "connect", lambda opened, _: opened.execute("PRAGMA synchronous = OFF").close())
upgrade_schema(database, SCHEMA)
with database.write() as session:
    watch = watches.ensure_watch(session, name="bench", server=server, dataset_id=dataset_id, now_ms=0)
config = WatchConfig(name="bench", dataset="bench", poll=PollRules(hold_back_s=0), batch=BatchRules(max_open=1))
poller = Poller(database=database, transport=Transport(server=server, token=token), config=config,
                watch_id=watch.id, clock=SystemClock(), metrics=Metrics(), stop=threading.Event())
begun_s = time.perf_counter()
report = poller.run_cycle()
taken_s = time.perf_counter() - begun_s
with database.read() as session:
    n = sum(load_counts(session).values())
    synchronous = session.connection().exec_driver_sql("PRAGMA synchronous").scalar_one()
assert bool(synchronous) != bool(durability), synchronous
assert n == report.n_new, (n, report)
print(json.dumps({"n": n, "s": taken_s, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
database.close()
"""

_LIGHTLY = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
server, token, dataset_id = sys.argv[1:]
os.environ["LIGHTLY_SERVER_LOCATION"] = server
from lightly.api import ApiWorkflowClient
client = ApiWorkflowClient(token=token, dataset_id=dataset_id)
begun_s = time.perf_counter()
rows = client.download_raw_samples()
print(json.dumps({"n": len(rows), "s": time.perf_counter() - begun_s}))
"""


def main() -> int:
    """Prints rows a second of both, and peak memory; 0 if ours is at least as fast and memory stays flat."""
    with tempfile.TemporaryDirectory() as folder:
        faster = _compare_speed(Path(folder))
    durable = _compare_durability()
    small, large = _measure_peak(SMALL), _measure_peak(LARGE)
    growth_mb = large["mb"] - small["mb"]
    print(
        f"   peak memory: {small['mb']:.0f} MB at {small['n']:,} rows, {large['mb']:.0f} MB at {large['n']:,} rows"
    )
    print(
        f"   growth {growth_mb:.1f} MB (limit {MOST_GROWTH_MB}); {large['n'] / large['s']:,.0f} rows/s there"
    )
    return int(not (faster and durable and growth_mb <= MOST_GROWTH_MB))


def _compare_speed(root: Path) -> bool:
    _make_objects(root / "objects", N_OBJECTS)
    peer = find_peer("1.5.26")
    with _platform(root) as server:
        dataset_id = _make_dataset(server)
        arguments = [server, TOKEN, dataset_id]
        ours = _run(sys.executable, _OURS, [*arguments, str(root)])
        theirs = _run(peer, _LIGHTLY, arguments)
    assert ours["n"] == theirs["n"] == N_OBJECTS, (ours, theirs)
    ours_rate, their_rate = ours["n"] / ours["s"], theirs["n"] / theirs["s"]
    print(f"   durable poll into SQLite      {ours_rate:>9,.0f} rows/s, peak {ours['mb']:.0f} MB")
    print(f"   lightly 1.5.26, listing alone {their_rate:>9,.0f} rows/s")
    print(f"   ratio {ours_rate / their_rate:.2f} (limit 1.00)")
    return ours_rate >= their_rate


def _compare_durability() -> bool:
    rates: dict[str, list[float]] = {"on": [], "off": []}
    with made_up_server(N_OBJECTS) as server:
        for _ in range(N_TURNS):
            for durability, found in rates.items():
                with tempfile.TemporaryDirectory() as folder:
                    arguments = [server, TOKEN, DATASET_ID, folder]
                    measured = _run(
                        sys.executable, _OURS, [*arguments, "off"] if durability == "off" else arguments
                    )
                assert measured["n"] == N_OBJECTS, measured
                found.append(measured["n"] / measured["s"])
    on, off = (median(rates[durability]) for durability in ("on", "off"))
    print(f"   durable {on:,.0f} rows/s, with durability off {off:,.0f} rows/s (medians of {N_TURNS})")
    print(f"   ratio {on / off:.2f} (limit {LEAST_DURABLE_RATIO:.2f})")
    return on / off >= LEAST_DURABLE_RATIO


def _make_objects(folder: Path, n: int) -> None:
    for number in range(n):
        if number % PAGE == 0:
            place = folder / f"camera-{number // PAGE:03d}"
            place.mkdir(parents=True)
        os.close(os.open(place / f"frame-{number:06d}.jpg", os.O_CREAT | os.O_WRONLY))
        os.utime(place / f"frame-{number:06d}.jpg", (1_600_000_000 + number, 1_600_000_000 + number))


@contextmanager
def _platform(root: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PLATFORM, str(root), TOKEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=30)


def _make_dataset(server: str) -> str:
    from watcher.lightly import datasets, datasources
    from watcher.lightly.transport import Transport
    from watcher.lightly.wire.datasets import DatasetCreateRequest
    from watcher.lightly.wire.datasources import DatasourceLocal

    transport = Transport(server=server, token=TOKEN)
    dataset_id = datasets.create_dataset(transport, request=DatasetCreateRequest(name="bench"))
    datasources.update_datasource(
        transport,
        dataset_id=dataset_id,
        datasource=DatasourceLocal(full_path="objects", purpose="INPUT_OUTPUT"),
    )
    return dataset_id


def _run(python: str, code: str, arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _measure_peak(n_rows: int) -> dict[str, Any]:
    with made_up_server(n_rows) as server, tempfile.TemporaryDirectory() as folder:
        return _run(sys.executable, _OURS, [server, TOKEN, DATASET_ID, folder])
