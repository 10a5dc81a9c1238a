"""A store that hangs holds up no scrape and no health check, and not more than one thread."""

from __future__ import annotations

import threading

import pytest

from watcher.domain.errors import StoreUnavailableError
from watcher.ops.bounded import Bounded


class Gate:
    """A call that hangs until it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.n_calls = 0

    def __call__(self) -> int:
        self.n_calls += 1
        assert self.open.wait(60)
        return self.n_calls


def test_call_that_ends_gives_its_value_each_time_anew():
    gate = Gate()
    gate.open.set()
    bounded = Bounded(gate, limit_s=60, what="it")
    assert [bounded(), bounded()] == [1, 2]


def test_call_that_hangs_is_left_at_the_limit_and_not_begun_again():
    gate = Gate()
    bounded = Bounded(gate, limit_s=0.05, what="the store")
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match=r"the store did not answer within 0.05 s"):
            bounded()
    assert gate.n_calls == 1
    gate.open.set()
    bounded = Bounded(gate, limit_s=60, what="the store")
    assert bounded() == 2


def test_error_of_the_call_reaches_whoever_asks_and_the_next_call_is_a_new_one():
    answers = iter([ZeroDivisionError("once"), None])

    def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "well"

    bounded = Bounded(call, limit_s=60, what="it")
    with pytest.raises(ZeroDivisionError, match="once"):
        bounded()
    assert bounded() == "well"
