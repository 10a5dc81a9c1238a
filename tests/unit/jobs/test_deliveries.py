"""The deliverer: waits that grow, are capped and obey the receiver; days until it gives up; one sink never holds another."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from tests.builders import ManualClock, add_batch, add_delivery, add_watch, build_config, load
from watcher.database.engine import Database, build_database
from watcher.domain.delivery import (
    DeliverRules,
    Delivery,
    DeliveryState,
    ImageReference,
    ManifestRules,
    SinkConfig,
    compute_delivery_id,
    compute_picks_digest,
)
from watcher.domain.errors import (
    CancelledError,
    ConfigError,
    DeliveryRefusedError,
    NotSentError,
    UnknownOutcomeError,
    build_api_exception,
)
from watcher.jobs.context import JobParts
from watcher.jobs.deliveries import Deliverer, DeliveryLimits
from watcher.metrics import Metrics
from watcher.sinks.base import Handover, Receipt
from watcher.store import deliveries, picks
from watcher.store.tables import handovers

DAY_S = 86_400


@dataclass
class MadeUpSink:
    """Does what the test says; confirms while it says nothing."""

    act: Callable[[Handover], Any] = lambda _handover: None
    seen: list[Handover] = field(default_factory=list)
    reference = ImageReference.READ_URL

    def deliver(self, handover: Handover) -> Receipt:
        self.seen.append(handover)
        outcome = self.act(handover)
        if isinstance(outcome, Exception):
            raise outcome
        return Receipt(location="there", facts={})


class Bench:
    """A deliverer over a real store, with a clock in the test's hand and sinks `a` and `b`."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.stop = threading.Event()
        self.sinks = {"a": MadeUpSink(), "b": MadeUpSink()}
        rules = DeliverRules(sinks=tuple(SinkConfig(name=name, rules=ManifestRules()) for name in self.sinks))
        self.configs = {"gate": build_config(deliver=rules)}
        self.watch = add_watch(database)
        self.folder = folder
        self.rng = random.Random(1)

    def build(self, *, owner: str = "me", lease_s: float = 60.0, **others: Any) -> Deliverer:
        nothing: Any = None
        parts = JobParts(
            database=self.database,
            transport=nothing,
            configs=self.configs,
            embedders={},
            work_dir=self.folder,
            clock=self.clock,
            metrics=self.metrics,
            rng=self.rng,
        )
        return Deliverer(
            parts,
            build_sink=lambda config: self.sinks[config.name],
            owner=owner,
            limits=DeliveryLimits(lease_s=lease_s, time_limit_s=100.0, retry_base_s=2.0),
            stop=self.stop,
            **others,
        )

    def add(self, *names: str, sinks: tuple[str, ...] = ("a",)) -> None:
        batch = add_batch(self.database, self.watch, list(names) or ["x"], now_ms=self.now_ms)
        for sink in sinks:
            add_delivery(self.database, batch, sink=sink, now_ms=self.now_ms)

    @property
    def now_ms(self) -> int:
        return int(self.clock.now_s() * 1000)

    def run(self) -> bool:
        return self.build().run_next(beat=lambda: None)

    def load(self, delivery_id: int = 1) -> Delivery:
        with self.database.read() as session:
            return deliveries.load_delivery(session, delivery_id=delivery_id)

    def count(self, sink: str, outcome: str) -> float:
        labels = {"watch": "gate", "sink": sink, "outcome": outcome}
        return self.metrics.registry.get_sample_value("watcher_delivery_attempts_total", labels) or 0.0


@pytest.fixture
def bench(store_url: str, tmp_path: Path) -> Iterator[Bench]:
    database = build_database(store_url)
    yield Bench(database, tmp_path)
    database.close()


def test_delivery_is_done_with_the_receivers_word_alone(bench):
    bench.add()
    states = []
    bench.sinks["a"].act = lambda _handover: states.append(bench.load().state)
    assert bench.run()
    assert states == [DeliveryState.RUNNING]
    done = bench.load()
    assert (done.state, done.location, done.attempt, done.finished_ms) == (
        DeliveryState.DONE,
        "there",
        1,
        bench.now_ms,
    )
    assert not bench.run()
    assert bench.count("a", "done") == 1


