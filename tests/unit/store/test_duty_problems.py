"""Why a duty failed: the last reason, counted, kept until it is done, by name."""

from __future__ import annotations

from watcher.store import duty_problems
from watcher.store.duty_problems import Duty


def record(database, watch="gate", duty=Duty.POLL, problem="no answer", *, is_config=False, now_ms=5):
    with database.write() as session:
        duty_problems.record_problem(
            session, watch=watch, duty=duty, problem=problem, is_config=is_config, now_ms=now_ms
        )


def load(database, watch="gate", duty=Duty.POLL):
    with database.read() as session:
        return duty_problems.load_problem(session, watch=watch, duty=duty)


def test_newest_reason_stands_and_failures_are_counted_past_a_success(database):
    assert load(database) is None
    record(database, problem="first")
    with database.write() as session:
        duty_problems.clear_problem(session, watch="gate", duty=Duty.POLL)
    done = load(database)
    assert (done.number, done.problem) == (1, None)
    record(database, problem="second", is_config=True, now_ms=9)
    found = load(database)
    assert (found.number, found.problem, found.is_config, found.at_ms) == (2, "second", True, 9)


def test_present_troubles_are_told_by_watch_and_duty(database):
    record(database, "roof")
    record(database, "gate", Duty.AUDIT, "x")
    record(database, "shed")
    with database.write() as session:
        duty_problems.clear_problem(session, watch="shed", duty=Duty.POLL)
    with database.read() as session:
        found = duty_problems.load_problems(session)
    assert list(found) == [("gate", Duty.AUDIT), ("roof", Duty.POLL)]
    with database.write() as session:
        duty_problems.forget_others(session, but_watches=["gate"])
    assert load(database, "roof") is None
    assert load(database, "gate", Duty.AUDIT) is not None
