"""What the size of the ledger costs: a poll that finds nothing new, and a full reconcile.

The server is made up, so that only our side is measured. The poll lists 500 known names in the overlap; its time on a
ledger of 1,000,000 rows is compared with that on 1,000 rows of the same run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.made_up_server import DATASET_ID, TOKEN, made_up_server

SMALL, LARGE = 1_000, 1_000_000
N_POLLS = 30
OVERLAP_NAMES = 500
MOST_RATIO = 1.3
RECONCILE_LIMIT_S = 60.0
MOST_GROWTH_MB = 30


def main() -> int:
    """Prints the ratio of the idle polls, the time of the reconcile and its memory; 0 if all limits hold."""
    polls = {n: _run("poll", n) for n in (SMALL, LARGE)}
    ratio = polls[LARGE]["s"] / polls[SMALL]["s"]
    print(
        f"   idle poll: {polls[SMALL]['s'] * 1000:.1f} ms on {SMALL:,} rows, "
        f"{polls[LARGE]['s'] * 1000:.1f} ms on {LARGE:,}"
    )
    print(f"   ratio {ratio:.2f} (limit {MOST_RATIO})")
    reconciles = {n: _run("reconcile", n) for n in (10_000, LARGE)}
    taken_s = reconciles[LARGE]["s"]
    growth_mb = reconciles[LARGE]["mb"] - reconciles[10_000]["mb"]
    print(f"   reconcile of {LARGE:,} rows: {taken_s:.1f} s (limit {RECONCILE_LIMIT_S:.0f})")
    print(
        f"   peak memory {reconciles[LARGE]['mb']:.0f} MB, {growth_mb:.1f} MB more than at 10,000 rows "
        f"(limit {MOST_GROWTH_MB})"
    )
    return int(ratio > MOST_RATIO or taken_s > RECONCILE_LIMIT_S or growth_mb > MOST_GROWTH_MB)


def _run(what: str, n_rows: int) -> dict[str, Any]:
    n_listed = n_rows if what == "reconcile" else OVERLAP_NAMES
    with tempfile.TemporaryDirectory() as folder, made_up_server(n_listed, n_remote=0) as server:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ledger_growth", what, str(n_rows), server, folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(what: str, n_rows: int, server: str, folder: Path) -> dict[str, float]:
    """Runs in a process of its own: fills a ledger, then polls or reconciles."""
    from watcher.database.engine import build_database
    from watcher.database.schema import upgrade_schema
    from watcher.domain.clock import SystemClock
    from watcher.domain.models import BatchRules, Via, WatchConfig
    from watcher.domain.poll_rules import PollRules
    from watcher.domain.window import compute_window
    from watcher.lightly.transport import Transport
    from watcher.logs import configure_logging
    from watcher.metrics import Metrics
    from watcher.poll import Poller
    from watcher.reconcile import Reconciler
    from watcher.store import SCHEMA, polls, samples, watches

    configure_logging(level="ERROR")
    database = build_database(f"sqlite:///{folder}/ledger.sqlite")
    upgrade_schema(database, SCHEMA)
    now_s = int(time.time()) - 60
    with database.write() as session:
        watch = watches.ensure_watch(session, name="bench", server=server, dataset_id=DATASET_ID, now_ms=0)
        window = compute_window(mark_s=None, server_now_s=now_s, rules=PollRules())
        poll = polls.create_poll(session, watch_id=watch.id, window=window, now_ms=0)
    for start in range(0, n_rows, 10_000):
        rows = [
            (f"camera/frame-{n:09d}.jpg", "http://127.0.0.1/x", None)
            for n in range(start, min(n_rows, start + 10_000))
        ]
        with database.write() as session:
            samples.record_page(
                session, watch_id=watch.id, poll_id=poll.id, via=Via.WINDOW, rows=rows, now_ms=0
            )
    with database.write() as session:
        polls.finish_poll(session, poll_id=poll.id, state=polls.PollState.DONE, now_ms=0)
        watches.update_mark(session, watch_id=watch.id, mark_s=now_s, now_ms=0)
    config = WatchConfig(name="bench", dataset="bench", batch=BatchRules(min_samples=10**9, max_wait_s=10**9))
    parts = {
        "database": database,
        "transport": Transport(server=server, token=TOKEN),
        "config": config,
        "watch_id": watch.id,
        "clock": SystemClock(),
        "metrics": Metrics(),
    }
    if what == "reconcile":
        begun_s = time.perf_counter()
        report = Reconciler(**parts, work_dir=folder).run()
        taken_s = time.perf_counter() - begun_s
        assert report.is_clean, report
    else:
        poller = Poller(**parts)
        poller.run_cycle()
        begun_s = time.perf_counter()
        for _ in range(N_POLLS):
            assert poller.run_cycle().n_new == 0
        taken_s = (time.perf_counter() - begun_s) / N_POLLS
    database.close()
    return {"s": taken_s, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))))
