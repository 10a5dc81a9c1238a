"""What people ask of the leader: numbered, kept until it is over, by name."""

from __future__ import annotations

from watcher.store import duty_requests
from watcher.store.duty_problems import Duty


def ask(database, watch="gate", duty=Duty.POLL, now_ms=5):
    with database.write() as session:
        return duty_requests.record_request(session, watch=watch, duty=duty, now_ms=now_ms)


def answer(database, number, watch="gate", duty=Duty.POLL):
    with database.write() as session:
        duty_requests.answer_request(session, watch=watch, duty=duty, number=number)


def load_open(database):
    with database.read() as session:
        return [(one.watch, one.duty, one.number) for one in duty_requests.load_open_requests(session)]


def test_requests_are_numbered_and_open_until_the_newest_is_answered(database):
    assert load_open(database) == []
    answer(database, 1)  # of none nothing comes
    first = ask(database)
    assert (first.number, first.answered, first.is_open) == (1, 0, True)
    second = ask(database)
    assert second.number == 2
    answer(database, 1)  # one that began before the second was asked for
    assert load_open(database) == [("gate", Duty.POLL, 2)]
    answer(database, 2)
    answer(database, 1)  # told late
    assert load_open(database) == []
    with database.read() as session:
        known = duty_requests.load_request(session, watch="gate", duty=Duty.POLL)
    assert (known.number, known.answered, known.is_open) == (2, 2, False)
    assert ask(database).number == 3


def test_open_requests_come_in_the_order_they_were_asked_in(database):
    ask(database, "roof", now_ms=9)
    ask(database, "gate", Duty.AUDIT, now_ms=7)
    ask(database, "gate", now_ms=8)
    assert [one[:2] for one in load_open(database)] == [
        ("gate", Duty.AUDIT),
        ("gate", Duty.POLL),
        ("roof", Duty.POLL),
    ]
    with database.write() as session:
        duty_requests.forget_others(session, but_watches=["roof"])
    assert load_open(database) == [("roof", Duty.POLL, 1)]
