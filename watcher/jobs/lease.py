"""The lease of one attempt: extended while it moves within its time, and never longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from watcher.domain.clock import Clock
from watcher.domain.errors import StoreUnavailableError
from watcher.logs import get_logger

_log = get_logger("lease")

_LOOK_S = 1.0


class Lease:
    """Entered once, while the attempt goes on; a thread extends the claim.

    An attempt beyond its time limit is not extended any more: one that moves ends itself at its next check, and one
    that hangs is taken up by another when the lease has run out. So is one whose process could not tell the store in
    time that it lives, be it frozen or cut off; it stops, as another may be at work.

    Attributes:
        lost: set at a shutdown, when another holds the claim, and when the lease may have run out unextended.
    """

    def __init__(
        self,
        *,
        what: str,
        clock: Clock,
        lease_s: float,
        time_limit_s: float,
        extend: Callable[[int], bool],
        stop: threading.Event,
        claimed_s: float,
    ) -> None:
        """Keeps its parts.

        Args:
            what: names the claim in logs, such as `run-7`.
            clock: ours.
            lease_s: how long the claim lasts from each extension.
            time_limit_s: longest attempt.
            extend: tells the store that the claim lasts until then, unix milliseconds; False if it is another's.
            stop: set when the process shuts down.
            claimed_s: monotonic time at which the claim was asked for.
        """
        self.lost = threading.Event()
        self._what = what
        self._clock = clock
        self._lease_s = lease_s
        self._extend = extend
        self._stop = stop
        self._ended = threading.Event()
        self.deadline_s = claimed_s + time_limit_s
        self._until_s = claimed_s + lease_s
        self._thread = threading.Thread(target=self._keep, name=f"lease-{what}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=self._lease_s)

    def has_run_out(self) -> bool:
        """Whether the claim may be another's by now; asked between two effects, it needs no other thread to notice."""
        return self._clock.monotonic_s() > self._until_s

    def _keep(self) -> None:
        clock = self._clock
        while not clock.wait_s(self._ended, min(_LOOK_S, self._lease_s / 4)):
            if self._stop.is_set() or self.has_run_out():
                self.lost.set()
            asked_s = clock.monotonic_s()
            is_due = self._until_s - asked_s < self._lease_s * 2 / 3
            if not is_due or asked_s > self.deadline_s:
                continue
            try:
                held = self._extend(int((clock.now_s() + self._lease_s) * 1000))
            except StoreUnavailableError as error:
                _log.warning("lease.not_extended", claim=self._what, error=str(error))
                continue
            if not held:
                self.lost.set()
                return
            self._until_s = asked_s + self._lease_s
