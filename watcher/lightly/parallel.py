"""Work in threads, some at a time, in memory that does not grow with the number of things.

No generator here holds a pool. One that fails or is left early would keep it until the garbage collector closes it, in
whatever thread that runs: in one that the pool's own threads wait for, all of them wait for ever. So pools are held by
context managers, which end in the thread that began them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def open_pool(n_workers: int, *, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads, named `<name>_<number>`, are gone at the end; what has not begun by then is dropped."""
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def map_unordered(
    work: Callable[[T], R], things: Iterable[T], *, n_workers: int
) -> Iterator[Iterator[tuple[T, R | Exception]]]:
    """Runs `work` on each thing in `n_workers` threads; gives an iterator of thing and result, as they come.

    What `work` raises is a result too. At most twice as many things as workers are taken ahead. Leaving early drops
    what has not begun and waits for what has.
    """
    with open_pool(n_workers, name="lightly") as pool:
        yield _iter_results(pool, work, iter(things), n_ahead=2 * n_workers)


def _iter_results(
    pool: ThreadPoolExecutor, work: Callable[[T], R], source: Iterator[T], *, n_ahead: int
) -> Iterator[tuple[T, R | Exception]]:
    running: dict[Future[R], T] = {}
    while True:
        while len(running) < n_ahead:
            try:
                thing = next(source)
            except StopIteration:
                break
            running[pool.submit(work, thing)] = thing
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            thing = running.pop(future)
            error = future.exception()
            if error is None:
                yield thing, future.result()
            elif isinstance(error, Exception):
                yield thing, error
            else:
                raise error
