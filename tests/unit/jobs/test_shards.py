"""Shards: a large batch is worked on in pieces, and what is done once a batch is done once, after the last of them."""

from __future__ import annotations

import threading
import time

import pytest

from tests.builders import NOW_MS, add_batch, build_config, load
from watcher.domain.errors import build_api_exception
from watcher.domain.models import BatchRules, BatchState, RunState, SampleState, Step
from watcher.jobs import steps as steps_module
from watcher.jobs.runner import Done
from watcher.store import batches, control, runs, samples, watches

RULES = BatchRules(min_samples=1, max_samples=1000, shard_samples=3)
NAMES = [f"{n:02d}" for n in range(8)]


@pytest.fixture
def shards(monkeypatch, steps):
    """What each shard worked on, by step."""
    worked: list[tuple[Step, int, list[str]]] = []

    def work(context):
        with context.database.read() as session:
            page = samples.load_batch_page(
                session,
                batch_id=context.batch.id,
                after_id=context.first_sample_id - 1,
                last_id=context.run.last_sample_id,
            )
        worked.append((context.run.step, context.run.shard, [sample.file_name for sample in page]))
        act = steps.acts.get((context.run.step, context.run.shard), lambda _context: Done({}))
        outcome = act(context)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(steps_module, "SHARDS", {Step.UPLOAD: work, Step.EMBED: work})
    return worked


@pytest.fixture
def batch(bench):
    watch = bench.add_watch(batch=RULES)
    return add_batch(bench.database, watch, NAMES, config=bench.configs["gate"])


def load_runs(bench, batch):
    with bench.database.read() as session:
        return runs.load_batch_runs(session, batch_id=batch.id)


def test_large_batch_is_cut_into_ranges_that_hold_every_sample_once(bench, shards, batch):
    assert [(run.step, run.shard, run.state) for run in load_runs(bench, batch)] == [
        (Step.UPLOAD, shard, RunState.READY) for shard in (1, 2, 3)
    ]
    for _ in range(3):
        assert bench.run_next()
    assert [names for _, _, names in shards] == [NAMES[:3], NAMES[3:6], NAMES[6:]]


def test_batch_of_one_shard_has_one_run_a_step(bench, steps, shards):
    watch = bench.add_watch(batch=RULES)
    batch = add_batch(bench.database, watch, NAMES[:3], config=bench.configs["gate"])
    while bench.run_next():
        pass
    assert shards == []
    assert [(run.step, run.shard) for run in load_runs(bench, batch)] == [
        (step, 0) for step in (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER)
    ]


def test_step_ends_with_one_run_after_its_last_shard(bench, steps, shards, batch):
    for _ in range(2):
        assert bench.run_next()
    assert not [run for run in load_runs(bench, batch) if run.shard == 0]
    assert bench.run_next()
    (closing,) = [run for run in load_runs(bench, batch) if run.shard == 0]
    assert (closing.step, closing.first_sample_id, closing.last_sample_id) == (Step.UPLOAD, None, None)
    assert steps.calls == []
    assert bench.run_next()
    assert steps.calls == [(batch.key, Step.UPLOAD)]
    while bench.run_next():
        pass
    assert steps.calls == [
        (batch.key, step) for step in (Step.UPLOAD, Step.EMBED, Step.SAMPLING, Step.DELIVER)
    ]
    assert [(step, shard) for step, shard, _ in shards] == [
        (step, shard) for step in (Step.UPLOAD, Step.EMBED) for shard in (1, 2, 3)
    ]
    with bench.database.read() as session:
        assert batches.load_batch(session, batch_id=batch.id).state is BatchState.DONE


def test_shards_that_end_at_the_same_moment_make_one_last_run(bench, steps, shards, batch):
    together = threading.Barrier(3, timeout=30)

    def meet(_context):
        together.wait()
        return Done({})

    steps.acts.update({(Step.UPLOAD, shard): meet for shard in (1, 2, 3)})
    threads = [threading.Thread(target=bench.run_next, kwargs={"owner": f"w{n}"}) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    of_upload = [run for run in load_runs(bench, batch) if run.step is Step.UPLOAD]
    assert sorted(run.shard for run in of_upload) == [0, 1, 2, 3]
    assert [run.state for run in of_upload if run.shard] == [RunState.DONE] * 3


def test_dead_shard_is_named_and_holds_only_its_batch(bench, steps, shards, batch):
    other = add_batch(
        bench.database, bench.add_watch("roof", batch=RULES), ["r"], config=bench.configs["roof"]
    )
    steps.acts[Step.UPLOAD, 2] = lambda _context: build_api_exception(400, "Bad Request")
    while bench.run_next():
        pass
    dead = [run for run in load_runs(bench, batch) if run.state is RunState.DEAD]
    assert [run.shard for run in dead] == [2]
    assert f"shard 2, samples {dead[0].first_sample_id} to {dead[0].last_sample_id}" in dead[0].error
    with bench.database.read() as session:
        assert batches.load_batch(session, batch_id=batch.id).state is BatchState.DEAD
        assert batches.load_batch(session, batch_id=other.id).state is BatchState.DONE
    assert (batch.key, Step.UPLOAD) not in steps.calls


def test_dead_shard_that_is_replayed_lets_its_batch_go_on_without_the_others_being_repeated(
    bench, steps, shards, batch
):
    steps.acts[Step.UPLOAD, 1] = lambda _context: build_api_exception(400, "Bad Request")
    while bench.run_next():
        pass
    steps.acts.clear()
    with bench.database.write() as session:
        watch = watches.load_watch(session, name="gate")
        assert control.replay(session, watch=watch, actor="me", now_ms=NOW_MS) == (1, 0, 0)
    while bench.run_next():
        pass
    assert [shard for step, shard, _ in shards if step is Step.UPLOAD] == [1, 1, 2, 3]
    assert load(bench.database, watch, "00").state is SampleState.DONE


def test_shards_of_a_batch_are_worked_on_side_by_side_and_the_next_batch_waits(bench, steps, shards, batch):
    watch = watches.Watch(id=batch.watch_id, name="gate", server="", dataset_id="")
    add_batch(bench.database, watch, ["later"], config=build_config("gate"))
    at_once, most = [0], [0]
    lock = threading.Lock()

    def count(_context):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        ends_s = time.monotonic() + 60
        while most[0] < 2 and time.monotonic() < ends_s:
            time.sleep(0.005)
        with lock:
            at_once[0] -= 1
        return Done({})

    steps.acts.update({(Step.UPLOAD, shard): count for shard in (1, 2, 3)})

    def work(owner):
        while bench.run_next(owner=owner):
            pass

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2
    ordered = [call for call in steps.calls if call[1] is not Step.DELIVER]
    assert ordered == sorted(ordered, key=lambda call: call[0])
