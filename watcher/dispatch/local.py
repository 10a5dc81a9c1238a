"""A few threads that run what is ready. The store is the queue; a nudge only saves the wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from watcher.domain.clock import Clock
from watcher.domain.errors import WatcherError
from watcher.logs import describe_error, get_logger

_log = get_logger("dispatch")

_IDLE_WAIT_S = 1.0
_FAILURE_WAIT_S = 5.0


class Work(Protocol):
    """What runs one ready piece at a time: runs, or deliveries."""

    def run_next(self, *, beat: Callable[[], None]) -> bool:
        """Runs one; False if none was ready."""
        ...


class LocalDispatcher:
    """Starts and stops the threads; they are called `<name>-<number>`."""

    def __init__(
        self,
        runner: Work,
        *,
        n_workers: int,
        name: str = "worker",
        stop: threading.Event,
        beat: Callable[[str], None],
        clock: Clock,
        idle_wait_s: float = _IDLE_WAIT_S,
    ) -> None:
        """Keeps its parts; `idle_wait_s` is the wait of a thread that found nothing, unless it is nudged."""
        self._runner = runner
        self._n_workers = n_workers
        self._name = name
        self._stop = stop
        self._beat = beat
        self._clock = clock
        self._idle_wait_s = idle_wait_s
        self._nudged = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Starts the threads."""
        for number in range(self._n_workers):
            name = f"{self._name}-{number}"
            thread = threading.Thread(target=self._work, args=(name,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def nudge(self) -> None:
        """Something may have become ready."""
        self._nudged.set()

    def run_until_idle(self) -> int:
        """Runs in the calling thread whatever is ready, and what becomes ready by it.

        Returns:
            How many attempts were made.
        """
        n_attempts = 0
        while not self._stop.is_set() and self._runner.run_next(beat=lambda: self._beat("foreground")):
            n_attempts += 1
        return n_attempts

    def join(self, *, timeout_s: float) -> bool:
        """Waits for the threads after `stop` was set; False if one still runs at the limit."""
        self._nudged.set()
        ends_s = self._clock.monotonic_s() + timeout_s
        for thread in self._threads:
            thread.join(timeout=max(0.0, ends_s - self._clock.monotonic_s()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, name: str) -> None:
        while not self._stop.is_set():
            self._beat(name)
            wait_s = 0.0
            try:
                if not self._runner.run_next(beat=lambda: self._beat(name)):
                    self._idle(name)
            except WatcherError as error:
                _log.warning("worker.waiting", worker=name, **describe_error(error))
                wait_s = _FAILURE_WAIT_S
            except Exception:  # noqa: BLE001 - a worker that died would be missed only much later
                _log.exception("worker.crashed", worker=name)
                wait_s = _FAILURE_WAIT_S
            if wait_s:
                self._clock.wait_s(self._stop, wait_s)

    def _idle(self, name: str) -> None:
        """Ends early for a nudge, and for the end of the dispatcher."""
        for _ in range(max(1, round(self._idle_wait_s / _IDLE_WAIT_S))):
            if self._stop.is_set() or self._clock.wait_s(self._nudged, _IDLE_WAIT_S):
                break
            self._beat(name)
        self._nudged.clear()
