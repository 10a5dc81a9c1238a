"""Which samples are picked, and what is said about them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.domain.errors import CancelledError
from watcher.platform.samplers import METHODS, compute_target, pick


def build_vectors(n: int, d: int = 8, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def run(method: str = "CORESET", **changes):
    arguments = {
        "method": method,
        "vectors": build_vectors(200),
        "candidates": np.arange(200),
        "preselected": np.empty(0, dtype=np.int64),
        "n_samples": 20,
        "min_distance": None,
        "scores": None,
        "seed": 1,
    }
    arguments.update(changes)
    if method in {"CORAL", "ACTIVE_LEARNING"} and arguments["scores"] is None:
        arguments["scores"] = np.random.default_rng(5).random(len(arguments["candidates"]))
    return pick(**arguments)


def compute_distances_by_hand(vectors, preselected, picked):
    wide = vectors.astype(np.float64)
    earlier = list(preselected)
    distances = []
    for position in picked:
        gaps = [np.linalg.norm(wide[position] - wide[other]) for other in earlier]
        distances.append(min(gaps, default=math.inf))
        earlier.append(position)
    return distances


def compute_textbook_picks(vectors, n, weights=None):
    wide = vectors.astype(np.float64)
    weights = np.ones(len(wide)) if weights is None else weights
    start = np.linalg.norm(wide - wide.mean(axis=0), axis=1)
    start[weights < weights.max()] = -1
    picked = [int(start.argmax())]
    nearest = np.linalg.norm(wide - wide[picked[0]], axis=1)
    while len(picked) < n:
        keys = nearest * weights
        keys[picked] = -1
        picked.append(int(keys.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(wide - wide[picked[-1]], axis=1))
    return picked


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_coreset_picks_what_the_textbook_loop_picks(shift):
    vectors = build_vectors(9_000, 16) + np.float32(shift)
    picks = run(vectors=vectors, candidates=np.arange(9_000), n_samples=300)
    assert picks.positions.tolist() == compute_textbook_picks(vectors, 300)


def test_coreset_on_clusters_larger_than_the_pool_picks_what_the_textbook_loop_picks():
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(3, 12)) * 50
    vectors = (centres[rng.integers(0, 3, 16_000)] + rng.normal(size=(16_000, 12))).astype(np.float32)
    picks = run(vectors=vectors, candidates=np.arange(16_000), n_samples=40)
    assert picks.positions.tolist() == compute_textbook_picks(vectors, 40)


def test_coral_picks_the_greatest_product_of_score_and_distance():
    vectors = build_vectors(6_000, 16)
    scores = np.random.default_rng(3).random(6_000)
    picks = run("CORAL", vectors=vectors, candidates=np.arange(6_000), n_samples=150, scores=scores)
    weights = np.maximum(scores / scores.max(), 1e-3)
    assert picks.positions.tolist() == compute_textbook_picks(vectors, 150, weights)


def test_coral_with_equal_scores_is_coreset():
    assert run("CORAL", scores=np.full(200, 0.3)).positions.tolist() == run("CORESET").positions.tolist()


def test_coral_with_scores_of_zero_only_is_coreset():
    assert run("CORAL", scores=np.zeros(200)).positions.tolist() == run("CORESET").positions.tolist()


def test_active_learning_picks_the_highest_scores_first():
    scores = np.random.default_rng(4).random(200)
    picks = run("ACTIVE_LEARNING", scores=scores)
    assert picks.positions.tolist() == np.argsort(-scores)[:20].tolist()


def test_scores_belong_to_candidates_in_their_order_when_these_are_not_sorted():
    picks = run(
        "ACTIVE_LEARNING", candidates=np.array([50, 3, 90]), scores=np.array([0.1, 0.9, 0.5]), n_samples=2
    )
    assert picks.positions.tolist() == [3, 90]
    picks = run("CORAL", candidates=np.array([50, 3, 90]), scores=np.array([0.0, 1.0, 0.0]), n_samples=1)
    assert picks.positions.tolist() == [3]


def test_random_follows_the_seed():
    first, again, other = run("RANDOM"), run("RANDOM"), run("RANDOM", seed=2)
    assert first.positions.tolist() == again.positions.tolist() != other.positions.tolist()


def test_random_is_even_over_the_candidates():
    counts = np.zeros(20, dtype=int)
    for seed in range(600):
        counts[run("RANDOM", candidates=np.arange(20), n_samples=5, seed=seed).positions] += 1
    assert counts.min() > 110
    assert counts.max() < 195


@settings(max_examples=120)
@given(data=st.data())
def test_any_sampling_keeps_what_it_promises(data):
    n = data.draw(st.integers(1, 60))
    # Small whole numbers: many equal rows and many ties, exact in float32.
    flat = data.draw(st.lists(st.integers(-3, 3), min_size=2 * n, max_size=2 * n))
    vectors = np.array(flat, dtype=np.float32).reshape(n, 2)
    positions = data.draw(st.permutations(range(n)))
    candidates = np.array(positions[: data.draw(st.integers(1, n))], dtype=np.int64)
    preselected = np.array(
        data.draw(st.lists(st.integers(0, n - 1), max_size=8, unique=True)), dtype=np.int64
    )
    method = data.draw(st.sampled_from(METHODS))
    count = data.draw(st.none() | st.integers(1, 70))
    gap = data.draw(st.sampled_from([None, 1.0, 2.0, 2.5]) if count else st.sampled_from([1.0, 2.0]))
    scores = np.array(
        data.draw(st.lists(st.floats(0, 1, width=16), min_size=len(candidates), max_size=len(candidates)))
    )
    picks = run(
        method,
        vectors=vectors,
        candidates=candidates,
        preselected=preselected,
        n_samples=count,
        min_distance=gap,
        scores=scores,
    )

    taken = picks.positions.tolist()
    free = set(candidates.tolist()) - set(preselected.tolist())
    assert len(set(taken)) == len(taken)
    assert set(taken) <= free
    by_hand = compute_distances_by_hand(vectors, preselected, taken)
    assert picks.distances.tolist() == pytest.approx(by_hand, abs=1e-6)
    for position, near, distance in zip(taken, picks.nearest.tolist(), by_hand, strict=True):
        if math.isinf(distance):
            assert near == -1
        else:
            assert np.linalg.norm(vectors[position] - vectors[near]) == pytest.approx(distance, abs=1e-6)
    wanted = len(free) if count is None else max(0, min(count - len(preselected), len(free)))
    assert len(taken) <= wanted
    if gap is None:
        assert len(taken) == wanted
    else:
        assert all(distance >= gap for distance in by_hand)
        if len(taken) < wanted:
            everything = [*preselected.tolist(), *taken]
            for left in free - set(taken):
                assert min(np.linalg.norm(vectors[left] - vectors[p]) for p in everything) < gap
    if method == "CORESET":
        earlier = list(preselected)
        for position, distance in zip(taken, by_hand, strict=True):
            if earlier:
                best = max(
                    min(np.linalg.norm(vectors[other] - vectors[p]) for p in earlier)
                    for other in free - set(earlier)
                )
                assert distance == pytest.approx(best, abs=1e-5)
            earlier.append(position)


@pytest.mark.parametrize("method", METHODS)
def test_count_includes_the_preselected(method):
    picks = run(method, preselected=np.arange(15), n_samples=20)
    assert len(picks.positions) == 5
    assert picks.positions.min() >= 15


@pytest.mark.parametrize("method", METHODS)
def test_count_below_the_preselected_picks_nothing(method):
    assert run(method, preselected=np.arange(30), n_samples=20).positions.tolist() == []


def test_share_counts_candidates_and_preselected():
    picks = run(candidates=np.arange(80), preselected=np.arange(180, 200), n_samples=0.5)
    assert len(picks.positions) == 30


@pytest.mark.parametrize(
    ("n_samples", "target"), [(1, 1), (7.0, 7), (0.5, 50), (0.001, 1), (0.126, 13), (-1, None), (None, None)]
)
def test_target_of_the_wire_value(n_samples, target):
    assert compute_target(n_samples, n_total=100) == target


@pytest.mark.parametrize("n_samples", [0, -2, -0.5, 1.5, math.nan, math.inf])
def test_impossible_count_is_refused(n_samples):
    with pytest.raises(ValueError, match="nSamples"):
        compute_target(n_samples, n_total=100)


def test_equal_vectors_are_zero_apart_and_never_both_picked_with_a_minimum_distance():
    vectors = np.repeat(build_vectors(50, 64), 4, axis=0)
    picks = run(vectors=vectors, n_samples=120)
    assert (picks.distances[:50] > 0).all()
    assert (picks.distances[50:] == 0).all()
    assert len(run(vectors=vectors, n_samples=None, min_distance=1e-6).positions) == 50


def test_near_equal_vectors_beside_a_far_outlier_are_told_apart():
    vectors = build_vectors(300, 8)
    vectors[7] = 5e3
    picks = run(vectors=vectors, candidates=np.arange(300), n_samples=40)
    assert picks.positions.tolist() == compute_textbook_picks(vectors, 40)


@pytest.mark.parametrize("step", [1, 7])
def test_memory_mapped_subset_picks_the_same_as_its_copy(tmp_path, step):
    vectors = build_vectors(20_000, 8)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    candidates = np.arange(100, 19_000, step)
    preselected = candidates[::2][:50]
    picks = run(vectors=mapped, candidates=candidates, preselected=preselected, n_samples=150)
    copy = run(
        vectors=vectors[candidates],
        candidates=np.arange(len(candidates)),
        preselected=np.searchsorted(candidates, preselected),
        n_samples=150,
    )
    assert picks.positions.tolist() == candidates[copy.positions].tolist()


def test_rows_that_are_no_candidates_may_hold_nan():
    vectors = build_vectors(200)
    vectors[::3] = np.nan
    candidates = np.flatnonzero(np.isfinite(vectors[:, 0]))
    picks = run(vectors=vectors, candidates=candidates, n_samples=30)
    assert set(picks.positions.tolist()) <= set(candidates.tolist())
    assert np.isfinite(picks.distances[1:]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_unusable_vector_is_refused_by_position(value):
    vectors = build_vectors(200)
    vectors[123, 4] = value
    with pytest.raises(ValueError, match="position 123"):
        run(vectors=vectors)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "KMEANS"}, "unknown sampling method"),
        ({"n_samples": None}, "never stop"),
        ({"n_samples": -1, "min_distance": -1}, "never stop"),
        ({"min_distance": -0.5}, "minDistance"),
        ({"candidates": np.array([0, 200])}, "outside"),
        ({"preselected": np.array([-1])}, "outside"),
        ({"candidates": np.array([3, 3])}, "twice"),
        ({"vectors": np.zeros((200, 4))}, "float32"),
        ({"method": "CORAL", "scores": np.full(200, -1.0)}, "below 0"),
        ({"method": "CORAL", "scores": np.full(199, 1.0)}, "199 scores"),
        ({"method": "ACTIVE_LEARNING", "scores": np.full(200, np.nan)}, "NaN"),
    ],
)
def test_impossible_input_is_refused_in_words(changes, text):
    with pytest.raises(ValueError, match=text):
        run(**changes)


@pytest.mark.parametrize("method", ["CORAL", "ACTIVE_LEARNING"])
def test_missing_scores_are_refused(method):
    with pytest.raises(ValueError, match="needs scores"):
        pick(
            method=method,
            vectors=build_vectors(3),
            candidates=np.arange(3),
            preselected=np.arange(0),
            n_samples=1,
            min_distance=None,
        )


def test_no_candidates_pick_nothing():
    assert run(candidates=np.empty(0, dtype=np.int64)).positions.tolist() == []


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_sampling_raises(method):
    with pytest.raises(CancelledError):
        run(method, cancelled=lambda: True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gap", [None, 0.01])
def test_progress_ends_at_what_was_wanted(method, gap):
    told: list[tuple[int, int]] = []
    run(method, min_distance=gap, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (20, 20)
    assert told == sorted(told)


def test_equal_vectors_of_high_score_do_not_use_up_the_budget():
    vectors = np.repeat(build_vectors(60, 64) / np.float32(8), 4, axis=0)
    scores = np.repeat(np.linspace(0.1, 1, 60), 4)
    picks = run(
        "CORAL", vectors=vectors, candidates=np.arange(240), n_samples=60, min_distance=1e-6, scores=scores
    )
    assert len(picks.positions) == 60
    assert len(set((picks.positions // 4).tolist())) == 60


def test_neighbours_a_hair_nearer_than_the_minimum_distance_are_not_both_picked():
    centres = np.arange(40, dtype=np.float32) * 20
    vectors = np.zeros((80, 2), dtype=np.float32)
    vectors[:40, 0] = centres
    vectors[40:, 0] = centres
    vectors[40:, 1] = 0.9999
    picks = run(vectors=vectors, candidates=np.arange(80), n_samples=None, min_distance=1.0)
    assert len(picks.positions) == 40
    vectors[40:, 1] = 1.0
    picks = run(vectors=vectors, candidates=np.arange(80), n_samples=None, min_distance=1.0)
    assert len(picks.positions) == 80


@pytest.mark.parametrize("method", ["CORESET", "CORAL"])
def test_row_beside_the_mean_exactly_at_the_minimum_distance_is_picked(method):
    rng = np.random.default_rng(8)
    for _ in range(300):
        vectors = rng.integers(-3, 4, (40, 2)).astype(np.float32)
        picks = run(method, vectors=vectors, candidates=np.arange(40), n_samples=None, min_distance=1.0)
        assert len(picks.positions) == len(np.unique(vectors, axis=0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("distance", [1e19, 1e38, 1e300, 1.7e308])
def test_minimum_distance_beyond_all_others_leaves_the_first_pick_alone(method, distance):
    assert len(run(method, min_distance=distance).positions) == 1
    assert len(run(method, min_distance=distance, preselected=np.array([7])).positions) == 0


@pytest.mark.parametrize("method", ["CORESET", "CORAL"])
@pytest.mark.parametrize("value", [3e38, -2e19, np.nan])
def test_unusable_vector_of_a_preselected_sample_is_refused_by_position(method, value):
    vectors = build_vectors(200)
    vectors[150, 2] = value
    with pytest.raises(ValueError, match="position 150 holds"):
        run(method, vectors=vectors, candidates=np.arange(100), preselected=np.array([120, 150]))


@pytest.mark.parametrize("method", ["RANDOM", "ACTIVE_LEARNING"])
def test_distance_beyond_float32_counts_as_infinite(method):
    vectors = build_vectors(2)
    vectors[0], vectors[1] = 3e38, -3e38
    found = run(method, vectors=vectors, candidates=np.arange(2), n_samples=2)
    assert found.distances.tolist() == [math.inf, math.inf]
    assert sorted(found.nearest.tolist()) in ([-1, 0], [-1, 1])
