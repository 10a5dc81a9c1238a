"""What is in memory at once is bounded, first come first served, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.waiting import wait_for
from watcher.domain.errors import CancelledError
from watcher.jobs.room import Room


def nothing() -> None:
    pass


def test_room_is_never_overdrawn_by_many_threads_and_is_empty_in_the_end():
    room, most, lock = Room(100), [0], threading.Lock()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(50):
            with room.share(nothing) as share:
                for n in (rng.randint(1, 60), rng.randint(1, 60)):  # a second try of the same reading
                    share.set(n)
                    with lock:
                        most[0] = max(most[0], room.used)
                    time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert 60 < most[0] <= 100
    assert room.used == 0


def test_who_needs_more_than_there_is_gets_it_alone_and_is_not_passed_by():
    room, order = Room(10), []
    first_ends = threading.Event()

    def take(name: str, n: int, hold: threading.Event | None = None) -> None:
        with room.hold(n, nothing):
            order.append((name, room.used))
            if hold is not None:
                hold.wait(60)

    first = threading.Thread(target=take, args=("first", 5, first_ends))
    first.start()
    wait_for(lambda: order)
    large = threading.Thread(target=take, args=("large", 50))
    large.start()
    wait_for(lambda: len(room._queue) == 1)
    small = threading.Thread(target=take, args=("small", 1))
    small.start()
    wait_for(lambda: len(room._queue) == 2)
    assert order == [("first", 5)]
    first_ends.set()
    for thread in (first, large, small):
        thread.join(60)
    assert order[1:] == [("large", 50), ("small", 1)]


def test_wait_for_room_ends_when_the_work_must_stop():
    room, stop = Room(10), threading.Event()

    def check() -> None:
        if stop.is_set():
            raise CancelledError("asked to")

    with room.hold(10, nothing):
        stop.set()
        with pytest.raises(CancelledError), room.hold(1, check):
            raise AssertionError("there was no room")
    assert room.used == 0
    with room.hold(10, check):
        assert room.used == 10


def test_share_is_given_back_when_the_work_fails():
    room = Room(10)

    def fail() -> None:
        with room.share(nothing) as share:
            share.set(7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert room.used == 0
