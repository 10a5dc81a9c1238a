"""Vectors packed in blocks: every one once, in the order in which they came, whatever the sizes of the batches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import add_batch, add_watch
from watcher.store import neighbours, vectors

DIM = 16_384  # sixteen rows fill a block
EMBEDDER = "test-v1"


def store(database, watch, names, *, dim=DIM):
    rows = [(name, np.full(dim, number + 1, dtype=np.float32)) for number, name in enumerate(names)]
    with database.write() as session:
        vectors.record_vectors(session, watch_id=watch.id, embedder=EMBEDDER, rows=rows)
    return rows


def pack(database, watch, rows, *, dim=DIM):
    with database.write() as session:
        return neighbours.pack_vectors(session, watch_id=watch.id, embedder=EMBEDDER, dim=dim, rows=rows)


def load_all(database, watch, *, from_row=0, limit=100):
    with database.read() as session:
        return neighbours.load_blocks(
            session,
            watch_id=watch.id,
            embedder=EMBEDDER,
            dim=DIM,
            from_row=from_row,
            limit=limit,
            with_names=True,
        )


def count(database, watch):
    with database.read() as session:
        return neighbours.count_rows(session, watch_id=watch.id, embedder=EMBEDDER)


@pytest.mark.parametrize("size", [1, 5, 16, 40])
def test_batches_of_any_size_fill_blocks_in_order(database, watch, size):
    names = [f"é{number:02d}" for number in range(40)]
    rows = store(database, watch, names)
    for start in range(0, 40, size):
        assert pack(database, watch, rows[start : start + size]) == len(rows[start : start + size])
    blocks = load_all(database, watch)
    assert [(b.first_row, len(b.vectors)) for b in blocks] == [(0, 16), (16, 16), (32, 8)]
    assert [name for block in blocks for name in block.names] == names
    assert [float(row[0]) for block in blocks for row in block.vectors] == list(range(1, 41))
    assert count(database, watch) == 40


def test_vectors_are_packed_once(database, watch):
    rows = store(database, watch, ["a", "b", "c"])
    assert pack(database, watch, rows[:2]) == 2
    assert pack(database, watch, rows) == 1
    assert pack(database, watch, rows) == 0
    assert [block.names for block in load_all(database, watch)] == [("a", "b", "c")]


def test_vector_without_length_is_in_no_block_and_does_not_come_again(database, watch):
    with database.write() as session:
        rows = [("none", np.zeros(DIM, dtype=np.float32))]
        vectors.record_vectors(session, watch_id=watch.id, embedder=EMBEDDER, rows=rows)
    assert pack(database, watch, rows) == 0
    assert load_all(database, watch) == []
    with database.read() as session:
        assert (
            neighbours.load_unpacked(session, watch_id=watch.id, embedder=EMBEDDER, but_batch_id=0, limit=10)
            == []
        )


def test_search_goes_on_within_a_block(database, watch):
    pack(database, watch, store(database, watch, [f"{number:02d}" for number in range(40)]))
    assert [block.first_row for block in load_all(database, watch, from_row=20)] == [16, 32]
    assert [block.first_row for block in load_all(database, watch, from_row=16, limit=1)] == [16]
    assert load_all(database, watch, from_row=40) == []


def test_names_are_found_by_row(database, watch):
    pack(database, watch, store(database, watch, [f"{number:02d}" for number in range(40)]))
    with database.read() as session:
        found = neighbours.load_row_names(
            session, watch_id=watch.id, embedder=EMBEDDER, dim=DIM, rows={0, 15, 16, 39, 40, 1000}
        )
    assert found == {0: "00", 15: "15", 16: "16", 39: "39"}


def test_unpacked_are_those_of_others_only(database, watch):
    other = add_watch(database, "other")
    batch = add_batch(database, watch, ["mine"])
    store(database, watch, ["mine", "foreign"])
    store(database, other, ["theirs"])
    with database.read() as session:
        rows = neighbours.load_unpacked(
            session, watch_id=watch.id, embedder=EMBEDDER, but_batch_id=batch.id, limit=10
        )
    assert [name for name, _ in rows] == ["foreign"]


def test_embedders_and_watches_keep_their_blocks_apart(database, watch):
    other = add_watch(database, "other")
    pack(database, watch, store(database, watch, ["a"]))
    pack(database, other, store(database, other, ["b", "c"]))
    assert (count(database, watch), count(database, other)) == (1, 2)
    with database.read() as session:
        assert neighbours.count_rows(session, watch_id=watch.id, embedder="test-v2") == 0
