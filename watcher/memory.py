"""Memory of the processes that go on for months."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_ARENA_MAX = -8  # of malloc.h
_ARENAS = 2


def limit_arenas() -> None:
    """Lets all threads share two heaps; to be called before there are threads. Nothing happens without glibc.

    By itself glibc gives each thread a heap of its own, up to eight a core, and each keeps what it once needed: six
    megabytes of an idle daemon. Threads that hold the interpreter's lock anyway gain nothing by heaps of their own.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no such call
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
