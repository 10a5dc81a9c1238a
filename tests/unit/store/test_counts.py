"""What gauges and pages are computed from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import delete, func, select, update

from tests.builders import NOW_MS, add_batch, add_watch, list_names, load
from watcher.domain.models import BatchState, SampleState
from watcher.store import batches, samples, tables
from watcher.store.counts import correct_counts, fold_counts, load_counts
from watcher.store.troubled import load_troubled


def counts(database):
    with database.read() as session:
        return {(name, state.value): n for (name, state), n in load_counts(session).items()}


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
        found = load_troubled(session, watch_id=watch.id, limit=2)[watch.id]
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


def count_rows(database):
    """The truth, counted row by row."""
    with database.read() as session:
        rows = session.execute(
            select(tables.watches.c.name, tables.samples.c.state, func.count())
            .join(tables.watches, tables.watches.c.id == tables.samples.c.watch_id)
            .group_by(tables.watches.c.name, tables.samples.c.state)
        )
        return {(name, state): n for name, state, n in rows}


def nonzero(counted):
    return {key: n for key, n in counted.items() if n}


def test_counts_follow_every_kind_of_change_and_no_undone_one(database, watch):
    roof = add_watch(database, "roof")
    batch = add_batch(database, watch, [f"{n}" for n in range(20)])
    list_names(database, watch, [f"{n}" for n in range(10, 30)])  # half of them known
    list_names(database, roof, ["broken"], reason="bad name")
    with database.write() as session:
        samples.return_to_waiting(
            session,
            sample_id=load(database, watch, "3").id,
            reason="cut off",
            available_ms=NOW_MS,
            now_ms=NOW_MS,
        )
        samples.record_gone(session, sample_id=load(database, watch, "4").id, reason="r", now_ms=1)
    assert nonzero(counts(database)) == count_rows(database)
    with database.write() as session:
        samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS)
        session.rollback()
    assert nonzero(counts(database)) == count_rows(database)
    with database.write() as session:
        samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS)
        session.execute(delete(tables.samples).where(tables.samples.c.file_name == "7"))
        session.execute(
            update(tables.samples).where(tables.samples.c.file_name == "8").values(watch_id=roof.id)
        )
    assert nonzero(counts(database)) == count_rows(database)
    assert counts(database)["roof", "done"] == 1


def test_counts_of_changes_at_once_stay_exact(database, watch):
    add_batch(database, watch, [f"{n}" for n in range(60)])
    ids = [load(database, watch, f"{n}").id for n in range(60)]

    def change(part):
        for sample_id in ids[part::4]:
            with database.write() as session:
                samples.record_quarantined(session, sample_id=sample_id, reason="r", now_ms=1)
            with database.write() as session:
                fold_counts(session)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert nonzero(counts(database)) == {("gate", "quarantined"): 60}


def test_counts_folded_are_the_same_in_fewer_rows(database, watch):
    batch = add_batch(database, watch, ["a", "b"])
    list_names(database, watch, ["c"])
    with database.write() as session:
        samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS)
    before = counts(database)
    for _ in range(2):
        with database.write() as session:
            fold_counts(session)
        assert counts(database) == before
    if not database.is_sqlite:
        with database.read() as session:
            assert session.execute(select(func.count()).select_from(tables.sample_counts)).scalar_one() == 2


def test_counts_that_are_off_are_told_and_put_right(database, watch):
    add_batch(database, watch, ["a", "b"])
    roof = add_watch(database, "roof")
    list_names(database, roof, ["c"])
    with database.write() as session:
        assert correct_counts(session, watch_id=watch.id) == {}
        session.execute(
            update(tables.sample_counts)
            .where(tables.sample_counts.c.watch_id == watch.id)
            .values(state="gone", n=tables.sample_counts.c.n + 3)
        )
    with database.write() as session:
        assert correct_counts(session, watch_id=watch.id)[SampleState.PROCESSING] == 2
        assert correct_counts(session, watch_id=watch.id) == {}
    assert nonzero(counts(database)) == {("gate", "processing"): 2, ("roof", "waiting"): 1}


def test_newest_discovered_is_told_whatever_became_of_it(database, watch):
    roof = add_watch(database, "roof")
    list_names(database, watch, ["a"], now_ms=NOW_MS)
    list_names(database, watch, ["b"], now_ms=NOW_MS + 100)
    with database.write() as session:
        samples.record_gone(session, sample_id=load(database, watch, "b").id, reason="r", now_ms=1)
    with database.read() as session:
        assert samples.load_newest_discovered(session) == {"gate": NOW_MS + 100}
    list_names(database, roof, ["c"], now_ms=NOW_MS + 7)
    with database.read() as session:
        assert samples.load_newest_discovered(session) == {"gate": NOW_MS + 100, "roof": NOW_MS + 7}
