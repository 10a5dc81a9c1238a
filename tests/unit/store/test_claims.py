"""Claims: one worker a run, the oldest batch of a watch first, and what a dead worker held is taken up again."""

from __future__ import annotations

import threading

from tests.builders import NOW_MS, add_batch, add_run, add_watch, claim
from watcher.domain.models import BatchState, RunState, Step
from watcher.store import batches, runs


def load(database, run_id):
    with database.read() as session:
        return runs.load_run(session, run_id=run_id)


def end(database, run, owner="me", state=RunState.DONE, **values):
    facts = {"result": {}, "error": None, "now_ms": NOW_MS + 1, **values}
    with database.write() as session:
        return runs.end_run(session, run_id=run.id, owner=owner, state=state, **facts)


def finish(database, batch, state=BatchState.DONE):
    with database.write() as session:
        batches.finish_batch(session, batch_id=batch.id, state=state, now_ms=NOW_MS)


def test_claim_of_nothing_gives_nothing(database, watch):
    assert claim(database) is None


def test_claim_takes_the_run_under_a_lease_and_counts_the_attempt(database, watch):
    batch = add_batch(database, watch, ["a"])
    run = claim(database, owner="me", now_ms=NOW_MS + 7, lease_ms=1000)
    assert (run.batch_id, run.watch_id, run.step) == (batch.id, watch.id, Step.UPLOAD)
    assert (run.state, run.attempt, run.started_ms) == (RunState.RUNNING, 1, NOW_MS + 7)
    assert (run.lease_owner, run.lease_until_ms) == ("me", NOW_MS + 1007)
    assert claim(database, owner="other", now_ms=NOW_MS + 7) is None


def test_claim_before_a_run_is_available_gives_nothing(database, watch):
    add_batch(database, watch, ["a"], now_ms=NOW_MS)
    assert claim(database, now_ms=NOW_MS - 1) is None
    assert claim(database, now_ms=NOW_MS) is not None


def test_claim_takes_only_of_the_oldest_open_batch_of_a_watch(database, watch):
    first = add_batch(database, watch, ["a"])
    second = add_batch(database, watch, ["b"])
    run = claim(database)
    assert run.batch_id == first.id
    assert claim(database) is None
    end(database, run)
    assert claim(database) is None  # its next step is not made yet, but the batch is open
    finish(database, first, BatchState.DEAD)
    assert claim(database).batch_id == second.id


def test_claim_of_a_batch_that_waits_for_a_retry_does_not_let_the_next_one_pass(database, watch):
    add_batch(database, watch, ["a"])
    add_batch(database, watch, ["b"])
    run = claim(database)
    with database.write() as session:
        assert runs.postpone_run(
            session, run_id=run.id, owner="me", available_ms=NOW_MS + 60_000, error="e", count_attempt=True
        )
    assert claim(database, now_ms=NOW_MS + 59_999) is None
    assert claim(database, now_ms=NOW_MS + 60_000).id == run.id


def test_claim_of_a_replayed_batch_waits_for_the_run_under_way_of_a_newer_one(database, watch):
    first, second = (add_batch(database, watch, [name]) for name in "ab")
    dead = claim(database)
    end(database, dead, state=RunState.DEAD, error="why")
    finish(database, first, BatchState.DEAD)
    running = claim(database)
    assert running.batch_id == second.id
    with database.write() as session:
        runs.revive_run(session, run_id=dead.id, now_ms=NOW_MS)
    roof = add_batch(database, add_watch(database, "roof"), ["a"])
    assert claim(database).batch_id == roof.id
    assert claim(database) is None
    end(database, running)
    assert claim(database).id == dead.id


def test_claims_of_two_watches_do_not_wait_for_each_other(database, watch):
    gate = add_batch(database, watch, ["a"])
    roof = add_batch(database, add_watch(database, "roof"), ["a"])
    assert {claim(database).batch_id, claim(database).batch_id} == {gate.id, roof.id}


def test_claims_take_the_longest_ready_first(database, watch):
    late = add_batch(database, watch, ["a"], now_ms=NOW_MS + 10)
    early = add_batch(database, add_watch(database, "roof"), ["a"], now_ms=NOW_MS)
    assert [claim(database, now_ms=NOW_MS + 10).batch_id for _ in range(2)] == [early.id, late.id]


def test_claims_of_shards_of_one_batch_are_taken_side_by_side(database, watch):
    batch = add_batch(database, watch, ["a"])
    add_run(database, batch, Step.UPLOAD, shard=1)
    assert {claim(database).shard, claim(database).shard} == {0, 1}


def test_claims_by_many_workers_at_once_never_give_one_run_twice(database, watch):
    others = [add_watch(database, f"w{n}") for n in range(3)]
    for chosen in [watch, *others]:
        batch = add_batch(database, chosen, ["a"])
        for shard in range(1, 10):
            add_run(database, batch, Step.UPLOAD, shard=shard)
    taken: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(6)

    def work(owner: str) -> None:
        ready.wait()
        misses = 0
        try:
            while misses < 20:
                run = claim(database, owner=owner)
                if run is None:
                    misses += 1
                    continue
                assert run.lease_owner == owner
                taken.append((run.id, run.attempt))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"worker {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(taken) == 40
    assert len({run_id for run_id, _ in taken}) == 40
    assert {attempt for _, attempt in taken} == {1}


