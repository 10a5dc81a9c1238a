"""The queue as gauges tell it."""

from __future__ import annotations

from tests.builders import NOW_MS, add_batch, add_watch, claim
from watcher.domain.models import RunState
from watcher.store import queue, runs


def load(database, now_ms=NOW_MS):
    with database.read() as session:
        return queue.load_queues(session, now_ms=now_ms)


def end(database, run, error, *, available_ms=NOW_MS + 5000):
    with database.write() as session:
        runs.postpone_run(
            session, run_id=run.id, owner="me", available_ms=available_ms, error=error, count_attempt=True
        )


def test_queue_tells_ready_delayed_and_running_runs_and_since_when(database, watch):
    assert load(database) == {}
    add_batch(database, watch, ["a"])
    assert load(database, NOW_MS + 9) == {"gate": queue.Queue(n_ready=1, oldest_ready_ms=NOW_MS)}
    run = claim(database)
    assert load(database) == {"gate": queue.Queue(n_running=1)}
    end(database, run, "ServiceException: 503")
    assert load(database) == {"gate": queue.Queue(n_delayed=1)}
    assert load(database, NOW_MS + 6000) == {"gate": queue.Queue(n_ready=1, oldest_ready_ms=NOW_MS + 5000)}
    run = claim(database, now_ms=NOW_MS + 6000)
    with database.write() as session:
        runs.end_run(
            session, run_id=run.id, owner="me", state=RunState.DONE, now_ms=NOW_MS, result={}, error=None
        )
    assert load(database) == {}


def test_queue_tells_the_oldest_run_without_a_known_outcome_of_each_watch(database, watch):
    roof = add_watch(database, "roof")
    add_batch(database, watch, ["a"], now_ms=NOW_MS - 7000)
    run = claim(database)
    add_batch(database, roof, ["b"], now_ms=NOW_MS - 100)
    end(database, run, "UnknownOutcomeError: the answer was lost")
    found = load(database)
    assert (found["gate"].oldest_unknown_ms, found["roof"].oldest_unknown_ms) == (NOW_MS - 7000, None)
    claim(database, lease_ms=1000)
    claim(database, now_ms=NOW_MS + 2000)  # takes note that the lease ran out
    assert load(database)["roof"].oldest_unknown_ms == NOW_MS - 100
