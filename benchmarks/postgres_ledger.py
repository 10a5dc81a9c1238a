"""A large ledger on Postgres: bulk ingest, a poll's pages, claims, status and scrape, and the room a row takes.

The Postgres is a throw-away one on this machine, durable as it comes (`fsync`, `synchronous_commit` on). The rows are
made by the store function that polls use, page by page. With `ROWS=10000000` the ledger is as large as the limits were
written for; the default is what a few minutes allow.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from sqlalchemy import text

from tests import postgres
from watcher.database.engine import Database, build_database
from watcher.database.schema import upgrade_schema
from watcher.domain.models import BatchRules, Step, Via, WatchConfig
from watcher.domain.window import Window
from watcher.ops.collector import StoreCollector
from watcher.ops.overview import load_overview
from watcher.store import SCHEMA, claims, polls, runs, samples, watches
from watcher.store.cutting import cut_batches

N_ROWS = int(os.environ.get("ROWS", "500000"))
N_NEW = 10_000
PAGE = 1_000
BULK_PAGE = 10_000
LEAST_NEW_PER_S, LEAST_KNOWN_PER_S = 40_000, 80_000
MOST_POLL_RATIO = 1.3
MOST_CLAIM_S = 0.010
MOST_READ_S = 0.200
_UPLOAD = Step.UPLOAD
NOW_MS = 1_700_000_000_000


def main() -> int:
    """Prints what was measured beside its limit; 0 if all hold."""
    os.environ[postgres.DURABLE_VARIABLE] = "1"
    client = postgres.Client(f"bench-{os.getpid()}")
    server = client.server
    try:
        name = postgres.new_database_name()
        admin = build_database(server.url("postgres"))
        with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        admin.close()
        database = build_database(server.url(name))
        upgrade_schema(database, SCHEMA)
        failures = _measure(database)
        database.close()
    finally:
        client.close()
    return int(failures > 0)


def _measure(database: Database) -> int:
    with database.write() as session:
        watch = watches.ensure_watch(session, name="bench", server="s", dataset_id="0" * 24, now_ms=NOW_MS)
        window = Window(from_s=1, to_s=2, overlap_from_s=None)
        poll = polls.create_poll(session, watch_id=watch.id, window=window, now_ms=NOW_MS)

    def list_page(first: int, n: int) -> int:
        rows = [
            (f"camera/{i:09d}.jpg", f"https://b.example.com/{i:09d}?X-Amz-Signature=0", None)
            for i in range(first, first + n)
        ]
        with database.write() as session:
            return samples.record_page(
                session, watch_id=watch.id, poll_id=poll.id, via=Via.WINDOW, rows=rows, now_ms=NOW_MS
            )

    def list_new(first: int) -> float:
        return _time(lambda: [list_page(start, PAGE) for start in range(first, first + N_NEW, PAGE)])

    empty_s = min(list_new(N_ROWS + k * N_NEW) for k in range(3))
    begun_s = time.perf_counter()
    for first in range(0, N_ROWS, BULK_PAGE):
        assert list_page(first, BULK_PAGE) == BULK_PAGE
    new_per_s = N_ROWS / (time.perf_counter() - begun_s)
    n_known = min(N_ROWS, 400_000)
    known_s = _time(lambda: [list_page(first, BULK_PAGE) for first in range(0, n_known, BULK_PAGE)])
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        n_bytes = connection.execute(text("SELECT pg_total_relation_size('samples')")).scalar_one()
    full_s = min(list_new(N_ROWS + k * N_NEW) for k in range(3, 6))
    claim_s = _measure_claims(database, watch.id)
    collector = StoreCollector(database, configured=frozenset({"bench"}))
    status_s = _median(lambda: load_overview(database, now_ms=NOW_MS))
    scrape_s = _median(lambda: list(collector.collect()))
    n_all = N_ROWS + 3 * N_NEW
    print(f"   ledger of {N_ROWS:,} rows, {n_bytes / n_all:.0f} bytes a row with its indexes")
    checks = [
        ("new rows a second", new_per_s, LEAST_NEW_PER_S, new_per_s >= LEAST_NEW_PER_S),
        ("known rows a second", n_known / known_s, LEAST_KNOWN_PER_S, n_known / known_s >= LEAST_KNOWN_PER_S),
        (
            f"poll of {N_NEW:,} new ones, full / empty",
            full_s / empty_s,
            MOST_POLL_RATIO,
            full_s / empty_s <= MOST_POLL_RATIO,
        ),
        ("claim, s", claim_s, MOST_CLAIM_S, claim_s <= MOST_CLAIM_S),
        ("status, s", status_s, MOST_READ_S, status_s <= MOST_READ_S),
        ("scrape, s", scrape_s, MOST_READ_S, scrape_s <= MOST_READ_S),
    ]
    for what, value, limit, holds in checks:
        print(f"   {what}: {value:,.4g} (limit {limit:,g}){'' if holds else '  MISSED'}")
    return sum(not holds for *_, holds in checks)


def _measure_claims(database: Database, watch_id: int) -> float:
    """Median time of a claim among a thousand ready shards of a batch, with 100 other watches that have work."""
    rules = BatchRules(min_samples=1, max_samples=100_000, max_open=1, shard_samples=100)
    with database.write() as session:
        cut_batches(
            session,
            watch_id=watch_id,
            config=WatchConfig(name="bench", dataset="d", batch=rules),
            now_ms=NOW_MS,
        )
        for number in range(100):
            other = watches.ensure_watch(
                session, name=f"w{number}", server="s", dataset_id=f"{number + 1:024d}", now_ms=NOW_MS
            )
            session.execute(
                text(
                    "INSERT INTO batches (watch_id, number, key, state, steps, n_samples, created_ms)"
                    " VALUES (:w, 1, :k, 'open', 'upload', 1, 0)"
                ),
                {"w": other.id, "k": f"w{number}-1"},
            )
            batch_id = session.execute(text("SELECT max(id) FROM batches")).scalar_one()
            for step_shard in range(5):
                runs.create_run(session, batch_id=batch_id, step=_UPLOAD, now_ms=NOW_MS, shard=step_shard + 1)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))  # as a server does by itself within a minute
    taken = []
    for number in range(60):
        begun_s = time.perf_counter()
        with database.write() as session:
            assert claims.claim_run(session, owner="b", now_ms=NOW_MS + number, lease_ms=60_000) is not None
        taken.append(time.perf_counter() - begun_s)
    return statistics.median(taken)


def _time(act: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    act()
    return time.perf_counter() - begun_s


def _median(act: Callable[[], object]) -> float:
    return statistics.median(_time(act) for _ in range(5))
