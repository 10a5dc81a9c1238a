"""A long run of real processes with everything against them: `make soak MINUTES=n`.

A daemon behind the fault proxy, a platform, the demo's cameras with late, half-written and broken frames, frames that
are written again, and processes that are killed and started anew at random. Afterwards all is quiet, and the numbers
must agree: every sound frame is on the platform once and delivered once, every other one is in quarantine.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import func, select

from tests.acceptance.daemon_process import DaemonProcess
from tests.fast_folder import find_fast_folder
from tests.faults.load import put_whole
from tests.faults.platform_process import TOKEN, PlatformProcess
from tests.faults.proxy import FaultProxy
from watcher.database.engine import build_database
from watcher.demo import run_demo
from watcher.demo.arrivals import DemoReport
from watcher.domain.delivery import DeliveryState
from watcher.lightly import datasets, datasources, samples
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceLocal
from watcher.lightly.workflows.listing import iter_pages
from watcher.store import tables

DATASET = "soak"
WATCH = "WATCHER_WATCHES__SOAK__"
FAULT_RATE = 0.1
FRAMES_PER_S = 2.0
_QUIET_LIMIT_S = 900.0
# The budget is never reached, so every registered frame is picked and must be delivered.
VARIABLES = {
    f"{WATCH}DATASET": DATASET,
    f"{WATCH}SCHEDULE__INTERVAL_S": "2",
    f"{WATCH}BATCH__MIN_SAMPLES": "20",
    f"{WATCH}BATCH__MAX_WAIT_S": "5",
    f"{WATCH}SAMPLING__BUDGET": "100000",
    "WATCHER_RUNS__RETRY_CAP_S": "10",
    "WATCHER_RUNS__LEASE_S": "10",
    "WATCHER_API__READ_TIMEOUT_S": "10",
}


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Counts:
    """What is counted at the end, from five places."""

    produced: set[str]
    sound: set[str]
    listed: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, int] = field(default_factory=dict)
    on_platform: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)

    def find_faults(self) -> list[str]:
        """What does not agree."""
        n_sound, n_bad = len(self.sound), len(self.produced) - len(self.sound)
        unfinished = {
            state: n for state, n in self.ledger.items() if n and state not in ("done", "quarantined")
        }
        checks = {
            "produced and not listed": self.produced - set(self.listed),
            "listed and not produced": set(self.listed) - self.produced,
            "sound and not on the platform": self.sound - set(self.on_platform),
            "on the platform and not sound": set(self.on_platform) - self.sound,
            "twice on the platform": {name for name, n in self.on_platform.items() if n > 1},
            "sound and not delivered": self.sound - set(self.delivered),
            "delivered and not sound": set(self.delivered) - self.sound,
            "delivered twice": {name for name, n in self.delivered.items() if n > 1},
        }
        faults = [
            f"{what}: {len(names)}, such as {sorted(names)[:3]}" for what, names in checks.items() if names
        ]
        if unfinished:
            faults.append(f"not finished in the ledger: {unfinished}")
        if self.ledger.get("done") != n_sound or self.ledger.get("quarantined") != n_bad:
            faults.append(f"the ledger has {self.ledger}, produced were {n_sound} sound and {n_bad} others")
        return faults

    def print_table(self) -> None:
        n_bad = len(self.produced) - len(self.sound)
        for what, n in (
            (
                "objects produced",
                f"{len(self.produced)} ({len(self.sound)} sound, {n_bad} broken or no picture)",
            ),
            ("listed", f"{sum(self.listed.values())}"),
            ("in the ledger", f"{sum(self.ledger.values())} ({self.ledger})"),
            ("on the platform", f"{sum(self.on_platform.values())}"),
            ("delivered", f"{sum(self.delivered.values())}"),
        ):
            say(f"  {what:<18} {n}")


class Soak:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._rng = random.Random(seed)
        self._seed = seed
        self.platform = PlatformProcess(folder / "server")
        self.objects = self.platform.config.datasource_root / DATASET
        self.objects.mkdir()
        self.platform.start()
        upstream = ("127.0.0.1", self.platform.config.port)
        self.proxy = FaultProxy(upstream, seed=seed, rate=FAULT_RATE)
        self.proxy.start()
        self.transport = Transport(server=self.platform.url, token=TOKEN)
        self.dataset_id = datasets.create_dataset(self.transport, request=DatasetCreateRequest(name=DATASET))
        datasources.update_datasource(
            self.transport,
            dataset_id=self.dataset_id,
            datasource=DatasourceLocal(full_path=DATASET, purpose="INPUT_OUTPUT"),
        )
        self.daemon = DaemonProcess(
            folder / "data", LIGHTLY_TOKEN=TOKEN, LIGHTLY_SERVER_LOCATION=self.proxy.url, **VARIABLES
        )
        self.daemon.data_dir.mkdir()
        self.deaths: Counter[str] = Counter()
        self.n_overwritten = 0

    def run(self, *, minutes: float) -> Counts:
        """The storm, then the quiet, then the count."""
        self.daemon.start()
        stop = threading.Event()
        reports: list[DemoReport] = []

        def produce() -> None:
            seconds = 60 * minutes
            reports.append(
                run_demo(
                    self.objects,
                    seconds=seconds,
                    rate_per_s=FRAMES_PER_S,
                    seed=self._seed,
                    stop=stop,
                    say=lambda _text: None,
                )
            )

        producer = threading.Thread(target=produce)
        producer.start()
        try:
            while producer.is_alive():
                producer.join(self._rng.uniform(3.0, 15.0))
                self._overwrite_some()
                self._kill_something()
                say(f"  {self._describe()}")
        finally:
            stop.set()
            producer.join()
        say("now it is quiet")
        self.proxy.rate = 0.0
        (report,) = reports
        counts = Counts(
            produced={*report.frames, *report.broken, *report.not_pictures}, sound=set(report.frames)
        )
        self._wait_for_rest(len(counts.produced))
        self._count(counts)
        return counts

    def _overwrite_some(self) -> None:
        """Writes frames again under their names, with other bytes of the same picture."""
        frames = sorted(self.objects.rglob("frame-*.jpg"))
        for path in self._rng.sample(frames, min(2, len(frames))):
            body = path.read_bytes()
            # Whole frames only: half-written and broken ones have an end of their own.
            if path.stat().st_mtime < time.time() - 20 and body[-2:] == b"\xff\xd9" and self._is_sound(body):
                put_whole(path.parent, path.name, body + b"\x00")
                self.n_overwritten += 1

    def _is_sound(self, body: bytes) -> bool:
        with suppress(OSError, SyntaxError, ValueError):
            Image.open(io.BytesIO(body)).load()
            return True
        return False

    def _kill_something(self) -> None:
        how = self._rng.choice(
            ("kill daemon", "kill daemon", "kill daemon", "stop daemon", "kill platform", "nothing")
        )
        self.deaths[how] += 1
        if how == "kill daemon":
            self.daemon.kill()
            time.sleep(self._rng.uniform(0.0, 3.0))
            self.daemon.start()
        elif how == "stop daemon":
            self.daemon.terminate(signal.SIGTERM, limit_s=90.0)
            self.daemon.start()
        elif how == "kill platform":
            self.platform.kill()
            time.sleep(self._rng.uniform(0.0, 2.0))
            self.platform.start()

    def _load_watch(self) -> dict[str, Any]:
        with suppress(OSError, AssertionError, ValueError):
            found = self.daemon.status()["watches"]
            return dict(found[0]) if found else {}
        return {}

    def _describe(self) -> str:
        counts = self._load_watch().get("samples", {})
        return f"deaths {dict(self.deaths)}, overwritten {self.n_overwritten}, ledger {counts}"

    def _wait_for_rest(self, n_files: int) -> None:
        ends_s = time.monotonic() + _QUIET_LIMIT_S
        while time.monotonic() < ends_s:
            watch = self._load_watch()
            counts = watch.get("samples", {})
            open_ones = counts.get("waiting", 1) + counts.get("processing", 1)
            batches_open = any(batch["state"] == "open" for batch in watch.get("batches", []))
            at_rest = sum(counts.values()) >= n_files and not open_ones and not batches_open
            # A batch is done before its last delivery is.
            if at_rest and not self._count_undelivered():
                return
            time.sleep(1.0)
        say(f"no rest within {_QUIET_LIMIT_S:.0f} s: {json.dumps(self._load_watch())[:3000]}")

    def _count_undelivered(self) -> int:
        database = build_database(f"sqlite:///{self.daemon.data_dir / 'watcher.sqlite'}")
        try:
            with database.read() as session:
                statement = select(func.count()).where(tables.handovers.c.state != DeliveryState.DONE)
                return session.execute(statement).scalar_one()
        finally:
            database.close()

    def _count(self, counts: Counts) -> None:
        to_s = int(time.time()) + 86_400
        for page in iter_pages(self.transport, dataset_id=self.dataset_id, from_s=0, to_s=to_s):
            counts.listed.update(row.file_name for row in page.rows)
        counts.ledger = self._load_watch().get("samples", {})
        rows = samples.fetch_samples(self.transport, dataset_id=self.dataset_id)
        counts.on_platform.update(str(row.file_name) for row in rows)
        for path in (self.daemon.data_dir / "selected").glob("*.jsonl"):
            counts.delivered.update(json.loads(line)["file_name"] for line in path.read_text().splitlines())

    def close(self) -> None:
        self.daemon.stop_if_running()
        self.proxy.stop()
        self.platform.kill()


def main() -> int:
    """Exit code 0 only if all numbers agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    say(f"soaking for {options.minutes:g} minutes; --seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="soak-", dir=find_fast_folder()) as folder:
        soak = Soak(Path(folder), seed=options.seed)
        try:
            counts = soak.run(minutes=options.minutes)
            audit = soak.daemon.run_command("audit", "--json")
            for name in sorted(counts.sound - set(counts.delivered))[:3]:
                say(soak.daemon.run_command("why", name))
        finally:
            soak.close()
        log = soak.daemon.read_log()
    faults = counts.find_faults()
    faults += [
        f"{event} in the log" for event in ("run.crashed", "task.crashed", "worker.crashed") if event in log
    ]
    say(
        f"through {dict(soak.deaths)}, {soak.n_overwritten} overwritten, the network {dict(soak.proxy.counts)}:"
    )
    counts.print_table()
    (report,) = json.loads(audit)
    say(f"  audit: {report['n_missing']} missing, {report['n_unexplained']} unexplained")
    for fault in faults:
        say(f"NOT EQUAL  {fault}")
    say("they differ" if faults else "they are equal")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
