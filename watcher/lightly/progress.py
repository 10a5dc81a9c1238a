"""Progress of long work on standard error.

One line that renews itself on a terminal and in a notebook, now and then a line in a log file, nothing at all when
the caller wants silence.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

_TERMINAL_EVERY_S = 0.2
_LOG_EVERY_S = 15.0
_WIDTH = 24


class Progress:
    """Counts `total` pieces of work. Thread-safe; also a context manager.

    Args:
        label: what is counted.
        total: how many pieces in all; 0 if unknown.
        verbose: whether anything is printed.
        stream: where to; standard error if absent.
    """

    def __init__(self, label: str, total: int, *, verbose: bool, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = total
        self._stream = stream or sys.stderr
        self._verbose = verbose
        self._renews = verbose and (_is_terminal(self._stream) or _is_notebook())
        self._every_s = _TERMINAL_EVERY_S if self._renews else _LOG_EVERY_S
        self._begun_s = self._shown_s = time.monotonic()
        self._lock = threading.Lock()
        self.n_done = 0

    def add(self, n: int = 1) -> None:
        """Counts `n` more pieces."""
        with self._lock:
            self.n_done += n
            now_s = time.monotonic()
            if self._verbose and now_s - self._shown_s >= self._every_s:
                self._shown_s = now_s
                self._show(now_s, end="" if self._renews else "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._verbose:
                self._show(time.monotonic(), end="\n")

    def _show(self, now_s: float, *, end: str) -> None:
        text = describe_progress(self._label, self.n_done, self._total, now_s - self._begun_s)
        try:
            self._stream.write(f"\r{text}{end}" if self._renews else f"{text}{end}")
            self._stream.flush()
        except (OSError, ValueError):
            self._verbose = False  # nobody reads it any more


def describe_progress(label: str, n_done: int, n_total: int, seconds: float) -> str:
    """One line: share, count, pieces a second, time left."""
    rate = n_done / seconds if seconds > 0 else 0.0
    if not n_total:
        return f"{label}: {n_done} ({rate:.1f}/s)"
    share = min(1.0, n_done / n_total)
    bar = "#" * int(share * _WIDTH)
    left = f", {_describe_time((n_total - n_done) / rate)} left" if rate and n_done < n_total else ""
    return f"{label}: {share:4.0%} [{bar:<{_WIDTH}}] {n_done}/{n_total} ({rate:.1f}/s{left})  "


def _describe_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _is_notebook() -> bool:
    # Looked up, not imported: whoever runs in a notebook has it loaded.
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
