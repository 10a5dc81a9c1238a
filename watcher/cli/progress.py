"""Progress of foreground commands on standard error; nothing at all where that is no terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from watcher.database.engine import Database
from watcher.domain.errors import StoreError
from watcher.domain.models import SampleState
from watcher.store.counts import load_counts

_EVERY_S = 0.5
_UNFINISHED = (SampleState.WAITING, SampleState.PROCESSING)


@contextmanager
def showing(
    label: str, *, console: Console, count: Callable[[], tuple[int, int]] | None = None
) -> Iterator[None]:
    """Shows that something is under way, and how far it is.

    Args:
        label: what is under way.
        console: where to; nothing is shown unless it is a terminal.
        count: (done, total) as it is asked for twice a second; absent: only the time is shown.
    """
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    counted = (BarColumn(), MofNCompleteColumn()) if count is not None else ()
    ended = threading.Event()
    with Progress(*columns, *counted, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)

        def refresh() -> None:
            while count is not None and not ended.wait(_EVERY_S):
                done, total = count()
                progress.update(task, completed=done, total=total)

        thread = threading.Thread(target=refresh, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=10.0)


def build_sample_count(database: Database) -> Callable[[], tuple[int, int]]:
    """Counts how many of the samples that are unfinished now, and of those found meanwhile, are through."""

    def read() -> tuple[int, int]:
        try:
            with database.read() as session:
                counts = load_counts(session)
        except StoreError:
            return last
        unfinished = sum(n for (_watch, state), n in counts.items() if state in _UNFINISHED)
        return unfinished, sum(counts.values())

    last = (0, 0)
    n_left, n_all = read()
    n_finished_before = n_all - n_left

    def count() -> tuple[int, int]:
        n_left, n_all = read()
        return n_all - n_left - n_finished_before, n_all - n_finished_before

    return count
