"""What takes the place of threads while the real code runs in the loop of one thread."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import BigInteger, Engine, literal
from sqlalchemy.orm import Session

import watcher
from tests.simulation.loop import Crash, Loop, Process, Task
from watcher import standby
from watcher.database.engine import Database, build_database
from watcher.domain import crash_points
from watcher.domain.errors import StoreUnavailableError
from watcher.store import leadership as store_leadership

_WITH_THREADS = (
    "watcher.lightly.parallel",
    "watcher.poll",
    "watcher.reconcile",
    "watcher.jobs",
    "watcher.embedders",
    "watcher.sinks",
    "watcher.leadership",
    "watcher.standby",
)
# The steps come with the first run, but what is replaced below must be there before.
for _module in pkgutil.walk_packages(watcher.__path__, "watcher."):
    if _module.name.startswith(_WITH_THREADS):
        importlib.import_module(_module.name)
_LOOK_S = 2.0
# Dialect and compiled statements by the dialect's name: the key of a compiled statement holds its dialect.
_compiled: dict[str, tuple[Any, Any]] = {}


class InlinePool:
    """Does each piece of work where it is handed in."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed on to who asks for the result; a crash is nobody's result
            future.set_exception(error)
        return future

    def map(self, function: Callable[..., Any], *inputs: Any) -> Iterator[Any]:
        return iter([self.submit(function, *each).result() for each in zip(*inputs, strict=False)])

    def shutdown(self, **_options: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass


class _Thread:
    """A thread of the process under test: a task of the loop."""

    loop: Loop

    def __init__(
        self,
        *,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str = "thread",
        daemon: bool = True,
    ) -> None:
        self._target, self._args, self.name = target, args, name
        self._task: Task | None = None

    def start(self) -> None:
        current = self.loop.current
        assert current is not None
        self._task = self.loop.spawn(current.process, self.name, lambda: self._target(*self._args))

    def join(self, timeout: float | None = None) -> None:
        if self._task is not None:
            self.loop.join(self._task)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.greenlet.dead


class _Threading:
    """The module `threading`, but for its threads."""

    Thread = _Thread

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


class _Plan:
    """Hears of every crash point that is passed."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note


@contextmanager
def threads_replaced(loop: Loop, note: Callable[[str], None], *, epoch_s: float) -> Iterator[None]:
    """The modules that start threads start tasks of the loop, and crash points are told to `note`.

    The clock of the database, by which leases of leaders run, is the world's: unix `epoch_s` at its beginning.
    """
    replaced: list[tuple[Any, str, Any]] = []
    _Thread.loop = loop

    def put(owner: Any, name: str, value: Any) -> None:
        replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        for name, module in list(sys.modules.items()):
            if not name.startswith(_WITH_THREADS):
                continue
            if getattr(module, "ThreadPoolExecutor", None) is ThreadPoolExecutor:
                put(module, "ThreadPoolExecutor", InlinePool)
            if getattr(module, "threading", None) is threading:
                put(module, "threading", _Threading())
        put(crash_points, "_plan", _Plan(note))
        put(store_leadership, "_now_ms", lambda _: literal(int(1000 * (epoch_s + loop.now)), BigInteger))
        put(standby, "_LOOK_S", _LOOK_S)
        yield
    finally:
        for owner, name, value in reversed(replaced):
            setattr(owner, name, value)


def open_engine(store_url: str, *, pool_size: int) -> Engine:
    """The engine of a store, as `build_database` makes it; what was compiled for one store serves the next.

    A schedule opens dozens, and would compile each of some hundred statements anew for each.
    """
    engine = build_database(store_url, pool_size=pool_size).engine
    engine.dialect, engine._compiled_cache = _compiled.setdefault(
        engine.dialect.name, (engine.dialect, engine._compiled_cache)
    )
    return engine


class SimDatabase(Database):
    """The real database of one process: refuses the dead, counts open transactions, and fails when told.

    `fails` tells how a transaction is to fail: not at all, at its `start`, at its `commit`, or so that the commit
    is `lost`: carried out, and nobody hears of it.
    """

    def __init__(self, engine: Engine, loop: Loop, process: Process, fails: Callable[[], str]) -> None:
        super().__init__(engine, name=f"watcher sim {process.name}")
        self._loop = loop
        self._process = process
        self._fails = fails

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._watched("DEFERRED") as (session, _):
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with self._watched("IMMEDIATE") as (session, failure):
            yield session
            if failure == "commit":
                raise StoreUnavailableError("simulated: the disk is full")
            session.commit()
            if failure == "lost":
                raise StoreUnavailableError("simulated: the server went away while it committed")

    @contextmanager
    def _watched(self, begin: str) -> Iterator[tuple[Session, str]]:
        if self._process.dead:
            raise Crash
        failure = self._fails()
        if failure == "start":
            raise StoreUnavailableError("simulated: the disk is full")
        task = self._loop.current
        opened = self._process.n_open_transactions
        opened[task] = opened.get(task, 0) + 1
        try:
            with self._session(begin=begin) as session:
                yield session, failure
        finally:
            opened[task] -= 1