def test_lease_that_ran_out_lets_another_take_the_run_and_refuses_the_first(database, watch):
    add_batch(database, watch, ["a"])
    first = claim(database, owner="first", now_ms=NOW_MS, lease_ms=1000)
    assert claim(database, owner="second", now_ms=NOW_MS + 1000) is None
    second = claim(database, owner="second", now_ms=NOW_MS + 1001)
    assert (second.id, second.attempt, second.error) == (first.id, 2, "the lease ran out")
    assert not end(database, first, owner="first")
    assert load(database, first.id).lease_owner == "second"
    assert end(database, second, owner="second")


def test_lease_extended_keeps_the_run(database, watch):
    add_batch(database, watch, ["a"])
    run = claim(database, owner="me", now_ms=NOW_MS, lease_ms=1000)
    with database.write() as session:
        assert runs.extend_lease(session, run_id=run.id, owner="me", until_ms=NOW_MS + 5000)
        assert not runs.extend_lease(session, run_id=run.id, owner="other", until_ms=NOW_MS + 9000)
    assert claim(database, owner="other", now_ms=NOW_MS + 5000) is None
    assert claim(database, owner="other", now_ms=NOW_MS + 5001) is not None


def test_lease_of_a_run_that_ended_cannot_be_extended(database, watch):
    add_batch(database, watch, ["a"])
    run = claim(database)
    end(database, run)
    with database.write() as session:
        assert not runs.extend_lease(session, run_id=run.id, owner="me", until_ms=NOW_MS + 5000)


def test_start_of_a_daemon_releases_everything_a_killed_one_held_at_once(database, watch):
    add_batch(database, watch, ["a"])
    add_batch(database, add_watch(database, "roof"), ["a"])
    held = [claim(database, owner="killed", lease_ms=10**9) for _ in range(2)]
    with database.write() as session:
        assert runs.release_all(session, now_ms=NOW_MS + 1) == 2
        assert runs.release_all(session, now_ms=NOW_MS + 1) == 0
    assert not end(database, held[0], owner="killed")
    again = [claim(database, owner="new", now_ms=NOW_MS + 1) for _ in range(2)]
    assert {run.id for run in again} == {run.id for run in held}
    assert {run.attempt for run in again} == {2}


def test_run_ended_keeps_its_result_and_leaves_the_queue(database, watch):
    add_batch(database, watch, ["a"])
    run = claim(database)
    result = {"n": 3, "names": ["日本 'quoted'"], "nested": {"ok": True}}
    assert end(database, run, result=result)
    ended = load(database, run.id)
    assert (ended.state, ended.result, ended.finished_ms) == (RunState.DONE, result, NOW_MS + 1)
    assert (ended.lease_owner, ended.lease_until_ms) == (None, None)
    assert claim(database, now_ms=NOW_MS + 10**9) is None
    assert not end(database, run)


def test_run_ended_by_somebody_else_is_refused_and_left_alone(database, watch):
    add_batch(database, watch, ["a"])
    run = claim(database, owner="me")
    assert not end(database, run, owner="other", result={"n": 1}, error="x")
    assert load(database, run.id) == run


def test_run_postponed_by_somebody_else_is_refused_and_left_alone(database, watch):
    add_batch(database, watch, ["a"])
    run = claim(database, owner="me")
    with database.write() as session:
        assert not runs.postpone_run(
            session, run_id=run.id, owner="other", available_ms=0, error=None, count_attempt=True
        )
    assert load(database, run.id) == run


def test_run_that_asked_for_a_pause_is_not_counted_and_keeps_its_last_error(database, watch):
    add_batch(database, watch, ["a"])
    for error, count, attempt in (("broken", True, 1), (None, False, 1), (None, True, 2)):
        run = claim(database)
        with database.write() as session:
            runs.postpone_run(
                session, run_id=run.id, owner="me", available_ms=NOW_MS, error=error, count_attempt=count
            )
        waiting = load(database, run.id)
        assert (waiting.state, waiting.attempt, waiting.error) == (RunState.READY, attempt, "broken")


def test_dead_runs_are_listed_newest_first_with_their_watch(database, watch):
    other = add_watch(database, "roof")
    for chosen in (watch, other):
        batch = add_batch(database, chosen, ["a"])
        end(database, claim(database), state=RunState.DEAD, error=f"why {chosen.name}")
        finish(database, batch, BatchState.DEAD)
    with database.read() as session:
        dead = runs.load_dead_runs(session, limit=10)
        assert len(runs.load_dead_runs(session, limit=1)) == 1
    assert [(name, run.error) for name, run in dead] == [("roof", "why roof"), ("gate", "why gate")]
