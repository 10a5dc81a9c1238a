"""Batches: the longest waiting first, never more than allowed, numbered without gaps."""

from __future__ import annotations

import threading

import pytest

from tests.builders import NOW_MS, add_batch, add_watch, build_config, cut, list_names, load
from watcher.domain.models import BatchRules, BatchState, RunState, SampleState, Step
from watcher.store import batches, runs, samples


def load_batches(database, watch):
    with database.read() as session:
        return batches.load_recent_batches(session, watch_id=watch.id, limit=100)[watch.id][::-1]


def names_in(database, batch):
    with database.read() as session:
        return [s.file_name for s in samples.load_batch_page(session, batch_id=batch.id, limit=10_000)]


def test_batch_takes_the_longest_waiting_first_and_no_more_than_its_limit(database, watch):
    list_names(database, watch, ["new"], now_ms=NOW_MS + 2)
    list_names(database, watch, ["old 1", "old 2"], now_ms=NOW_MS)
    with database.write() as session:
        batch = batches.create_batch(
            session, watch_id=watch.id, watch_name="gate", steps=(Step.UPLOAD,), now_ms=NOW_MS
        )
        n = samples.assign_batch(session, watch_id=watch.id, batch_id=batch.id, limit=2, now_ms=NOW_MS + 9)
    assert n == 2
    assert names_in(database, batch) == ["old 1", "old 2"]
    assert load(database, watch, "old 1").changed_ms == NOW_MS + 9
    assert load(database, watch, "new").state is SampleState.WAITING


def test_batch_leaves_samples_whose_time_has_not_come(database, watch):
    list_names(database, watch, ["later"])
    with database.write() as session:
        samples.return_to_waiting(
            session,
            sample_id=load(database, watch, "later").id,
            reason="cut off",
            available_ms=NOW_MS + 20_000,
            now_ms=NOW_MS,
        )
    assert cut(database, watch, now_ms=NOW_MS + 19_999) == 0
    assert cut(database, watch, now_ms=NOW_MS + 20_000) == 1
    sample = load(database, watch, "later")
    assert (sample.attempts, sample.reason) == (1, "cut off")


def test_batch_never_takes_samples_of_another_watch(database, watch):
    other = add_watch(database, "roof")
    list_names(database, other, ["a"])
    assert cut(database, watch) == 0
    assert load(database, other, "a").state is SampleState.WAITING


def test_batches_of_a_flood_are_cut_until_as_many_are_open_as_allowed(database, watch):
    rules = BatchRules(min_samples=10, max_samples=10, max_open=3)
    config = build_config(batch=rules)
    list_names(database, watch, [f"{n:03d}" for n in range(45)])
    assert cut(database, watch, config) == 3
    assert cut(database, watch, config) == 0
    made = load_batches(database, watch)
    assert [batch.n_samples for batch in made] == [10, 10, 10]
    assert [batch.key for batch in made] == ["gate-000001", "gate-000002", "gate-000003"]
    with database.write() as session:
        batches.finish_batch(session, batch_id=made[0].id, state=BatchState.DONE, now_ms=NOW_MS)
    assert cut(database, watch, config) == 1
    assert load_batches(database, watch)[-1].number == 4


def test_batch_of_few_samples_waits_for_the_oldest_to_be_old_enough(database, watch):
    config = build_config(batch=BatchRules(min_samples=100, max_wait_s=15.0))
    list_names(database, watch, ["a"], now_ms=NOW_MS)
    list_names(database, watch, ["b"], now_ms=NOW_MS + 10_000)
    assert cut(database, watch, config, now_ms=NOW_MS + 14_999) == 0
    assert cut(database, watch, config, now_ms=NOW_MS + 15_000) == 1
    assert load_batches(database, watch)[0].n_samples == 2


def test_batch_is_cut_with_its_first_run_and_keeps_its_steps_when_settings_change(database, watch):
    list_names(database, watch, ["a"])
    cut(database, watch, build_config(steps=(Step.UPLOAD, Step.EMBED)))
    list_names(database, watch, ["b"])
    cut(database, watch, build_config(steps=(Step.UPLOAD,)))
    first, second = load_batches(database, watch)
    assert first.steps == (Step.UPLOAD, Step.EMBED)
    assert second.steps == (Step.UPLOAD,)
    with database.read() as session:
        (run,) = runs.load_batch_runs(session, batch_id=first.id)
    assert (run.step, run.state, run.attempt, run.available_ms) == (Step.UPLOAD, RunState.READY, 0, NOW_MS)


