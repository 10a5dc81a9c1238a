"""The same work for many things, some at a time, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_unordered(
    work: Callable[[T], R], things: Iterable[T], *, n_workers: int
) -> Iterator[tuple[T, R | Exception]]:
    """Runs `work` on each thing in `n_workers` threads; gives pairs of thing and result as they come.

    What `work` raises is a result too. At most twice as many things as workers are taken ahead. Leaving the
    iteration early drops what has not begun and waits for what has.
    """
    with ThreadPoolExecutor(max_workers=n_workers, thread_name_prefix="lightly") as pool:
        running: dict[Future[R], T] = {}
        source = iter(things)
        try:
            while True:
                while len(running) < 2 * n_workers:
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
        finally:
            for future in running:
                future.cancel()
