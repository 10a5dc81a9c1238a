"""What may be picked of a batch: registered samples of it, and near-duplicates only if asked for."""

from __future__ import annotations

import pytest

from tests.builders import NOW_MS, add_batch, load
from watcher.domain.models import SampleNovelty
from watcher.domain.sampling_rules import Lack
from watcher.store import candidates, lacks, novelty, samples
from watcher.store.candidates import CandidateRules


@pytest.fixture
def batch(database, watch):
    """`a` to `d` are registered, `c` is a near-duplicate, `d` was set aside, `e` is not registered."""
    made = add_batch(database, watch, ["a", "b", "c", "d", "e"])
    add_batch(database, watch, ["f"])
    with database.write() as session:
        for name in "abcdf":
            sample = load(database, watch, name)
            samples.record_registered(
                session,
                sample_id=sample.id,
                remote_id=f"r-{name}",
                size_bytes=1,
                modified_s=None,
                now_ms=NOW_MS,
            )
        samples.record_quarantined(
            session, sample_id=load(database, watch, "d").id, reason="broken", now_ms=NOW_MS
        )
        row = SampleNovelty(
            sample_id=load(database, watch, "c").id,
            distance=0.0,
            nearest="a",
            is_near_duplicate=True,
            is_repeat=False,
        )
        novelty.record_sample_novelties(session, batch_id=made.id, rows=[row])
    return made


@pytest.mark.parametrize(
    ("near_duplicates", "needs", "expected"),
    [
        (True, set(), ["a", "b", "c"]),
        (False, set(), ["a", "b"]),
        (True, {Lack.SCORE}, ["a", "c"]),
        (True, {Lack.VECTOR}, ["a", "b"]),
        (False, {Lack.SCORE, Lack.VECTOR}, ["a"]),
    ],
)
def test_candidates_are_the_registered_of_the_batch_that_lack_nothing(
    database, watch, batch, near_duplicates, needs, expected
):
    rules = CandidateRules(near_duplicates=near_duplicates, needs=frozenset(needs))
    rule = {"batch_id": batch.id, "rules": rules}
    with database.write() as session:
        for name, lack in (("b", Lack.SCORE), ("c", Lack.VECTOR), ("d", Lack.VECTOR), ("f", Lack.SCORE)):
            reasons = {load(database, watch, name).id: f"{name} has none"}
            lacks.record_lacks(session, lack=lack, reasons=reasons, now_ms=NOW_MS)
            lacks.record_lacks(session, lack=lack, reasons=dict.fromkeys(reasons, "later"), now_ms=NOW_MS)
        assert lacks.count_lacks(session, lack=Lack.VECTOR, batch_id=batch.id) == 1
        assert lacks.load_first_reason(session, lack=Lack.VECTOR, batch_id=batch.id) == ("c", "c has none")
    ids = {name: load(database, watch, name).id for name in expected}
    with database.read() as session:
        assert candidates.count_candidates(session, **rule) == len(expected)
        found = candidates.load_candidate_ids(session, watch_id=watch.id, file_names=["z", *"fedcba"], **rule)
        assert found == ids
        first = candidates.load_candidate_page(session, limit=1, **rule)
        assert first == [(ids["a"], "a")]
        rest = candidates.load_candidate_page(session, after_id=ids["a"], **rule)
        assert [name for _, name in rest] == expected[1:]


def test_candidates_among_more_names_than_a_statement_takes_are_found(database, watch, batch):
    names = [*(f"absent-{number}" for number in range(1200)), "b"]
    with database.read() as session:
        found = candidates.load_candidate_ids(
            session,
            watch_id=watch.id,
            batch_id=batch.id,
            rules=CandidateRules(near_duplicates=False),
            file_names=names,
        )
    assert found == {"b": load(database, watch, "b").id}
