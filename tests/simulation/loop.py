"""Simulated time, and the tasks that share it: one runs at a time, and changes only where it waits.

A task stands for a thread of a process. It gives way at every exchange, every crash point and every wait; which of
the ready tasks goes on is drawn, so the same seed interleaves them in the same way.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import greenlet

MOST_SWITCHES = 400_000


class Crash(BaseException):
    """Raised where a process dies; nothing of it goes on, and nothing it does from then on has an effect."""


class Process:
    """What dies together: its tasks, its memory, its lock; until `frozen_until` none of its tasks goes on."""

    def __init__(self, name: str, *, clock_offset_s: float = 0.0) -> None:
        self.name = name
        self.clock_offset_s = clock_offset_s
        self.dead = False
        self.frozen_until = 0.0
        self.n_open_transactions: dict[Any, int] = {}


class Task:
    """A greenlet with the time at which it goes on."""

    def __init__(self, loop: Loop, process: Process, name: str, target: Callable[[], object]) -> None:
        self.process = process
        self.name = name
        self.wake_at = loop.now
        self.event: threading.Event | None = None
        self.greenlet = greenlet.greenlet(target, parent=loop.hub)

    def find_wake_at(self) -> float:
        """When it goes on at the earliest."""
        is_called = self.event is not None and self.event.is_set()
        return max(0.0 if is_called else self.wake_at, self.process.frozen_until)


class Loop:
    """The hub: made in the greenlet that calls `run`."""

    def __init__(self, rng: random.Random) -> None:
        self.now = 0.0
        self.hub = greenlet.getcurrent()
        self._rng = rng
        self._tasks: list[Task] = []
        self._n_switches = 0

    def spawn(self, process: Process, name: str, target: Callable[[], object]) -> Task:
        task = Task(self, process, name, target)
        self._tasks.append(task)
        return task

    @property
    def current(self) -> Task | None:
        """The task that runs now; None in the hub."""
        here = greenlet.getcurrent()
        return next((task for task in self._tasks if task.greenlet is here), None)

    def sleep(self, seconds: float, event: threading.Event | None = None) -> bool:
        """Lets time pass for the calling task; tells whether `event` was set meanwhile."""
        task = self.current
        if task is None:
            if greenlet.getcurrent() is not self.hub:
                raise Crash  # on its way out
            self.now += max(0.0, seconds)
            return event is not None and event.is_set()
        if task.process.dead:
            raise Crash
        if event is not None and event.is_set():
            return True
        task.wake_at, task.event = self.now + max(0.0, seconds), event
        self.hub.switch()
        if task.process.dead:
            raise Crash
        return event is not None and event.is_set()

    def join(self, task: Task) -> None:
        """Waits in the calling task for the end of another one of its process."""
        while not task.greenlet.dead and task in self._tasks:
            self.sleep(0.001)

    def run(self, *, until: Callable[[], bool], limit_s: float) -> bool:
        """Runs tasks until the condition holds between two of them; False when time reached the limit first."""
        ends = self.now + limit_s
        while not until():
            self._n_switches += 1
            assert self._n_switches < MOST_SWITCHES, "the schedule does not come to an end"
            ready = [task for task in self._tasks if task.find_wake_at() <= self.now]
            if not ready:
                coming = min((task.find_wake_at() for task in self._tasks), default=ends)
                if coming >= ends:
                    self.now = ends
                    return until()
                self.now = coming
                continue
            self._switch(ready[self._rng.randrange(len(ready))])
        return True

    def _switch(self, task: Task) -> None:
        task.event = None
        try:
            task.greenlet.switch()
        except Crash:
            self.kill(task.process)
        finally:
            if task.greenlet.dead and task in self._tasks:
                self._tasks.remove(task)

    def kill(self, process: Process) -> None:
        """The process dies: none of its tasks goes on, none has an effect any more."""
        process.dead = True
        mine = [task for task in self._tasks if task.process is process]
        self._tasks = [task for task in self._tasks if task.process is not process]
        for task in mine:
            if not task.greenlet.dead:
                task.greenlet.parent = greenlet.getcurrent()
                with suppress(Crash):
                    task.greenlet.throw(Crash)


class SimClock:
    """The clock of one process: the world's time, and an offset that jumps."""

    def __init__(self, loop: Loop, process: Process, epoch_s: float) -> None:
        self._loop = loop
        self._process = process
        self._epoch_s = epoch_s

    def now_s(self) -> float:
        return self._epoch_s + self._loop.now + self._process.clock_offset_s

    def monotonic_s(self) -> float:
        return self._loop.now

    def wait_s(self, event: threading.Event, seconds: float) -> bool:
        return self._loop.sleep(seconds, event)