def test_batches_of_two_watches_are_numbered_each_for_itself(database, watch):
    other = add_watch(database, "roof")
    for chosen in (watch, other, watch):
        add_batch(database, chosen, [f"{len(load_batches(database, chosen))}"])
    assert [b.key for b in load_batches(database, watch)] == ["gate-000001", "gate-000002"]
    assert [b.key for b in load_batches(database, other)] == ["roof-000001"]


def test_batches_cut_by_a_poll_and_a_worker_at_once_share_no_sample_and_fail_neither(database, watch):
    config = build_config(batch=BatchRules(min_samples=1, max_samples=7, max_open=1000))
    list_names(database, watch, [f"{n:03d}" for n in range(200)])
    errors: list[BaseException] = []
    ready = threading.Barrier(4)

    def cut_once() -> None:
        ready.wait()
        try:
            cut(database, watch, config)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=cut_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    made = load_batches(database, watch)
    assert [batch.number for batch in made] == list(range(1, 30))
    assert all(batch.n_samples for batch in made)
    held = [name for batch in made for name in names_in(database, batch)]
    assert sorted(held) == [f"{n:03d}" for n in range(200)]


def test_batch_pages_hold_every_sample_in_processing_once_in_order(database, watch):
    names = [f"{n:03d}" for n in range(25)]
    batch = add_batch(database, watch, names)
    with database.write() as session:
        samples.record_registered(
            session,
            sample_id=load(database, watch, "003").id,
            remote_id="r",
            size_bytes=5,
            modified_s=7,
            now_ms=1,
        )
        samples.record_quarantined(session, sample_id=load(database, watch, "004").id, reason="r", now_ms=1)
    found: list[str] = []
    after_id = 0
    with database.read() as session:
        while page := samples.load_batch_page(session, batch_id=batch.id, after_id=after_id, limit=10):
            found += [sample.file_name for sample in page]
            after_id = page[-1].id
        pending = samples.load_batch_page(session, batch_id=batch.id, pending_only=True)
        n_registered = samples.count_registered(session, batch_id=batch.id)
    assert found == [name for name in names if name != "004"]
    assert [s.file_name for s in pending] == [name for name in names if name not in {"003", "004"}]
    assert n_registered == 1
    registered = load(database, watch, "003")
    assert (registered.remote_id, registered.size_bytes, registered.modified_s) == ("r", 5, 7)


def test_batch_that_ends_ends_its_samples_but_not_those_set_aside(database, watch):
    batch = add_batch(database, watch, ["a", "bad", "gone"])
    with database.write() as session:
        samples.record_quarantined(session, sample_id=load(database, watch, "bad").id, reason="r", now_ms=1)
        samples.record_gone(session, sample_id=load(database, watch, "gone").id, reason="g", now_ms=1)
        assert samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS + 1) == 1
        batches.finish_batch(session, batch_id=batch.id, state=BatchState.DONE, now_ms=NOW_MS + 1)
    states = {name: load(database, watch, name).state.value for name in ("a", "bad", "gone")}
    assert states == {"a": "done", "bad": "quarantined", "gone": "gone"}
    (done,) = load_batches(database, watch)
    assert (done.state, done.finished_ms) == (BatchState.DONE, NOW_MS + 1)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_embeddings_older_than_the_kept_ones_are_found_newest_first(database, watch, keep):
    made = [add_batch(database, watch, [str(n)]) for n in range(4)]
    with database.write() as session:
        for batch in made:
            batches.record_embedding(session, batch_id=batch.id, embedding_id=f"e{batch.number}")
        batches.forget_embedding(session, batch_id=made[0].id)
        found = batches.load_embeddings_before(
            session, watch_id=watch.id, before_batch_id=made[3].id, keep=keep
        )
    assert [embedding_id for _, embedding_id in found] == ["e3", "e2"][keep:]


def test_sampling_tag_of_the_batch_before_is_the_newest_of_the_watch_but_not_its_own(database, watch):
    first, second = (add_batch(database, watch, [name]) for name in "ab")
    other = add_batch(database, add_watch(database, "roof"), ["c"])

    def last(batch):
        with database.read() as session:
            return batches.load_last_sampling_tag(session, watch_id=watch.id, but_batch_id=batch.id)

    assert last(first) is None
    with database.write() as session:
        for batch in (first, second, other):
            batches.record_sampling_tag(
                session, batch_id=batch.id, tag_id=f"t-{batch.key}", tag_name=batch.key
            )
        batches.record_query_tag(session, batch_id=first.id, tag_id="q")
    assert last(second) == "t-gate-000001"
    assert last(first) == "t-gate-000002"
    loaded = load_batches(database, watch)[0]
    assert (loaded.query_tag_id, loaded.sampling_tag_name) == ("q", "gate-000001")
