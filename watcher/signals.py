"""Being asked to end by the operating system: the first signal drains, the second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from watcher.memory import limit_arenas

_ASKS = (signal.SIGINT, signal.SIGTERM)


def watch_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process at once.

    Called first, in the main thread, by what goes on until then. A thread of its own sets the event: a handler
    runs in the midst of whatever the main thread does, and would wait for ever for the event's lock if the main
    thread, or an earlier handler, held it just then.
    """
    limit_arenas()
    asked = threading.Event()
    numbers, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_obey, args=(numbers, asked), name="signals", daemon=True).start()
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in _ASKS:
        signal.signal(number, _leave_it_to_the_thread)
    return asked


def wait_for_signal(asked: threading.Event, *, unless: Callable[[], bool] = lambda: False) -> None:
    """Returns once the first signal came, or once `unless` holds, which is asked each second."""
    while not asked.wait(1.0) and not unless():
        pass


def _leave_it_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    """The interpreter writes the numbers of signals that have a handler to the pipe."""


def _obey(numbers: int, asked: threading.Event) -> None:
    while told := os.read(numbers, 64):
        for number in told:
            if asked.is_set() and number in _ASKS:
                os._exit(128 + number)
            if number in _ASKS:
                asked.set()