def test_picks_of_a_number_given_out_again_have_another_id_and_the_same_picks_the_same(bench):
    """A store put back from a copy has forgotten its last batches, and numbers the next as it numbered those."""
    batch = add_batch(bench.database, bench.watch, ["a", "b"], now_ms=bench.now_ms)
    ids = {name: load(bench.database, bench.watch, name).id for name in "ab"}
    for name in "aba":
        with bench.database.write() as session:
            session.execute(delete(handovers))
            picks.replace_picks(session, batch_id=batch.id, rows=[(ids[name], 1, {})])
            digest = picks.load_picks_digest(session, batch_id=batch.id)
        add_delivery(bench.database, batch, sink="a", picks_digest=digest, now_ms=bench.now_ms)
        assert bench.run()
    first, second, third = (handover.id for handover in bench.sinks["a"].seen)
    assert first == third != second


def test_delivery_that_an_earlier_version_promised_keeps_its_id(bench):
    bench.add()
    with bench.database.write() as session:
        session.execute(update(handovers).values(picks_digest=None))
    assert bench.run()
    (seen,) = bench.sinks["a"].seen
    assert seen.id == compute_delivery_id(
        dataset_id=bench.watch.dataset_id, batch_key="gate-000001", sink="a", picks_digest=None
    )
    assert seen.picks_digest == compute_picks_digest([])


def test_failures_wait_longer_and_longer_up_to_the_cap_with_the_same_id(bench):
    bench.add()
    bench.sinks["a"].act = lambda _handover: NotSentError("no connection")
    waits = []
    for _ in range(14):
        assert bench.run()
        delivery = bench.load()
        assert (delivery.state, delivery.error) == (DeliveryState.READY, "NotSentError: no connection")
        waits.append((delivery.available_ms - bench.now_ms) / 1000)
        assert not bench.run(), "its time has not come"
        bench.clock.advance(waits[-1] + 0.001)
    assert all(2 * 2**n / 2 <= wait <= 2 * 2**n for n, wait in enumerate(waits[:9]))
    assert all(450 <= wait <= 900 for wait in waits[9:])
    assert len(set(waits)) == len(waits), "jitter"
    assert len({handover.id for handover in bench.sinks["a"].seen}) == 1
    assert bench.count("a", "retried") == 14


def test_receiver_that_asks_for_a_wait_gets_it(bench):
    bench.add()
    bench.sinks["a"].act = lambda _handover: build_api_exception(503, retry_after_s=3600)
    bench.run()
    assert bench.load().available_ms == bench.now_ms + 3_600_000


def test_unknown_outcome_gives_the_receiver_time_to_finish(bench):
    bench.add()
    bench.sinks["a"].act = lambda _handover: UnknownOutcomeError("no answer")
    bench.run()
    assert bench.load().available_ms == bench.now_ms + 30_000


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_status_that_may_be_mended_is_tried_for_days_and_then_dead(bench, status):
    bench.add()
    bench.sinks["a"].act = lambda _handover: build_api_exception(status)
    bench.run()
    bench.clock.advance(7 * DAY_S - 1)
    bench.run()
    assert bench.load().state is DeliveryState.READY
    bench.clock.advance(901)
    bench.run()
    dead = bench.load()
    assert dead.state is DeliveryState.DEAD
    assert f"the server answered {status}" in dead.error
    assert bench.count("a", "dead") == 1


@pytest.mark.parametrize("error", [DeliveryRefusedError("gone for good"), ConfigError("no pyarrow")])
def test_what_no_wait_helps_is_dead_at_once_with_its_reason(bench, error):
    bench.add()
    bench.sinks["a"].act = lambda _handover: error
    bench.run()
    dead = bench.load()
    assert (dead.state, dead.error) == (DeliveryState.DEAD, f"{type(error).__name__}: {error}")
    assert not bench.run()


