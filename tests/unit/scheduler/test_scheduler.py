"""Watches beside each other: none twice at once, none in another's way, and a stop that waits."""

from __future__ import annotations

import threading
import time

import pytest

from tests.builders import build_config
from tests.waiting import wait_for
from watcher.domain.errors import CancelledError, StoreUnavailableError
from watcher.metrics import Metrics
from watcher.scheduler import Scheduler

OFTEN = {"interval_s": 0.05, "jitter_s": 0.0}
SELDOM = {"interval_s": 3600.0, "jitter_s": 0.0}


class Cycle:
    """A cycle that counts itself, and waits while `gate` is closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.n_begun = 0
        self.n_ended = 0
        self.n_at_once = 0
        self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()
        self._error = error
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.n_begun += 1
            self.n_at_once += 1
            self.most_at_once = max(self.most_at_once, self.n_at_once)
        self.gate.wait(60)
        with self._lock:
            self.n_at_once -= 1
            self.n_ended += 1
        if self._error is not None:
            raise self._error


class Beats:
    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> None:
        self.n += 1


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def scheduler(metrics):
    built = Scheduler(metrics=metrics, beat=Beats())
    yield built
    built.stop(timeout_s=60)


def skipped(metrics: Metrics, watch: str) -> float:
    return (
        metrics.registry.get_sample_value("watcher_polls_total", {"watch": watch, "outcome": "skipped"})
        or 0.0
    )


@pytest.mark.scenario(number=40)
def test_watch_is_polled_at_the_start_and_then_on_its_trigger(scheduler):
    often, seldom = Cycle(), Cycle()
    scheduler.add_watch(build_config("often", **OFTEN), often)
    scheduler.add_watch(build_config("seldom", **SELDOM), seldom)
    time.sleep(0.05)
    assert often.n_begun == seldom.n_begun == 0
    scheduler.start()
    wait_for(lambda: often.n_ended >= 3)
    assert seldom.n_begun == 1


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("a bug"), StoreUnavailableError("the disk is full"), CancelledError("stopped")],
    ids=lambda error: type(error).__name__,
)
def test_watch_whose_cycle_fails_is_polled_again_and_stops_no_other(scheduler, error):
    failing, other = Cycle(error), Cycle()
    scheduler.add_watch(build_config("failing", **OFTEN), failing)
    scheduler.add_watch(build_config("other", **OFTEN), other)
    scheduler.start()
    wait_for(lambda: failing.n_ended >= 3 and other.n_ended >= 3)


def test_watch_whose_cycle_hangs_is_not_polled_beside_itself_and_holds_up_no_other(scheduler, metrics):
    hanging, other = Cycle(), Cycle()
    hanging.gate.clear()
    scheduler.add_watch(build_config("hanging", **OFTEN), hanging)
    scheduler.add_watch(build_config("other", **OFTEN), other)
    scheduler.start()
    wait_for(lambda: other.n_ended >= 5 and skipped(metrics, "hanging") >= 3)
    assert hanging.n_begun == 1
    assert skipped(metrics, "other") < skipped(metrics, "hanging")  # a slow machine skips now and then
    hanging.gate.set()
    wait_for(lambda: hanging.n_begun >= 2)
    assert hanging.most_at_once == 1


def test_watches_that_all_hang_do_not_stop_the_heartbeat(metrics, monkeypatch):
    monkeypatch.setattr("watcher.scheduler._HEARTBEAT_S", 0.05)
    beats = Beats()
    scheduler = Scheduler(metrics=metrics, beat=beats)
    cycles = [Cycle() for _ in range(12)]
    for n, cycle in enumerate(cycles):
        cycle.gate.clear()
        scheduler.add_watch(build_config(f"w{n}", **SELDOM), cycle)
    scheduler.start()
    wait_for(lambda: sum(cycle.n_begun for cycle in cycles) >= 8)
    before = beats.n
    wait_for(lambda: beats.n >= before + 3)
    for cycle in cycles:
        cycle.gate.set()
    wait_for(lambda: all(cycle.n_ended == 1 for cycle in cycles))
    assert scheduler.stop(timeout_s=60)


def test_poll_now_brings_the_next_cycle_forward(scheduler):
    cycle, other = Cycle(), Cycle()
    scheduler.add_watch(build_config("gate", **SELDOM), cycle)
    scheduler.add_watch(build_config("roof", **SELDOM), other)
    scheduler.start()
    wait_for(lambda: cycle.n_ended == 1 and other.n_ended == 1)
    assert scheduler.poll_now("gate")
    wait_for(lambda: cycle.n_ended == 2)
    assert other.n_begun == 1
    assert scheduler.next_polls()["gate"].timestamp() > time.time() + 3000


def test_poll_now_of_an_unknown_watch_is_refused(scheduler):
    scheduler.add_watch(build_config("gate", **SELDOM), Cycle())
    scheduler.start()
    assert not scheduler.poll_now("roof")
    assert not scheduler.poll_now("heartbeat")


def test_next_polls_name_the_watches_and_nothing_else(scheduler):
    scheduler.add_watch(build_config("gate", **SELDOM), Cycle())
    scheduler.add_maintenance("polls", interval_s=3600, task=Cycle())
    scheduler.start()
    wait_for(lambda: scheduler.next_polls()["gate"].timestamp() > time.time() + 3000)
    assert set(scheduler.next_polls()) == {"gate"}


def test_maintenance_that_fails_is_tried_again(scheduler):
    task = Cycle(ZeroDivisionError("a bug"))
    scheduler.add_maintenance("polls", interval_s=0.05, task=task)
    scheduler.start()
    wait_for(lambda: task.n_ended >= 3)


def test_stop_waits_for_the_cycle_under_way_and_starts_no_other(scheduler):
    cycle = Cycle()
    cycle.gate.clear()
    scheduler.add_watch(build_config("gate", **OFTEN), cycle)
    scheduler.start()
    wait_for(lambda: cycle.n_begun == 1)
    threading.Timer(0.2, cycle.gate.set).start()
    assert scheduler.stop(timeout_s=60)
    assert cycle.n_ended == 1
    time.sleep(0.15)
    assert cycle.n_begun == 1


def test_stop_at_its_limit_says_that_a_cycle_still_runs(scheduler):
    cycle = Cycle()
    cycle.gate.clear()
    scheduler.add_watch(build_config("gate", **SELDOM), cycle)
    scheduler.start()
    wait_for(lambda: cycle.n_begun == 1)
    begun_s = time.monotonic()
    assert not scheduler.stop(timeout_s=0.1)
    assert time.monotonic() - begun_s < 30
    cycle.gate.set()


def test_stop_leaves_out_the_cycles_that_wait_for_a_place(metrics):
    scheduler = Scheduler(metrics=metrics, beat=Beats())
    cycles = [Cycle() for _ in range(12)]
    for n, cycle in enumerate(cycles):
        cycle.gate.clear()
        scheduler.add_watch(build_config(f"w{n}", **SELDOM), cycle)
    scheduler.start()
    wait_for(lambda: sum(cycle.n_begun for cycle in cycles) == 8)
    assert not scheduler.stop(timeout_s=0)
    for cycle in cycles:
        cycle.gate.set()
    wait_for(lambda: sum(cycle.n_ended for cycle in cycles) == 8)
    time.sleep(0.1)
    assert sum(cycle.n_begun for cycle in cycles) == 8


def test_stop_of_a_scheduler_that_never_started_is_harmless(metrics):
    assert Scheduler(metrics=metrics, beat=Beats()).stop(timeout_s=1)
