"""Places that many processes take from one row: in slices that fit, in turn, and forfeited with their process."""

from __future__ import annotations

import threading

import pytest

from watcher.domain.errors import CancelledError
from watcher.lightly.throttle import SHARED_BURST_S, SharedThrottle

SERVER = "http://127.0.0.1:8000"


class Ticking:
    """A clock that waits by moving on."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.waits: list[float] = []

    def now_s(self) -> float:
        return self.monotonic

    def monotonic_s(self) -> float:
        return self.monotonic

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.monotonic += seconds
        return event.is_set()


class Freezing(Ticking):
    """Its next wait of more than a second takes longer than asked."""

    late_s = 0.0

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        late_s = 0.0
        if seconds > 1:
            late_s, self.late_s = self.late_s, 0.0
        return super().wait_s(event, seconds + late_s)


class Row:
    """What the store keeps, by the clock of the test."""

    def __init__(self, clock: Ticking, rate: float) -> None:
        self.clock = clock
        self.rate = rate
        self.gap_s = 1 / rate
        self.due_s = 0.0
        self.taken: list[int] = []

    def reserve(self, n: int) -> float:
        first_s = max(self.due_s, self.clock.monotonic - max(0.0, SHARED_BURST_S - self.gap_s))
        self.due_s = first_s + n * self.gap_s
        self.taken.append(n)
        return first_s - self.clock.monotonic

    def build(self, stop: threading.Event | None = None) -> SharedThrottle:
        return SharedThrottle(
            server=SERVER,
            requests_per_s=self.rate,
            reserve=self.reserve,
            clock=self.clock,
            stop=stop or threading.Event(),
        )


def test_requests_of_two_processes_are_together_no_more_than_the_rate():
    clock = Ticking()
    row = Row(clock, 40.0)
    throttles, n = [row.build(), row.build()], 0
    begun_s = clock.monotonic
    while clock.monotonic - begun_s < 30:
        for throttle in throttles:
            throttle.wait(f"{SERVER}/v1/datasets")
            n += 1
    assert n <= 40 * 31 + 2


def test_requests_without_a_pause_use_the_rate_and_ask_the_row_a_few_times_a_second():
    clock = Ticking()
    row = Row(clock, 200.0)
    throttle, n = row.build(), 0
    begun_s = clock.monotonic
    while clock.monotonic - begun_s < 30:
        throttle.wait(SERVER)
        n += 1
    assert 200 * 29 <= n <= 200 * 31
    assert max(row.taken) == 50
    assert len(row.taken) < 30 * 5 + 10


def test_process_that_wants_half_of_the_rate_asks_the_row_a_few_times_a_second_too():
    clock = Ticking()
    row = Row(clock, 100.0)
    throttle = row.build()
    for _ in range(1500):
        throttle.wait(SERVER)
        clock.monotonic += 0.02
    assert clock.waits == []  # it is never held up
    assert len(row.taken) < 100
    assert sum(row.taken) < 1.1 * 1500


def test_slice_of_a_process_that_wants_little_stays_small():
    clock = Ticking()
    row = Row(clock, 100.0)
    busy, calm = row.build(), row.build()
    for _ in range(200):
        busy.wait(SERVER)
    row.taken.clear()
    for _ in range(20):
        calm.wait(SERVER)
        clock.monotonic += 1.0
    assert row.taken == [1] * 20


def test_slice_that_was_too_large_shrinks_to_what_was_used():
    clock = Ticking()
    row = Row(clock, 100.0)
    throttle = row.build()
    for _ in range(500):
        throttle.wait(SERVER)
    assert row.taken[-1] == 25
    for _ in range(10):
        clock.monotonic += 5.0
        throttle.wait(SERVER)
    assert row.taken[-5:] == [1] * 5


def test_places_of_a_process_that_died_are_forfeited_and_the_others_go_on():
    clock = Ticking()
    row = Row(clock, 10.0)
    dead, alive = row.build(), row.build()
    for _ in range(40):
        dead.wait(SERVER)
    begun_s = clock.monotonic
    alive.wait(SERVER)
    assert clock.monotonic - begun_s <= 0.25 + row.gap_s


def test_place_of_a_process_that_slept_too_long_is_not_used_but_another_taken():
    clock = Freezing()
    row = Row(clock, 4.0)
    throttle = row.build()
    throttle.wait(SERVER)
    row.reserve(8)  # others are before it, so that it waits for its place
    row.taken.clear()
    clock.late_s = 3.0
    throttle.wait(SERVER)
    assert row.taken == [1, 1]


def test_rate_below_one_a_second_is_kept():
    clock = Ticking()
    throttle = Row(clock, 0.5).build()
    begun_s = clock.monotonic
    for _ in range(4):
        throttle.wait(SERVER)
    assert clock.monotonic - begun_s == pytest.approx(6.0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x", "https://127.0.0.1:8000/x", "http://[bad/x"])
def test_requests_to_others_take_no_place(url):
    row = Row(Ticking(), 1.0)
    throttle = row.build()
    for _ in range(5):
        throttle.wait(url)
    assert row.taken == []


def test_signed_urls_of_the_server_take_places():
    row = Row(Ticking(), 1.0)
    throttle = row.build()
    for _ in range(3):
        throttle.wait(f"{SERVER}/files/a.jpg?signature=1")
    assert sum(row.taken) == 3


def test_wait_ends_when_the_process_stops():
    clock, stop = Ticking(), threading.Event()
    row = Row(clock, 0.001)
    throttle = row.build(stop)
    throttle.wait(SERVER)
    stop.set()
    with pytest.raises(CancelledError):
        throttle.wait(SERVER)
