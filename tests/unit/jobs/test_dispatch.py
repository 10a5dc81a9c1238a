"""The threads that run what is ready: they outlive errors, and end when asked."""

from __future__ import annotations

import threading

import pytest

from tests.builders import NOW_MS, add_batch
from tests.waiting import wait_for
from watcher.dispatch import local
from watcher.dispatch.local import LocalDispatcher
from watcher.domain.clock import SystemClock
from watcher.domain.errors import StoreUnavailableError
from watcher.domain.models import Step
from watcher.domain.pipeline import Done, Snooze


class Beats:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        self.names.append(name)


def build(bench, *, n_workers=2, runner=None):
    beats = Beats()
    dispatcher = LocalDispatcher(
        runner or bench.build(), n_workers=n_workers, stop=bench.stop, beat=beats, clock=bench.clock
    )
    return dispatcher, beats


def test_workers_run_what_is_ready_and_what_becomes_ready_and_end_when_asked(bench, steps):
    dispatcher, beats = build(bench)
    dispatcher.start()
    batches = [add_batch(bench.database, bench.add_watch(name), ["a"]) for name in ("gate", "roof")]
    wait_for(lambda: len(steps.calls) == 8)
    assert {key for key, _ in steps.calls} == {batch.key for batch in batches}
    bench.stop.set()
    assert dispatcher.join(timeout_s=60)
    assert {"worker-0", "worker-1"} <= set(beats.names)


def test_idle_worker_looks_at_once_when_it_is_nudged(bench):
    looks: list[int] = []

    class Looking:
        def run_next(self, *, beat):
            looks.append(1)
            return False

    dispatcher = LocalDispatcher(
        Looking(), n_workers=1, stop=bench.stop, beat=Beats(), clock=SystemClock(), idle_wait_s=600
    )
    dispatcher.start()
    wait_for(lambda: len(looks) == 1)
    dispatcher.nudge()
    wait_for(lambda: len(looks) == 2)
    bench.stop.set()
    assert dispatcher.join(timeout_s=60)


def test_worker_at_its_limit_says_that_it_still_runs(bench, steps):
    gate = threading.Event()
    steps.acts[Step.UPLOAD] = lambda _context: gate.wait(10) and Done({})
    add_batch(bench.database, bench.add_watch(), ["a"])
    dispatcher, _ = build(bench, n_workers=1)
    dispatcher.start()
    wait_for(lambda: steps.calls)
    bench.stop.set()
    assert not dispatcher.join(timeout_s=0.0)
    gate.set()
    for thread in dispatcher._threads:
        thread.join(5)


@pytest.mark.parametrize("error", [StoreUnavailableError("the disk is full"), ZeroDivisionError("a bug")])
def test_worker_that_meets_an_error_waits_and_goes_on(bench, error, monkeypatch):
    class FailingRunner:
        n_calls = 0

        def run_next(self, *, beat):
            self.n_calls += 1
            if self.n_calls <= 2:
                raise error
            beat()
            return False

    runner = FailingRunner()
    waits: list[float] = []
    wait = bench.clock.wait_s
    monkeypatch.setattr(bench.clock, "wait_s", lambda event, s: waits.append(s) or wait(event, s))
    dispatcher, _ = build(bench, n_workers=1, runner=runner)
    dispatcher.start()
    wait_for(lambda: runner.n_calls >= 4)
    bench.stop.set()
    assert dispatcher.join(timeout_s=60)
    assert waits[:3] == [local._FAILURE_WAIT_S, local._FAILURE_WAIT_S, local._IDLE_WAIT_S]


def test_foreground_runs_until_nothing_is_ready_and_counts_the_attempts(bench, steps):
    steps.acts[Step.SAMPLING] = lambda _context: Snooze(60)
    add_batch(bench.database, bench.add_watch(), ["a"])
    dispatcher, _ = build(bench)
    assert dispatcher.run_until_idle() == 3
    assert [step for _, step in steps.calls] == [Step.UPLOAD, Step.EMBED, Step.SAMPLING]
    assert dispatcher.run_until_idle() == 0
    bench.clock.advance(61)
    del steps.acts[Step.SAMPLING]
    assert dispatcher.run_until_idle() == 2
    assert bench.clock.now_s() * 1000 > NOW_MS


def test_foreground_that_is_stopped_runs_nothing_more(bench, steps):
    add_batch(bench.database, bench.add_watch(), ["a"])
    dispatcher, _ = build(bench)
    bench.stop.set()
    assert dispatcher.run_until_idle() == 0
    assert steps.calls == []
