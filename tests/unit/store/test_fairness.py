"""Fair sharing of the workers among watches, and the limits of one watch."""

from __future__ import annotations

from tests.builders import NOW_MS, add_batch, add_run, add_watch, build_config
from watcher.domain.models import BatchRules, RunState, Step
from watcher.store import claims, runs


def claim(database, *, now_ms=NOW_MS, **options):
    with database.write() as session:
        return claims.claim_run(session, owner="me", now_ms=now_ms, lease_ms=60_000, **options)


def end(database, run, *, now_ms=NOW_MS):
    with database.write() as session:
        assert runs.end_run(
            session, run_id=run.id, owner="me", state=RunState.DONE, now_ms=now_ms, result={}, error=None
        )


def add_large_batch(database, watch, n_shards):
    rules = BatchRules(min_samples=1, max_samples=1000, shard_samples=1)
    names = [f"{n:04d}" for n in range(n_shards)]
    return add_batch(database, watch, names, config=build_config(watch.name, batch=rules))


def test_watch_with_a_long_queue_does_not_keep_others_waiting(database, watch):
    add_large_batch(database, watch, 500)
    late = [add_watch(database, f"late{n}") for n in range(3)]
    for other in late:
        add_batch(database, other, ["a"], now_ms=NOW_MS + 5)
    # One worker: the watch that was served longest ago comes next, however long the queue of another.
    served = []
    for turn in range(6):
        run = claim(database, now_ms=NOW_MS + 10 + turn)
        served.append(run.watch_id)
        end(database, run)
    assert served[0] == watch.id
    assert {other.id for other in late} == set(served[1:4])
    assert served[4:] == [watch.id, watch.id]


def test_workers_are_spread_over_the_watches_that_have_work(database, watch):
    other = add_watch(database, "other")
    add_large_batch(database, watch, 10)
    add_large_batch(database, other, 10)
    taken = [claim(database, now_ms=NOW_MS + n).watch_id for n in range(6)]
    assert taken.count(watch.id) == taken.count(other.id) == 3


def test_limit_of_a_watch_holds_over_all_workers_and_leaves_the_others_alone(database, watch):
    other = add_watch(database, "other")
    add_large_batch(database, watch, 10)
    add_large_batch(database, other, 10)
    limits = {"gate": 2}
    taken = []
    while (run := claim(database, most_running=limits)) is not None:
        taken.append(run)
    assert sum(run.watch_id == watch.id for run in taken) == 2
    assert sum(run.watch_id == other.id for run in taken) == 10
    end(database, next(run for run in taken if run.watch_id == watch.id))
    assert claim(database, most_running=limits).watch_id == watch.id
    assert claim(database, most_running=limits) is None


def test_claim_of_some_steps_leaves_the_others(database, watch):
    batch = add_batch(database, watch, ["a"])
    add_run(database, batch, Step.EMBED)
    assert claim(database, steps=[Step.EMBED]).step is Step.EMBED
    assert claim(database, steps=[Step.EMBED]) is None
    assert claim(database, steps=[Step.UPLOAD, Step.EMBED]).step is Step.UPLOAD


def test_delivery_neither_waits_for_the_batches_of_its_watch_nor_holds_them_up(database, watch):
    first, second = (add_batch(database, watch, [name]) for name in "ab")
    run = claim(database)
    assert run.batch_id == first.id
    end(database, run)
    assert claim(database) is None
    add_run(database, first, Step.DELIVER)
    taken = [claim(database), claim(database)]
    assert {(run.batch_id, run.step) for run in taken} == {(first.id, Step.DELIVER), (second.id, Step.UPLOAD)}
