"""Requests a second towards one server are bounded; other hosts are not its business."""

from __future__ import annotations

import threading

import pytest

from watcher.domain.errors import CancelledError
from watcher.lightly.throttle import Throttle

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


def build(clock: Ticking, rate: float, stop: threading.Event | None = None) -> Throttle:
    return Throttle(server=SERVER, requests_per_s=rate, clock=clock, stop=stop or threading.Event())


def test_requests_of_a_minute_are_no_more_than_the_rate_and_one_second_in_hand():
    clock = Ticking()
    throttle = build(clock, 10.0)
    begun, n = clock.monotonic, 0
    while clock.monotonic - begun < 60:
        throttle.wait(f"{SERVER}/v1/datasets")
        n += 1
    assert 600 <= n <= 612
    assert max(clock.waits) <= 0.1 + 1e-9


def test_requests_after_a_pause_come_at_once_for_one_second_and_no_longer():
    clock = Ticking()
    throttle = build(clock, 5.0)
    clock.monotonic += 3600
    for _ in range(5):
        throttle.wait(SERVER)
    assert clock.waits == []
    throttle.wait(SERVER)
    assert clock.waits == [pytest.approx(0.2)]


def test_rate_below_one_a_second_is_kept():
    clock = Ticking()
    throttle = build(clock, 0.5)
    for _ in range(3):
        throttle.wait(SERVER)
    assert clock.waits == [pytest.approx(2.0), pytest.approx(2.0)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x", "https://127.0.0.1:8000/x", "http://[bad/x"])
def test_requests_to_others_do_not_count(url):
    clock = Ticking()
    throttle = build(clock, 0.001)
    for _ in range(5):
        throttle.wait(url)
    assert clock.waits == []


def test_signed_urls_of_the_server_count():
    clock = Ticking()
    throttle = build(clock, 1.0)
    for _ in range(3):
        throttle.wait(f"{SERVER}/files/a.jpg?signature=1")
    assert len(clock.waits) == 2


def test_wait_ends_when_the_daemon_stops():
    clock, stop = Ticking(), threading.Event()
    throttle = build(clock, 0.001, stop)
    throttle.wait(SERVER)
    stop.set()
    with pytest.raises(CancelledError):
        throttle.wait(SERVER)
