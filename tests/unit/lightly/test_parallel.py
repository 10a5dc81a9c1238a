from __future__ import annotations

import threading

import pytest

from tests.builders import list_threads
from watcher.lightly.parallel import map_unordered, open_pool


def test_map_unordered_takes_no_more_ahead_than_it_may():
    taken = [0]
    gate = threading.Semaphore(0)

    def things():
        for number in range(1000):
            taken[0] += 1
            yield number

    with map_unordered(lambda n: (gate.acquire(), n)[1], things(), n_workers=3) as results:
        gate.release(1)
        next(results)
        assert taken[0] <= 6
        gate.release(1000)
    assert taken[0] <= 12


def test_map_unordered_gives_errors_as_results():
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with map_unordered(work, range(5), n_workers=2) as results:
        found = dict(results)
    assert isinstance(found[2], ValueError)
    assert {k: v for k, v in found.items() if k != 2} == {0: 0, 1: 1, 3: 3, 4: 4}


def test_map_unordered_left_by_an_error_that_is_kept_leaves_no_thread():
    gate = threading.Event()

    def work(number: int) -> int:
        if number:
            gate.wait(0.2)
        return number

    def consume() -> None:
        with map_unordered(work, range(100), n_workers=2) as results:
            for _ in results:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as kept:
        consume()
    # The traceback, and with it the iterator, is still there: nothing was left to the garbage collector.
    assert kept.value.__traceback__ is not None
    assert list_threads("lightly_") == []


def test_open_pool_that_is_left_early_drops_what_has_not_begun():
    begun = []
    gate = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        gate.wait(10)

    def consume() -> None:
        with open_pool(1, name="early") as pool:
            for number in range(100):
                pool.submit(work, number)
            threading.Timer(0.05, gate.set).start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert len(begun) == 1
    assert list_threads("early_") == []
