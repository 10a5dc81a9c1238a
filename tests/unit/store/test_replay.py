"""One file gets another chance: what stood in its way, and nothing of any other file."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from tests.builders import NOW_MS, add_batch, list_names, load
from watcher.domain.models import RunState, SampleState
from watcher.store import control, runs, samples, tables


def replay(database, watch, name):
    with database.write() as session:
        return control.replay_file(session, watch=watch, file_name=name, actor="me", now_ms=NOW_MS + 7)


def read_log(database, watch):
    with database.read() as session:
        return [entry.facts for entry in control.load_audit_log(session, watch=watch, limit=9)]


@pytest.mark.parametrize("state", [SampleState.QUARANTINED, SampleState.GONE])
def test_file_that_was_set_aside_waits_again_and_the_others_stay(database, watch, state):
    list_names(database, watch, ["a/b.jpg", "c.jpg"])
    record = samples.record_quarantined if state is SampleState.QUARANTINED else samples.record_gone
    with database.write() as session:
        for name in ("a/b.jpg", "c.jpg"):
            record(session, sample_id=load(database, watch, name).id, reason="why", now_ms=NOW_MS)
    assert [replay(database, watch, "a/b.jpg") for _ in range(2)] == [(0, 1), (0, 0)]
    assert load(database, watch, "a/b.jpg").state is SampleState.WAITING
    assert load(database, watch, "c.jpg").state is state
    assert read_log(database, watch) == [{"file": "a/b.jpg", "runs": 0, "samples": 1}]


def test_file_whose_batch_was_given_up_revives_the_runs_of_that_batch_alone(database, watch):
    for name in ("a", "b"):
        add_batch(database, watch, [name])
    with database.write() as session:
        session.execute(update(tables.runs).values(state=RunState.DEAD, error="why"))
    assert [replay(database, watch, "a") for _ in range(2)] == [(1, 0), (0, 0)]
    with database.read() as session:
        (left,) = runs.load_dead_runs(session, limit=9)
    assert left[1].batch_id == load(database, watch, "b").batch_id
    assert read_log(database, watch) == [{"file": "a", "runs": 1, "samples": 0}]


def test_file_that_is_done_or_unknown_is_refused_with_the_way_out(database, watch):
    add_batch(database, watch, ["a"])
    with database.write() as session:
        session.execute(update(tables.samples).values(state=SampleState.DONE))
    for name, told in (("a", "went through all steps"), ("x", "has never listed 'x'")):
        with pytest.raises(control.RefusedChangeError, match=told):
            replay(database, watch, name)
    assert read_log(database, watch) == []
