"""Exact neighbours over blocks are those of the whole matrix, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from watcher.neighbours import NearestSoFar


def make(n: int, d: int, *, seed: int, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, d)) + offset).astype(np.float32)


def search_by_hand(queries: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gaps = np.linalg.norm(queries.astype(np.float64)[:, None] - known.astype(np.float64)[None], axis=2)
    return gaps.argmin(axis=1), gaps.min(axis=1)


@pytest.mark.parametrize("size", [1, 7, 128, 1000])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_blocks_of_any_size_give_the_nearest_of_all(size, offset):
    queries, known = make(150, 12, seed=1, offset=offset), make(1000, 12, seed=2, offset=offset)
    search = NearestSoFar(queries)
    for start in range(0, len(known), size):
        search.see_block(start, known[start : start + size])
    _, distances = search_by_hand(queries, known)
    assert search.compute_distances() == pytest.approx(distances, abs=1e-3 if offset else 1e-9)
    by_rows = np.linalg.norm(queries.astype(np.float64) - known[search.rows].astype(np.float64), axis=1)
    assert search.compute_distances() == pytest.approx(by_rows)


def test_equal_vectors_are_exactly_nought_apart():
    known = make(500, 128, seed=3)
    search = NearestSoFar(known[100:300].copy())
    search.see_block(40, known)
    assert search.compute_distances().tolist() == [0.0] * 200
    assert search.rows.tolist() == list(range(140, 340))


def test_each_query_sees_only_those_before_it():
    queries = make(300, 8, seed=4)
    queries[200] = queries[20]
    search = NearestSoFar(queries)
    search.see_each_other(1000)
    assert search.rows[0] == -1
    assert search.compute_distances()[0] == np.inf
    assert search.rows[20] < 1020
    assert search.rows[200] == 1020
    for number in (1, 127, 128, 129, 299):
        rows, distances = search_by_hand(queries[number : number + 1], queries[:number])
        assert search.rows[number] == 1000 + rows[0]
        assert search.compute_distances()[number] == pytest.approx(distances[0])


def test_pairs_that_do_not_count_are_passed_over():
    known = make(50, 8, seed=5)
    search = NearestSoFar(known[10:12].copy())
    search.see_block(0, known, but=[(0, 10)])
    assert search.rows[0] != 10
    assert search.rows[1] == 11
    rows, _ = search_by_hand(known[10:11], np.delete(known, 10, axis=0))
    assert search.rows[0] == rows[0] + (rows[0] >= 10)


def test_nothing_known_is_infinitely_far():
    search = NearestSoFar(make(2, 4, seed=6))
    search.see_block(0, np.empty((0, 4), dtype=np.float32))
    assert search.rows.tolist() == [-1, -1]
    assert np.isinf(search.compute_distances()).all()
    nobody = NearestSoFar(np.empty((0, 4), dtype=np.float32))
    nobody.see_block(0, make(3, 4, seed=7))
    nobody.see_each_other(3)
    assert nobody.compute_distances().shape == (0,)
