"""Builders that several test folders share: a clock in the test's hand, and stores filled with rows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from click.testing import Result

from watcher.database.engine import Database, build_database
from watcher.database.schema import upgrade_schema
from watcher.domain.delivery import Delivery, DeliveryState, SinkKind
from watcher.domain.models import Batch, BatchRules, Run, Sample, Step, Via, Watch, WatchConfig
from watcher.domain.window import Window
from watcher.store import SCHEMA, batches, claims, deliveries, polls, runs, samples, watches
from watcher.store.cutting import cut_batches

NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000
DATASET = "0123456789abcdef01234567"


class ManualClock:
    """Moves only when told."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self._now_s = now_s
        self._monotonic_s = 1000.0

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(min(seconds, 0.01))

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
        self._monotonic_s += seconds


@contextmanager
def open_store(url: str) -> Iterator[Database]:
    """A store with its tables, closed at the end."""
    database = build_database(url)
    try:
        upgrade_schema(database, SCHEMA)
        yield database
    finally:
        database.close()


def build_config(name: str = "gate", **changes: object) -> WatchConfig:
    """A watch that makes a batch of whatever waits."""
    values: dict[str, object] = {
        "name": name,
        "dataset": name,
        "batch": BatchRules(min_samples=1, max_samples=1000, max_open=16),
        **changes,
    }
    return WatchConfig(**values)


def add_watch(database: Database, name: str = "gate", *, dataset_id: str | None = None) -> Watch:
    """A watch of that name; its dataset's id is made from the name."""
    with database.write() as session:
        return watches.ensure_watch(
            session,
            name=name,
            server="https://api.example.com",
            dataset_id=dataset_id or name.encode().hex().ljust(24, "0")[:24],
            now_ms=NOW_MS,
        )


def url_of(name: str, version: int = 1) -> str:
    """A signed read URL."""
    return f"https://bucket.example.com/{name}?X-Amz-Signature=s1gnature{version}"


def list_names(
    database: Database,
    watch: Watch,
    names: Sequence[str],
    *,
    via: Via = Via.WINDOW,
    now_ms: int = NOW_MS,
    version: int = 1,
    reason: str | None = None,
) -> int:
    """One listed page of a poll of its own; tells how many names were new."""
    window = Window(from_s=NOW_S - 60, to_s=NOW_S, overlap_from_s=NOW_S - 660)
    with database.write() as session:
        poll = polls.create_poll(session, watch_id=watch.id, window=window, now_ms=now_ms)
        rows = [(name, url_of(name, version), reason) for name in names]
        return samples.record_page(
            session, watch_id=watch.id, poll_id=poll.id, via=via, rows=rows, now_ms=now_ms
        )


def cut(database: Database, watch: Watch, config: WatchConfig | None = None, *, now_ms: int = NOW_MS) -> int:
    """Cuts what waits into batches."""
    chosen = config or build_config(watch.name)
    with database.write() as session:
        return cut_batches(session, watch_id=watch.id, config=chosen, now_ms=now_ms)


def add_batch(
    database: Database,
    watch: Watch,
    names: Sequence[str],
    *,
    config: WatchConfig | None = None,
    now_ms: int = NOW_MS,
) -> Batch:
    """A batch of these names, with its first run."""
    list_names(database, watch, names, now_ms=now_ms)
    assert cut(database, watch, config, now_ms=now_ms) == 1
    with database.read() as session:
        return batches.load_recent_batches(session, watch_id=watch.id, limit=1)[watch.id][0]


def load(database: Database, watch: Watch, name: str) -> Sample:
    """The ledger's row of a name that is there."""
    with database.read() as session:
        sample = samples.load_sample(session, watch_id=watch.id, file_name=name)
    assert sample is not None
    return sample


def claim(
    database: Database, *, owner: str = "me", now_ms: int = NOW_MS, lease_ms: int = 60_000
) -> Run | None:
    """What a worker does first."""
    with database.write() as session:
        return claims.claim_run(session, owner=owner, now_ms=now_ms, lease_ms=lease_ms)


def add_run(database: Database, batch: Batch, step: Step, *, shard: int = 0, now_ms: int = NOW_MS) -> None:
    """One more run of a batch."""
    with database.write() as session:
        runs.create_run(session, batch_id=batch.id, step=step, now_ms=now_ms, shard=shard)


def add_delivery(
    database: Database,
    batch: Batch,
    *,
    sink: str = "manifest",
    kind: SinkKind = SinkKind.MANIFEST,
    n_picks: int = 1,
    picks_digest: str = "0" * 64,
    now_ms: int = NOW_MS,
) -> Delivery:
    """A promised delivery of a batch."""
    with database.write() as session:
        deliveries.promise_deliveries(
            session,
            batch_id=batch.id,
            watch_id=batch.watch_id,
            sinks=[(sink, kind)],
            n_picks=n_picks,
            picks_digest=picks_digest,
            now_ms=now_ms,
        )
    with database.read() as session:
        made = deliveries.load_deliveries(session, batch_id=batch.id)
    return next(delivery for delivery in made if delivery.sink == sink)


def claim_delivery(
    database: Database, *, owner: str = "me", now_ms: int = NOW_MS, watches: Sequence[str] = ("gate",)
) -> Delivery | None:
    """What a worker does first."""
    with database.read() as session:
        is_worth_it = claims.has_claimable_delivery(session, now_ms=now_ms)
    with database.write() as session:
        claimed = deliveries.claim_delivery(
            session, owner=owner, now_ms=now_ms, lease_ms=60_000, watch_names=watches
        )
    assert claimed is None or is_worth_it
    return claimed


def deliver(
    database: Database,
    batch: Batch,
    *,
    sink: str = "manifest",
    location: str | None = "out.jsonl",
    state: DeliveryState = DeliveryState.DONE,
    error: str | None = None,
    now_ms: int = NOW_MS,
) -> None:
    """A delivery that was promised, claimed, and ended."""
    add_delivery(database, batch, sink=sink, now_ms=now_ms)
    claimed = claim_delivery(database, now_ms=now_ms)
    assert claimed is not None
    assert claimed.sink == sink
    with database.write() as session:
        assert deliveries.end_delivery(
            session,
            delivery_id=claimed.id,
            owner="me",
            state=state,
            now_ms=now_ms,
            location=location,
            error=error,
        )


@contextmanager
def kept_logging() -> Iterator[None]:
    """Puts back what `configure_logging` changes: the root logger's handlers, among them pytest's, and structlog."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def run_command(*arguments: str, **environ: str) -> Result:
    """A command of `watcher` in this process, with no variables of ours but these."""
    import os

    from typer.testing import CliRunner

    from watcher.cli.app import app

    ours = [name for name in os.environ if name.startswith(("WATCHER_", "LIGHTLY_"))]
    with kept_logging():
        cleared = {**dict.fromkeys(ours), "TERM": "dumb", "COLUMNS": "200", **environ}
        return CliRunner().invoke(app, list(arguments), env=cleared, catch_exceptions=False)


def list_threads(prefix: str) -> list[str]:
    """Names of the process's threads that begin so."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]
