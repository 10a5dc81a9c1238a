"""Picks in the order in which a person would want them, each with its reason."""

from __future__ import annotations

import numpy as np
import pytest

from watcher.domain.models import SamplingMethod
from watcher.jobs.ranking import rank_picks

LINE = {name: np.array([x, 0], dtype=np.float32) for name, x in [("a", 0), ("b", 1), ("c", 4), ("d", 10)]}


def rank(method, *, names="abcd", scores=None, before=None):
    ranked = rank_picks(
        method=SamplingMethod[method],
        names=list(names),
        vectors=LINE,
        scores=scores or {},
        before=before or {},
    )
    return [
        (
            name,
            reason.get("distance_to_nearest_earlier_pick"),
            reason.get("nearest_earlier_pick"),
            reason.get("score"),
        )
        for name, reason in ranked
    ]


def test_first_coreset_begins_far_from_the_mean_and_goes_on_with_the_farthest():
    assert rank("CORESET") == [
        ("d", None, None, None),
        ("a", 10.0, "d", None),
        ("c", 4.0, "a", None),
        ("b", 1.0, "a", None),
    ]


def test_coreset_after_earlier_picks_begins_with_the_farthest_from_those():
    before = {"a": (7.0, "old-1"), "b": (6.5, "old-1"), "c": (3.0, "old-2"), "d": (0.5, "old-2")}
    assert rank("CORESET", before=before) == [
        ("a", 7.0, "old-1", None),
        ("c", 3.0, "old-2", None),
        ("b", 1.0, "a", None),
        ("d", 0.5, "old-2", None),
    ]


def test_active_learning_goes_by_score_and_still_tells_distances():
    scores = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.9}
    assert rank("ACTIVE_LEARNING", scores=scores) == [
        ("b", None, None, 0.9),
        ("d", 9.0, "b", 0.9),
        ("c", 3.0, "b", 0.5),
        ("a", 1.0, "b", 0.1),
    ]


def test_coral_weighs_distance_by_score():
    scores = {"a": 1.0, "b": 0.2, "c": 1.0, "d": 0.1}
    before = dict.fromkeys("abcd", (5.0, "old"))
    assert [row[0] for row in rank("CORAL", scores=scores, before=before)] == ["a", "c", "d", "b"]


def test_first_coral_begins_with_the_highest_score_and_among_equals_far_from_the_mean():
    assert [row[0] for row in rank("CORAL", scores={"a": 0.2, "b": 1.0, "c": 0.9, "d": 0.8})] == list("bdca")
    assert rank("CORAL", scores={"a": 1.0, "b": 0.5, "c": 0.1, "d": 1.0})[0][0] == "d"


def test_coral_without_any_score_is_coreset():
    assert [row[0] for row in rank("CORAL", scores=dict.fromkeys("abcd", 0.0))] == ["d", "a", "c", "b"]


def test_random_keeps_the_order_and_tells_distances():
    assert rank("RANDOM", names="bcd") == [
        ("b", None, None, None),
        ("c", 3.0, "b", None),
        ("d", 6.0, "c", None),
    ]


def test_pick_without_a_vector_comes_last_and_nothing_gives_nothing():
    assert [row[0] for row in rank("CORESET", names="zab")][-1] == "z"
    assert rank("CORESET", names="") == []


@pytest.mark.parametrize("method", list(SamplingMethod))
def test_every_pick_is_ranked_once(method):
    rng = np.random.default_rng(0)
    names = [f"{number}" for number in range(40)]
    vectors = {name: rng.standard_normal(8).astype(np.float32) for name in names}
    ranked = rank_picks(
        method=method, names=names, vectors=vectors, scores=dict.fromkeys(names, 0.5), before={}
    )
    assert sorted(name for name, _ in ranked) == sorted(names)
    for place, (name, reason) in enumerate(ranked[1:], 1):
        gaps = {other: float(np.linalg.norm(vectors[name] - vectors[other])) for other, _ in ranked[:place]}
        assert reason["distance_to_nearest_earlier_pick"] == pytest.approx(min(gaps.values()), abs=1e-5)
        assert gaps[reason["nearest_earlier_pick"]] == pytest.approx(min(gaps.values()))
