"""What gauges and pages are computed from."""

from __future__ import annotations

from tests.builders import NOW_MS, add_batch, add_watch, list_names, load
from watcher.domain.models import BatchState, SampleState
from watcher.store import batches, samples


def counts(database):
    with database.read() as session:
        return {(name, state.value): n for (name, state), n in samples.count_by_state(session).items()}


def oldest(database):
    with database.read() as session:
        return samples.load_oldest_pending(session)


def test_counts_name_every_state_of_every_watch_even_at_zero(database, watch):
    add_watch(database, "roof")
    expected = {(name, state.value): 0 for name in ("gate", "roof") for state in SampleState}
    assert counts(database) == expected
    add_batch(database, watch, ["a", "b", "c"])
    list_names(database, watch, ["d"])
    with database.write() as session:
        samples.record_quarantined(session, sample_id=load(database, watch, "a").id, reason="r", now_ms=1)
        samples.record_gone(session, sample_id=load(database, watch, "b").id, reason="r", now_ms=1)
    expected |= {("gate", state): 1 for state in ("waiting", "processing", "quarantined", "gone")}
    assert counts(database) == expected


def test_oldest_pending_is_absent_while_nothing_waits(database, watch):
    assert oldest(database) == {}
    batch = add_batch(database, watch, ["a"])
    with database.write() as session:
        samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS)
    assert oldest(database) == {}


def test_oldest_pending_is_the_first_discovered_whether_it_waits_or_is_in_a_batch(database, watch):
    roof = add_watch(database, "roof")
    batch = add_batch(database, watch, ["a"], now_ms=NOW_MS)
    list_names(database, watch, ["b"], now_ms=NOW_MS + 100)
    list_names(database, roof, ["c"], now_ms=NOW_MS + 50)
    assert oldest(database) == {"gate": NOW_MS, "roof": NOW_MS + 50}
    with database.write() as session:
        samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS + 200)
    assert oldest(database) == {"gate": NOW_MS + 100, "roof": NOW_MS + 50}
    with database.write() as session:
        samples.record_quarantined(session, sample_id=load(database, watch, "b").id, reason="r", now_ms=1)
    assert oldest(database) == {"roof": NOW_MS + 50}


def test_oldest_pending_returned_to_wait_keeps_its_discovery(database, watch):
    add_batch(database, watch, ["a"], now_ms=NOW_MS)
    list_names(database, watch, ["b"], now_ms=NOW_MS + 100)
    with database.write() as session:
        samples.return_to_waiting(
            session,
            sample_id=load(database, watch, "a").id,
            reason="cut off",
            available_ms=NOW_MS + 10**6,
            now_ms=NOW_MS + 300,
        )
    assert oldest(database) == {"gate": NOW_MS}


def test_troubled_samples_are_listed_newest_first(database, watch):
    add_batch(database, watch, ["a", "b", "c", "d"])
    with database.write() as session:
        for name in ("c", "a"):
            samples.record_gone(session, sample_id=load(database, watch, name).id, reason=name, now_ms=1)
        samples.record_quarantined(session, sample_id=load(database, watch, "d").id, reason="d", now_ms=1)
    with database.read() as session:
        found = samples.load_troubled(session, watch_id=watch.id, limit=2)
    assert [(sample.file_name, sample.reason) for sample in found] == [("d", "d"), ("c", "c")]


def test_batches_are_counted_by_watch_and_state(database, watch):
    first = add_batch(database, watch, ["a"])
    add_batch(database, watch, ["b"])
    roof = add_watch(database, "roof")
    add_batch(database, roof, ["a"])
    with database.write() as session:
        batches.finish_batch(session, batch_id=first.id, state=BatchState.DEAD, now_ms=NOW_MS)
        assert batches.count_by_state(session) == {
            ("gate", BatchState.DEAD): 1,
            ("gate", BatchState.OPEN): 1,
            ("roof", BatchState.OPEN): 1,
        }
        assert batches.count_open(session, watch_id=watch.id) == 1
