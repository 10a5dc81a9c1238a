"""Novelty in the store: kept once, summed up against the batches before, counted for the metrics."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from tests.builders import NOW_MS, add_batch, add_watch, load
from watcher.domain.models import SampleNovelty
from watcher.store import novelty
from watcher.store.counts import fold_counts
from watcher.store.tables import dark_samples


def measure(database, watch, batch, distances, *, near_at=0.2, repeat_at=0.01, n_history=20):
    rows = [
        SampleNovelty(
            sample_id=load(database, watch, name).id,
            distance=distance,
            nearest=None if distance is None else "x",
            is_near_duplicate=distance is not None and distance <= near_at,
            is_repeat=distance is not None and distance <= repeat_at,
        )
        for name, distance in distances.items()
    ]
    with database.write() as session:
        novelty.record_sample_novelties(session, batch_id=batch.id, rows=rows)
    with database.write() as session:
        return novelty.record_batch_novelty(
            session,
            batch_id=batch.id,
            watch_id=watch.id,
            embedder="test-v1",
            n_history=n_history,
            floor=repeat_at,
            now_ms=NOW_MS,
        )


def run_batches(database, watch, *batches, **changes):
    measured = []
    for number, distances in enumerate(batches):
        names = [f"{number}-{place}" for place in range(len(distances))]
        batch = add_batch(database, watch, names)
        measured.append(measure(database, watch, batch, dict(zip(names, distances, strict=True)), **changes))
    return measured


def test_first_batch_has_no_novelty_and_the_next_are_relative_to_the_median_before(database, watch):
    first, second, third, fourth = run_batches(
        database, watch, [None, 0.3, 0.5], [0.2, 0.2], [0.9], [0.2, 0.1, 0.3]
    )
    assert (first.mean_distance, first.ratio) == (pytest.approx(0.4), None)
    assert second.ratio == pytest.approx(0.5)
    assert third.ratio == pytest.approx(0.9 / 0.3)
    assert fourth.ratio == pytest.approx(0.2 / 0.4)
    assert (fourth.n_samples, fourth.n_near_duplicates, fourth.n_repeats) == (3, 2, 0)


def test_history_is_of_the_newest_batches_only(database, watch):
    *_, last = run_batches(database, watch, [9.0], [9.0], [1.0], [1.0], [2.0], n_history=2)
    assert last.ratio == pytest.approx(2.0)


def test_camera_that_was_stuck_for_long_still_counts_nought(database, watch):
    *_, stuck, alive = run_batches(database, watch, [0.4], [0.0], [0.0], [0.0], [0.0], [0.4])
    assert stuck.ratio == 0.0
    assert alive.ratio == pytest.approx(0.4 / 0.01)


def test_batch_without_any_distance_has_no_mean(database, watch):
    (only,) = run_batches(database, watch, [None])
    assert (only.mean_distance, only.ratio, only.n_samples) == (None, None, 1)


def test_repeated_measurement_changes_nothing(database, watch):
    batch = add_batch(database, watch, ["a", "b"])
    first = measure(database, watch, batch, {"a": 0.1, "b": 0.3})
    assert measure(database, watch, batch, {"a": 0.7, "b": 0.7}) == first
    with database.read() as session:
        found = novelty.load_batch_sample_novelties(session, batch_id=batch.id)
    assert {name: row.distance for name, row in found.items()} == {"a": 0.1, "b": 0.3}


def test_counts_are_sums_over_all_batches_by_watch(database, watch):
    other = add_watch(database, "other")
    run_batches(database, watch, [None, 0.1, 0.005], [0.15, 0.3])
    run_batches(database, other, [0.5])
    with database.read() as session:
        assert novelty.count_measurements(session) == {"gate": (5, 3, 1, 0), "other": (1, 0, 0, 0)}
        assert novelty.load_last_ratios(session) == {"gate": pytest.approx(0.225 / 0.0525)}


def darken(database, watch, name):
    with database.write() as session:
        novelty.record_dark_sample(
            session,
            sample_id=load(database, watch, name).id,
            watch_id=watch.id,
            brightness=0.01,
            contrast=0.002,
            now_ms=NOW_MS,
        )


def test_dark_samples_are_counted_once(database, watch):
    other = add_watch(database, "other")
    add_batch(database, watch, ["a", "b", "c"])
    add_batch(database, other, ["a"])
    for of, name in ((watch, "a"), (watch, "a"), (watch, "c"), (other, "a")):
        darken(database, of, name)
    for _ in range(2):
        with database.read() as session:
            assert novelty.count_dark_samples(session) == {"gate": 2, "other": 1}
        with database.write() as session:
            fold_counts(session)
    with database.write() as session:
        session.execute(delete(dark_samples).where(dark_samples.c.watch_id == other.id))
        session.execute(delete(dark_samples).where(dark_samples.c.sample_id == 3))
        assert {k: n for k, n in novelty.count_dark_samples(session).items() if n} == {"gate": 1}
    with database.read() as session:
        assert novelty.load_dark_sample(session, sample_id=load(database, watch, "a").id) == (
            0.01,
            0.002,
            NOW_MS,
        )
        assert novelty.load_dark_sample(session, sample_id=load(database, watch, "b").id) is None