def test_bug_of_a_sink_is_tried_again_without_its_secrets(bench):
    bench.add()
    bench.sinks["a"].act = lambda _handover: ValueError("at https://x.example.com/a?sig=s1gned")
    bench.run()
    assert bench.load().state is DeliveryState.READY
    assert "s1gned" not in bench.load().error


def test_sink_that_fails_holds_up_neither_the_other_sink_nor_the_next_batch(bench):
    bench.sinks["a"].act = lambda _handover: NotSentError("down")
    for name in ("x", "y"):
        bench.add(name, sinks=("a", "b"))
    while bench.run():
        pass
    with bench.database.read() as session:
        counts = deliveries.count_by_state(session)
    assert counts == {("gate", "a", DeliveryState.READY): 2, ("gate", "b", DeliveryState.DONE): 2}


def test_sink_that_is_no_longer_configured_is_dead_with_the_way_out(bench):
    bench.add(sinks=("retired",))
    bench.run()
    dead = bench.load()
    assert dead.state is DeliveryState.DEAD
    assert (
        "has no sink 'retired' any more: `watcher drop gate --sink retired` lets its deliveries be"
        in dead.error
    )
    assert "or configure it again, then `watcher replay gate`" in dead.error


def test_deliverer_for_some_sinks_leaves_the_others_to_somebody_else(bench):
    bench.add(sinks=("a", "b", "retired"))
    deliverer = bench.build(takes=lambda sink: sink.name == "b")
    assert deliverer.run_next(beat=lambda: None)
    assert not deliverer.run_next(beat=lambda: None)
    assert (len(bench.sinks["a"].seen), len(bench.sinks["b"].seen)) == (0, 1)


def test_deliverer_takes_none_of_a_watch_that_it_understands_otherwise_than_the_leader(bench):
    bench.add()
    refused = {"gate"}
    deliverer = bench.build(find_refused=lambda: refused)
    assert not deliverer.run_next(beat=lambda: None)
    refused.clear()
    assert deliverer.run_next(beat=lambda: None)


def test_progress_is_there_for_the_next_attempt(bench):
    bench.add()

    def act(handover):
        handover.save_progress({"n": handover.progress.get("n", 0) + 1})
        return NotSentError("down")

    bench.sinks["a"].act = act
    for _ in range(3):
        bench.run()
        bench.clock.advance(1000)
    assert bench.load().progress == {"n": 3}


def test_attempt_interrupted_by_a_shutdown_is_ready_at_once_and_not_counted(bench):
    bench.add()
    bench.sinks["a"].act = lambda _handover: CancelledError("shutdown")
    bench.run()
    delivery = bench.load()
    assert (delivery.state, delivery.attempt, delivery.available_ms) == (DeliveryState.READY, 0, bench.now_ms)
    assert bench.count("a", "interrupted") == 1


def test_attempt_that_takes_too_long_is_tried_again(bench):
    bench.add()

    def act(handover):
        bench.clock.advance(101)
        handover.check()

    bench.sinks["a"].act = act
    bench.run()
    delivery = bench.load()
    assert delivery.state is DeliveryState.READY
    assert "DeadlineExceededError" in delivery.error


def test_owner_whose_lease_was_lost_writes_nothing_over_the_next(bench):
    bench.add()

    def act(_handover):
        # By the row, not by the clock: a sign of life of the first owner could come in between.
        with bench.database.write() as session:
            session.execute(update(handovers).values(lease_until_ms=bench.now_ms - 1))
        bench.sinks["a"].act = lambda _handover: None
        assert bench.build(owner="next").run_next(beat=lambda: None)
        return NotSentError("too late")

    bench.sinks["a"].act = act
    bench.run()
    assert (bench.load().state, bench.load().error) == (DeliveryState.DONE, None)
    with pytest.raises(CancelledError):
        bench.sinks["a"].seen[0].save_progress({})
