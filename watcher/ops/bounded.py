"""Calls that may hang, given a limit: who asks waits no longer, and the threads that hang have a bound."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from watcher.domain.errors import StoreUnavailableError

T = TypeVar("T")


class _Flight(Generic[T]):
    """One running call, and what became of it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.values: list[T] = []
        self.error: BaseException | None = None


class Bounded(Generic[T]):
    """Calls `call` in a thread of its own and waits at most `limit_s`.

    Whoever asks while a call is under way waits for that one, so a store that hangs holds one thread and one
    connection, however often it is asked. Safe for several threads.
    """

    def __init__(self, call: Callable[[], T], *, limit_s: float, what: str) -> None:
        """Keeps the values; `what` names the other side in the error."""
        self._call = call
        self._limit_s = limit_s
        self._what = what
        self._lock = threading.Lock()
        self._flight: _Flight[T] | None = None

    def __call__(self) -> T:
        """The answer.

        Raises:
            StoreUnavailableError: there was none within the limit; the call goes on, and later askers may get it.
            BaseException: whatever the call raised.
        """
        with self._lock:
            flight = self._flight
            if flight is None:
                flight = self._flight = _Flight()
                threading.Thread(target=self._fly, args=(flight,), name=self._what, daemon=True).start()
        if not flight.ended.wait(self._limit_s):
            raise StoreUnavailableError(
                f"{self._what} did not answer within {self._limit_s:g} s: is it overloaded, stopped or cut off?"
            )
        if flight.error is not None:
            raise flight.error
        return flight.values[0]

    def _fly(self, flight: _Flight[T]) -> None:
        try:
            flight.values.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again by those who wait
            flight.error = error
        finally:
            with self._lock:
                self._flight = None
            flight.ended.set()


class Limited:
    """Runs calls of all kinds, each in a thread of its own, a bounded number at once.

    Calls that hang keep their places, so a store that hangs holds that many threads and connections and no more,
    however many ask. Safe for several threads.
    """

    def __init__(self, *, limit_s: float, most: int, what: str, then: str = "") -> None:
        """Keeps the values.

        Args:
            limit_s: how long an asker waits, for a place and the answer together.
            most: calls at once.
            what: the other side, for the error.
            then: what the error says of a call that goes on without its asker.
        """
        self._limit_s = limit_s
        self._places = threading.BoundedSemaphore(most)
        self._what = what
        self._then = then

    def run(self, call: Callable[[], T]) -> T:
        """The answer of the call.

        Raises:
            StoreUnavailableError: there was none within the limit; a call that was begun goes on.
            BaseException: whatever the call raised.
        """
        ends_s = time.monotonic() + self._limit_s
        late = (
            f"{self._what} did not answer within {self._limit_s:g} s: is it overloaded, stopped or cut off?"
        )
        if not self._places.acquire(timeout=self._limit_s):
            raise StoreUnavailableError(late)
        flight: _Flight[T] = _Flight()
        context = contextvars.copy_context()

        def fly() -> None:
            try:
                flight.values.append(context.run(call))
            except BaseException as error:  # noqa: BLE001 - raised again by the asker
                flight.error = error
            finally:
                self._places.release()
                flight.ended.set()

        try:
            threading.Thread(target=fly, name=self._what, daemon=True).start()
        except BaseException:
            self._places.release()
            raise
        if not flight.ended.wait(max(0.0, ends_s - time.monotonic())):
            raise StoreUnavailableError(late + self._then)
        if flight.error is not None:
            raise flight.error
        return flight.values[0]
