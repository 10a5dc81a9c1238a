"""What becomes of a run: its outcome decides, and every outcome is one transaction."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.builders import NOW_MS, add_batch, claim, list_names, load
from tests.unit.jobs.conftest import RULES
from tests.waiting import wait_for
from watcher.domain.backoff import Backoff
from watcher.domain.errors import (
    CancelledError,
    ConfigError,
    DeadlineExceededError,
    ImageError,
    ProtocolError,
    StoreUnavailableError,
    UnknownOutcomeError,
    build_api_exception,
)
from watcher.domain.models import BatchRules, BatchState, RunState, SampleState, Step
from watcher.domain.pipeline import Discard, Done, Snooze
from watcher.jobs.runner import RunRules, is_final
from watcher.store import batches, claims, runs, samples

SECRET = "5ecr3t"


def batch_of(bench, batch):
    with bench.database.read() as session:
        return batches.load_batch(session, batch_id=batch.id)


def runs_of(bench, batch):
    with bench.database.read() as session:
        return runs.load_batch_runs(session, batch_id=batch.id)


def test_runner_with_nothing_ready_says_so(bench):
    assert not bench.run_next()


def test_batch_goes_through_its_steps_in_order_and_ends_with_its_samples(bench, steps):
    watch = bench.add_watch()
    batch = add_batch(bench.database, watch, ["a", "b"])
    steps.acts[Step.UPLOAD] = lambda context: Done({"uploaded": context.batch.n_samples})
    while bench.run_next():
        pass
    order = [Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER]
    assert [step for _, step in steps.calls] == order
    assert [(run.step, run.state, run.attempt) for run in runs_of(bench, batch)] == [
        (step, RunState.DONE, 1) for step in order
    ]
    assert runs_of(bench, batch)[0].result == {"uploaded": 2}
    assert batch_of(bench, batch).state is BatchState.DONE
    assert load(bench.database, watch, "a").state is SampleState.DONE
    assert bench.count_runs(Step.UPLOAD, "done") == 1


def test_batch_whose_step_discards_ends_there(bench, steps):
    watch = bench.add_watch()
    batch = add_batch(bench.database, watch, ["a"])
    steps.acts[Step.UPLOAD] = lambda _context: Discard("no sample is left")
    while bench.run_next():
        pass
    (run,) = runs_of(bench, batch)
    assert (run.state, run.error) == (RunState.DONE, "no sample is left")
    assert batch_of(bench, batch).state is BatchState.DONE
    assert bench.count_runs(Step.UPLOAD, "discarded") == 1


def test_run_that_snoozes_is_called_again_later_without_a_counted_attempt(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    steps.acts[Step.UPLOAD] = lambda _context: Snooze(30)
    assert bench.run_next()
    assert not bench.run_next()
    bench.clock.advance(29.9)
    assert not bench.run_next()
    bench.clock.advance(0.2)
    assert bench.run_next()
    (run,) = runs_of(bench, batch)
    assert (run.state, run.attempt, run.error) == (RunState.READY, 0, None)
    assert bench.count_runs(Step.UPLOAD, "snoozed") == 2


@pytest.mark.scenario(number=13)
def test_run_interrupted_by_a_shutdown_is_ready_at_once_without_a_counted_attempt(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    steps.acts[Step.UPLOAD] = lambda _context: CancelledError("stopped")
    assert bench.run_next()
    (run,) = runs_of(bench, batch)
    assert (run.state, run.attempt, run.available_ms) == (RunState.READY, 0, NOW_MS)
    assert bench.count_runs(Step.UPLOAD, "interrupted") == 1


def test_run_that_fails_for_a_while_waits_longer_each_time_and_then_goes_on(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    steps.acts[Step.UPLOAD] = lambda _context: UnknownOutcomeError("cut off")
    waits = []
    for attempt in range(1, 5):
        assert bench.run_next()
        (run,) = runs_of(bench, batch)
        assert (run.state, run.attempt, run.error) == (
            RunState.READY,
            attempt,
            "UnknownOutcomeError: cut off",
        )
        waits.append((run.available_ms - bench.clock.now_s() * 1000) / 1000)
        assert not bench.run_next()
        bench.clock.advance(waits[-1] + 0.01)
    assert all(2.0**n / 2 <= wait <= 2.0**n for n, wait in enumerate(waits, 1))
    del steps.acts[Step.UPLOAD]
    assert bench.run_next()
    run = runs_of(bench, batch)[0]
    assert (run.state, run.attempt, run.error) == (RunState.DONE, 5, None)
    assert bench.count_runs(Step.UPLOAD, "retried") == 4


@pytest.mark.scenario(number=41)
def test_run_that_is_told_to_come_back_later_waits_that_long(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    steps.acts[Step.UPLOAD] = lambda _context: build_api_exception(429, retry_after_s=5000.0)
    assert bench.run_next()
    (run,) = runs_of(bench, batch)
    assert run.available_ms == NOW_MS + 5_000_000


def test_run_that_no_retry_can_help_is_dead_with_its_reason_and_lets_the_next_batch_pass(bench, steps):
    watch = bench.add_watch()
    first, second = (add_batch(bench.database, watch, [name]) for name in "ab")
    steps.acts[Step.UPLOAD] = lambda context: (
        build_api_exception(400, "Bad Request", body=f"see https://x/?sig={SECRET}")
        if context.batch.id == first.id
        else Done({})
    )
    assert bench.run_next()
    (run,) = runs_of(bench, first)
    assert run.state is RunState.DEAD
    assert "400 Bad Request" in run.error
    assert SECRET not in run.error
    assert batch_of(bench, first).state is BatchState.DEAD
    assert load(bench.database, watch, "a").state is SampleState.PROCESSING
    assert bench.count_runs(Step.UPLOAD, "dead") == 1
    assert bench.run_next()
    assert steps.calls[-1] == (second.key, Step.UPLOAD)


def test_run_that_crashes_on_a_bug_is_tried_a_few_times_and_then_dead(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    steps.acts[Step.UPLOAD] = lambda _context: ZeroDivisionError("a bug")
    for _attempt in range(5):
        assert bench.run_next()
        bench.clock.advance(10_000)
    assert not bench.run_next()
    (run,) = runs_of(bench, batch)
    assert (run.state, run.attempt, run.error) == (RunState.DEAD, 5, "ZeroDivisionError: a bug")


def test_batch_that_ends_lets_waiting_samples_become_the_next_one(bench):
    watch = bench.add_watch(batch=BatchRules(min_samples=1, max_open=1), steps=(Step.UPLOAD,))
    first = add_batch(bench.database, watch, ["a"], config=bench.configs["gate"])
    list_names(bench.database, watch, ["b"])
    assert bench.run_next()
    assert batch_of(bench, first).state is BatchState.DONE
    assert load(bench.database, watch, "b").state is SampleState.PROCESSING


@pytest.mark.scenario(number=32)
def test_run_whose_lease_was_lost_writes_nothing_over_the_new_owner(bench, steps):
    watch = bench.add_watch()
    batch = add_batch(bench.database, watch, ["a"])

    def lose_the_lease(_context):
        with bench.database.write() as session:
            runs.release_all(session, now_ms=NOW_MS)
        assert claim(bench.database, owner="other") is not None
        return Done({"by": "me"})

    steps.acts[Step.UPLOAD] = lose_the_lease
    assert bench.run_next(owner="me")
    (run,) = runs_of(bench, batch)
    assert (run.state, run.lease_owner, run.result) == (RunState.RUNNING, "other", {})
    assert batch_of(bench, batch).state is BatchState.OPEN


def test_run_of_a_watch_that_is_no_longer_configured_waits_and_holds_up_no_other(bench, steps):
    removed = bench.add_watch("removed")
    add_batch(bench.database, removed, ["a"])
    batch = add_batch(bench.database, bench.add_watch("gate"), ["a"])
    del bench.configs["removed"]
    while bench.run_next():
        pass
    assert {key for key, _ in steps.calls} == {batch.key}
    assert load(bench.database, removed, "a").state is SampleState.PROCESSING


def test_runners_side_by_side_run_every_step_once(bench, steps):
    for name in ("gate", "roof", "door"):
        watch = bench.add_watch(name)
        for n in range(3):
            add_batch(bench.database, watch, [str(n)])
    errors: list[BaseException] = []

    def work(owner: str) -> None:
        runner, idle = bench.build(owner=owner), 0
        try:
            while idle < 30:
                if runner.run_next(beat=lambda: None):
                    idle = 0
                else:
                    idle += 1
                    time.sleep(0.002)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"worker {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(steps.calls) == len(set(steps.calls)) == 3 * 3 * 4
    for name in ("gate", "roof", "door"):
        # A delivery waits for nobody, and nobody for it.
        of_watch = [
            (key, step) for key, step in steps.calls if key.startswith(name) and step is not Step.DELIVER
        ]
        assert of_watch == sorted(of_watch, key=lambda call: (call[0], list(Step).index(call[1])))


def test_lease_is_extended_while_a_step_works(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    rules = RunRules(lease_s=0.4, time_limit_s=100, backoff=RULES.backoff)
    seen: list[int] = []

    def work(context):
        for _ in range(100):
            bench.clock.advance(0.2)
            with bench.database.read() as session:
                seen.append(runs.load_run(session, run_id=context.run.id).lease_until_ms)
            if len(set(seen)) >= 3:
                break
            time.sleep(0.02)
        return Done({})

    steps.acts[Step.UPLOAD] = work
    assert bench.run_next(rules=rules)
    assert len(set(seen)) >= 3
    assert runs_of(bench, batch)[0].state is RunState.DONE


def test_run_that_hangs_beyond_its_time_limit_is_taken_up_by_another(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])

    def try_to_take():
        now_ms = int(bench.clock.now_s() * 1000)
        with bench.database.write() as session:
            return claims.claim_run(session, owner="other", now_ms=now_ms, lease_ms=10**9)

    def is_extended(context):
        with bench.database.read() as session:
            until_ms = runs.load_run(session, run_id=context.run.id).lease_until_ms
        return until_ms > (bench.clock.now_s() + RULES.lease_s / 2) * 1000

    def hang(context):
        while bench.clock.monotonic_s() + RULES.lease_s / 2 < context.deadline_s:
            bench.clock.advance(RULES.lease_s / 2)
            wait_for(lambda: is_extended(context))
            assert try_to_take() is None
        bench.clock.advance(context.deadline_s - bench.clock.monotonic_s() + 1)
        time.sleep(0.2)  # the thread that extends gets its chance
        bench.clock.advance(RULES.lease_s)
        assert try_to_take() is not None
        return Done({"by": "me"})

    steps.acts[Step.UPLOAD] = hang
    assert bench.run_next(owner="me")
    (run,) = runs_of(bench, batch)
    assert (run.state, run.lease_owner, run.attempt, run.result) == (RunState.RUNNING, "other", 2, {})


def test_step_of_a_process_that_was_frozen_for_longer_than_its_lease_stops_at_its_next_check(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])
    stopped = []

    def freeze(context):
        bench.clock.advance(RULES.lease_s + 1)
        with pytest.raises(CancelledError, match="another may be at work"):
            context.check()
        stopped.append(True)
        raise CancelledError("as the step would")

    steps.acts[Step.UPLOAD] = freeze
    assert bench.run_next()
    assert stopped == [True]
    (run,) = runs_of(bench, batch)
    assert (run.state, run.attempt) == (RunState.READY, 0)


def test_step_is_told_to_stop_at_a_shutdown(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])

    def work(context):
        bench.stop.set()
        for _ in range(500):
            context.check()
            time.sleep(0.01)
        return Done({})

    steps.acts[Step.UPLOAD] = work
    assert bench.run_next()
    assert runs_of(bench, batch)[0].state is RunState.READY
    assert bench.count_runs(Step.UPLOAD, "interrupted") == 1


def test_step_is_told_to_stop_at_its_time_limit(bench, steps):
    batch = add_batch(bench.database, bench.add_watch(), ["a"])

    def work(context):
        context.check()
        bench.clock.advance(101)
        context.check()
        return Done({})

    steps.acts[Step.UPLOAD] = work
    assert bench.run_next()
    (run,) = runs_of(bench, batch)
    assert run.state is RunState.READY
    assert "WATCHER_RUNS__TIME_LIMIT_S" in run.error


def test_sample_set_aside_by_a_step_stays_so_when_its_batch_ends(bench, steps):
    watch = bench.add_watch(steps=(Step.UPLOAD,))
    add_batch(bench.database, watch, ["good", "bad"], config=bench.configs["gate"])

    def work(context):
        with context.database.write() as session:
            sample = samples.load_sample(session, watch_id=watch.id, file_name="bad")
            samples.record_quarantined(
                session, sample_id=sample.id, reason="no image", now_ms=context.now_ms()
            )
        return Done({})

    steps.acts[Step.UPLOAD] = work
    assert bench.run_next()
    assert load(bench.database, watch, "bad").state is SampleState.QUARANTINED
    assert load(bench.database, watch, "good").state is SampleState.DONE


BACKOFF = Backoff(max_attempts=100)


@pytest.mark.parametrize(
    ("error", "attempt", "final"),
    [
        (UnknownOutcomeError("x"), 1, False),
        (UnknownOutcomeError("x"), 99, False),
        (UnknownOutcomeError("x"), 100, True),
        (StoreUnavailableError("x"), 50, False),
        (DeadlineExceededError("x"), 50, False),
        (build_api_exception(500), 50, False),
        (build_api_exception(429), 50, False),
        (build_api_exception(401), 50, False),
        (build_api_exception(403), 50, False),
        (build_api_exception(401), 100, True),
        (ProtocolError("the page of a proxy"), 50, False),
        (build_api_exception(400), 1, True),
        (build_api_exception(404), 1, True),
        (build_api_exception(409), 1, True),
        (ConfigError("x"), 1, True),
        (ImageError("x"), 1, True),
        (ZeroDivisionError(), 4, False),
        (ZeroDivisionError(), 5, True),
        (KeyError("x"), 5, True),
    ],
    ids=lambda value: (
        f"{type(value).__name__} {getattr(value, 'status', '')}" if isinstance(value, Exception) else None
    ),
)
def test_failed_attempt_is_the_last_one_only_where_a_retry_cannot_help(error, attempt, final):
    assert is_final(error, attempt=attempt, backoff=BACKOFF) is final


def test_waits_of_retries_are_spread_by_the_given_randomness():
    delays = {
        round(BACKOFF.compute_delay_s(attempt=5, jitter=random.Random(n).random()), 3) for n in range(50)
    }
    assert len(delays) > 40
