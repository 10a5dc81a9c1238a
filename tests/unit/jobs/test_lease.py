"""The lease of an attempt: extended while it moves, lost when it is another's or may have run out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.builders import ManualClock
from watcher.domain.errors import StoreUnavailableError
from watcher.jobs.lease import Lease

LEASE_S = 4.0


class Side:
    """A lease over a clock in the test's hand, and what the store is told."""

    def __init__(self, answer: Callable[[], bool] = lambda: True, *, time_limit_s: float = 1000.0) -> None:
        self.clock = ManualClock()
        self.stop = threading.Event()
        self.told: list[int] = []
        self._answer = answer
        self.lease = Lease(
            what="run-1",
            clock=self.clock,
            lease_s=LEASE_S,
            time_limit_s=time_limit_s,
            extend=self._extend,
            stop=self.stop,
            claimed_s=self.clock.monotonic_s(),
        )

    def _extend(self, until_ms: int) -> bool:
        self.told.append(until_ms)
        return self._answer()

    def advance_until_told(self) -> None:
        n = len(self.told)
        for _ in range(1000):
            if len(self.told) > n:
                return
            time.sleep(0.01)
        raise AssertionError("the store was not told")


def _refuse() -> bool:
    raise StoreUnavailableError("on purpose")


def test_lease_is_extended_once_a_third_of_it_is_over_by_the_time_of_the_asking() -> None:
    side = Side()
    with side.lease:
        side.clock.advance(LEASE_S / 3 + 0.1)
        side.advance_until_told()
        assert side.told == [int((side.clock.now_s() + LEASE_S) * 1000)]
        side.clock.advance(LEASE_S / 3 + 0.1)
        side.advance_until_told()
        assert not side.lease.has_run_out()
        assert not side.lease.lost.is_set()


def test_lease_that_is_anothers_is_lost_and_asked_for_no_more() -> None:
    side = Side(lambda: False)
    with side.lease:
        side.clock.advance(LEASE_S / 2)
        assert side.lease.lost.wait(10)
        side.clock.advance(LEASE_S)
    assert len(side.told) == 1


def test_lease_that_the_store_could_not_be_told_of_in_time_is_lost() -> None:
    side = Side(_refuse)
    with side.lease:
        side.clock.advance(LEASE_S / 2)
        side.advance_until_told()
        assert not side.lease.lost.is_set()
        side.clock.advance(LEASE_S)
        assert side.lease.has_run_out()
        assert side.lease.lost.wait(10)


def test_lease_of_an_attempt_beyond_its_time_is_not_extended() -> None:
    side = Side(time_limit_s=1.0)
    with side.lease:
        side.clock.advance(LEASE_S / 2)
        side.clock.advance(LEASE_S)
        assert side.lease.lost.wait(10)
    assert side.told == []


def test_lease_is_lost_at_a_shutdown() -> None:
    side = Side()
    with side.lease:
        side.stop.set()
        assert side.lease.lost.wait(10)
    assert side.told == []
