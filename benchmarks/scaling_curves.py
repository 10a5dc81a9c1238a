"""The curves of `docs/scaling.md`: times over the size of the ledger, overhead over the size of a shard, workers.

Every figure is a ratio to another one of the same run, so that a loaded machine tells roughly the same as a quiet one.
`ROWS` is the largest ledger (2,000,000 for the page; default: what minutes allow). With `CURVES=FILE` what was
measured is written there as JSON, from which `docs/pictures/make_scaling.py` draws the picture.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks import workers_speedup
from tests import postgres
from tests.acceptance.forge import Forge
from watcher.database.engine import Database, build_database
from watcher.database.schema import upgrade_schema
from watcher.domain.models import Step, Via
from watcher.domain.window import Window
from watcher.ops.collector import StoreCollector
from watcher.ops.overview import load_overview
from watcher.store import SCHEMA, claims, polls, runs, samples, watches

SIZES = (10_000, 100_000, 300_000, 1_000_000, 2_000_000, 10_000_000)
N_ROWS = int(os.environ.get("ROWS", "100000"))
SHARDS = (1, 2, 5, 10, 20)
N_PICTURES = int(os.environ.get("PICTURES", "60"))
PAGE, BULK_PAGE, N_NEW = 1_000, 10_000, 10_000
N_WATCHES, N_RUNS = 100, 15
MOST_GROWTH = 1.3
NOW_MS = 1_700_000_000_000


def main() -> int:
    """Prints the curves; 0 if a poll on the largest ledger takes no more than 1.3 times that on the smallest."""
    os.environ[postgres.DURABLE_VARIABLE] = "1"
    client = postgres.Client(f"bench-{os.getpid()}")
    forge = Forge()
    try:
        ledger = _measure_ledger(client.server)
        shards = _measure_shards(client.server, forge)
    finally:
        forge.close()
        client.close()
    curves = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "pictures": N_PICTURES,
        "ledger": ledger,
        **shards,
    }
    if "CURVES" in os.environ:
        Path(os.environ["CURVES"]).write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    return int(ledger[-1]["poll_s"] / ledger[0]["poll_s"] > MOST_GROWTH)


def _measure_ledger(server: postgres.Server) -> list[dict[str, float]]:
    name = postgres.new_database_name()
    admin = build_database(server.url("postgres"))
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    admin.close()
    database = build_database(server.url(name))
    try:
        upgrade_schema(database, SCHEMA)
        ledger = Ledger(database)
        curve = [ledger.measure(size) for size in SIZES if size <= N_ROWS]
    finally:
        database.close()
    print(f"   {'rows':>10}  poll of {N_NEW:,}   claim  status  scrape   (ms)")
    for row in curve:
        times = [f"{row[key] * 1000:,.1f}" for key in ("poll_s", "claim_s", "status_s", "scrape_s")]
        print(f"   {row['rows']:>10,.0f}  {times[0]:>14}  {times[1]:>6}  {times[2]:>6}  {times[3]:>6}")
    return curve


class Ledger:
    """A ledger of one large watch that grows, beside a hundred small ones with work."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._n = 0
        self._n_claims = 0
        with database.write() as session:
            self._watch = watches.ensure_watch(
                session, name="bench", server="s", dataset_id="0" * 24, now_ms=NOW_MS
            )
            window = Window(from_s=1, to_s=2, overlap_from_s=None)
            self._poll = polls.create_poll(session, watch_id=self._watch.id, window=window, now_ms=NOW_MS)
            for number in range(N_WATCHES):
                watch = watches.ensure_watch(
                    session, name=f"w{number}", server="s", dataset_id=f"{number + 1:024d}", now_ms=NOW_MS
                )
                self._add_work(session, watch.id, f"w{number}-1")

    @staticmethod
    def _add_work(session: Any, watch_id: int, key: str) -> None:
        session.execute(
            text(
                "INSERT INTO batches (watch_id, number, key, state, steps, n_samples, created_ms)"
                " VALUES (:w, 1, :k, 'open', 'upload', 1, 0)"
            ),
            {"w": watch_id, "k": key},
        )
        batch_id = session.execute(text("SELECT max(id) FROM batches")).scalar_one()
        for shard in range(1, N_RUNS + 1):
            runs.create_run(session, batch_id=batch_id, step=Step.UPLOAD, now_ms=NOW_MS, shard=shard)

    def measure(self, size: int) -> dict[str, float]:
        """Grows to `size` rows, then measures everything; seconds."""
        while self._n < size:
            self._list(min(BULK_PAGE, size - self._n))
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as a server does by itself within a minute
            n_bytes = connection.execute(text("SELECT pg_total_relation_size('samples')")).scalar_one()
        collector = StoreCollector(self._database, configured=frozenset({"bench"}))
        measured = {
            "rows": float(size),
            "bytes_a_row": n_bytes / self._n,
            "claim_s": statistics.median(_time(self._claim) for _ in range(20)),
            "status_s": statistics.median(
                _time(lambda: load_overview(self._database, now_ms=NOW_MS)) for _ in range(5)
            ),
            "scrape_s": statistics.median(_time(lambda: list(collector.collect())) for _ in range(5)),
        }
        return measured | {"poll_s": min(_time(self._list_new) for _ in range(3))}

    def _list_new(self) -> None:
        for _ in range(N_NEW // PAGE):
            self._list(PAGE)

    def _list(self, n: int) -> None:
        rows = [
            (f"camera/{i:09d}.jpg", f"https://b.example.com/{i:09d}?X-Amz-Signature=0", None)
            for i in range(self._n, self._n + n)
        ]
        self._n += n
        with self._database.write() as session:
            n_new = samples.record_page(
                session,
                watch_id=self._watch.id,
                poll_id=self._poll.id,
                via=Via.WINDOW,
                rows=rows,
                now_ms=NOW_MS,
            )
        assert n_new == n

    def _claim(self) -> None:
        self._n_claims += 1
        with self._database.write() as session:
            run = claims.claim_run(session, owner="b", now_ms=NOW_MS + self._n_claims, lease_ms=60_000)
        assert run is not None


def _measure_shards(server: postgres.Server, forge: Forge) -> dict[str, list[dict[str, float]]]:
    shards = []
    for shard in SHARDS:
        took_s, idle = workers_speedup.run_once(
            server, forge, n_workers=1, n_pictures=N_PICTURES, shard=shard
        )
        shards.append({"shard": float(shard), "s": took_s, "idle": idle})
        print(f"   shards of {shard}: {took_s:.1f} s, {idle:.1%} of it between two shards")
    middle = SHARDS[-2]
    workers = []
    for n in (1, 2):
        took_s, _idle = workers_speedup.run_once(
            server, forge, n_workers=n, n_pictures=N_PICTURES, shard=middle
        )
        workers.append({"workers": float(n), "s": took_s})
        print(f"   {n} workers, shards of {middle}: {took_s:.1f} s, {workers[0]['s'] / took_s:.2f} times one")
    return {"shards": shards, "workers": workers}


def _time(act: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    act()
    return time.perf_counter() - begun_s
