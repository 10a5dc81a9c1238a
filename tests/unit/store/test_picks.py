"""Picks and vectors: replaced, never doubled, and the same bits again."""

from __future__ import annotations

import numpy as np

from tests.builders import add_batch, add_watch, load
from watcher.store import batches, picks, samples, vectors


def pick(database, watch, batch, names):
    rows = [(load(database, watch, name).id, rank, {"why": name}) for rank, name in enumerate(names, 1)]
    with database.write() as session:
        picks.replace_picks(session, batch_id=batch.id, rows=rows)
        batches.record_sampling_tag(session, batch_id=batch.id, tag_id="t", tag_name=batch.key)


def names_picked(database, batch):
    with database.read() as session:
        return [(p.rank, p.file_name, p.reason) for p in picks.load_picks(session, batch_id=batch.id)]


def test_picks_come_back_by_rank_with_their_names_and_reasons(database, watch):
    batch = add_batch(database, watch, ["a", "b", "日本 'c'"])
    pick(database, watch, batch, ["日本 'c'", "a"])
    assert names_picked(database, batch) == [
        (1, "日本 'c'", {"why": "日本 'c'"}),
        (2, "a", {"why": "a"}),
    ]


def test_picks_of_a_repeated_sampling_take_the_place_of_the_first(database, watch):
    batch = add_batch(database, watch, ["a", "b", "c"])
    pick(database, watch, batch, ["a", "b"])
    pick(database, watch, batch, ["c"])
    assert [name for _, name, _ in names_picked(database, batch)] == ["c"]
    pick(database, watch, batch, [])
    assert names_picked(database, batch) == []


def test_picks_of_other_batches_stay(database, watch):
    first, second = add_batch(database, watch, ["a"]), add_batch(database, watch, ["b"])
    pick(database, watch, first, ["a"])
    pick(database, watch, second, ["b"])
    pick(database, watch, second, [])
    assert [name for _, name, _ in names_picked(database, first)] == ["a"]


def test_latest_picks_are_those_of_the_newest_batches_best_first(database, watch):
    first, second = add_batch(database, watch, ["a", "b"]), add_batch(database, watch, ["c", "d"])
    other = add_watch(database, "roof")
    pick(database, watch, first, ["b", "a"])
    pick(database, watch, second, ["d", "c"])
    pick(database, other, add_batch(database, other, ["x"]), ["x"])
    with database.write() as session:
        samples.record_registered(
            session,
            sample_id=load(database, watch, "d").id,
            remote_id="r",
            size_bytes=1,
            modified_s=None,
            now_ms=1,
        )
    with database.read() as session:
        latest = picks.load_latest_picks(session, watch_id=watch.id, limit=3)[watch.id]
        of_a = picks.load_picks_of_sample(session, sample_id=load(database, watch, "a").id)
    assert [(p.file_name, p.rank, p.remote_id) for p in latest] == [
        ("d", 1, "r"),
        ("c", 2, None),
        ("b", 1, None),
    ]
    assert [(p.batch_id, p.rank) for p in of_a] == [(first.id, 2)]


def record(database, watch, rows, embedder="descriptor-1"):
    with database.write() as session:
        vectors.record_vectors(session, watch_id=watch.id, embedder=embedder, rows=rows)


def load_vectors(database, watch, names, embedder="descriptor-1"):
    with database.read() as session:
        return vectors.load_vectors(session, watch_id=watch.id, embedder=embedder, file_names=names)


def test_vectors_come_back_bit_by_bit_whatever_they_hold(database, watch):
    bits = np.random.default_rng(1).integers(0, 2**32, size=(50, 64), dtype=np.uint32)
    bits[0, :6] = [0x7FC00001, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001, 0x7F7FFFFF]
    stored = {f"{n} 'é'.jpg": row.view(np.float32) for n, row in enumerate(bits)}
    record(database, watch, list(stored.items()))
    found = load_vectors(database, watch, [*stored, "absent"])
    assert set(found) == set(stored)
    for name, vector in stored.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == vector.tobytes()


def test_vectors_of_many_names_are_all_found(database, watch):
    rows = [(f"{n:04d}", np.full(4, n, dtype=np.float32)) for n in range(1201)]
    record(database, watch, rows)
    found = load_vectors(database, watch, [name for name, _ in rows])
    assert {name: vector[0] for name, vector in found.items()} == {name: vector[0] for name, vector in rows}


def test_vector_that_is_known_stays_as_it_is(database, watch):
    record(database, watch, [("a", np.ones(2, dtype=np.float32))])
    record(database, watch, [("a", np.zeros(2, dtype=np.float32)), ("b", np.zeros(2, dtype=np.float32))])
    record(database, watch, [])
    found = load_vectors(database, watch, ["a", "b"])
    assert {name: vector.tolist() for name, vector in found.items()} == {"a": [1.0, 1.0], "b": [0.0, 0.0]}


def test_vectors_of_another_embedder_or_watch_are_not_taken(database, watch):
    record(database, watch, [("a", np.ones(2, dtype=np.float32))])
    assert load_vectors(database, watch, ["a"], embedder="descriptor-2") == {}
    assert load_vectors(database, add_watch(database, "roof"), ["a"]) == {}
