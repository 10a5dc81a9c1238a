"""A call that may hang, given a limit: what asks waits no longer, and never starts a second one beside it."""

from __future__ import annotations

import threading
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
