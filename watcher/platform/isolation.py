"""Carries out the computing of a job in a process of its own.

So a job that needs much memory or processor neither slows the answers of the server nor takes it down with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

from watcher.domain.clock import SystemClock
from watcher.domain.errors import CancelledError
from watcher.platform.faults import Fault
from watcher.platform.settings import PlatformConfig

_POLL_S = 0.2
_END_S = 5.0
_PROGRAM = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from watcher.platform.isolation import serve
serve(pipe)
"""
Compute = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the computing knows of its job."""

    id: str
    dataset_id: str
    type: str
    arguments: str


class WorkerCrashedError(RuntimeError):
    """The process ended without a result, mostly for want of memory."""


def run_isolated(
    config: PlatformConfig,
    compute: Compute,
    job: JobFacts,
    *,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Any:
    """The outcome of `compute(platform, job, progress=, cancelled=)`, computed in a fresh process.

    Raises:
        CancelledError: `cancelled` returned True; the process was ended.
        WorkerCrashedError: the process ended by itself.
        Exception: what `compute` raised.
    """
    ours, theirs = Pipe()
    with theirs:
        # Not multiprocessing's own processes: these would carry out the calling program's main module once more.
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and a constant program
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
    try:
        ours.send(sys.path)
        ours.send((config, compute, job))
        while True:
            if cancelled():
                raise CancelledError("the job was stopped before it was complete")
            if not ours.poll(_POLL_S):
                continue
            try:
                kind, value = ours.recv()
            except (EOFError, ConnectionResetError) as error:
                code = process.wait(_END_S)
                raise WorkerCrashedError(f"the worker process ended with code {code}") from error
            if kind == "progress":
                progress(*value)
            elif kind == "done":
                return value
            else:
                raise _revive(value)
    finally:
        ours.close()
        process.kill()
        process.wait(_END_S)


def _revive(error: tuple[str, Any]) -> Exception:
    kind, value = error
    return Fault(*value) if kind == "Fault" else value


def serve(pipe: Connection) -> None:
    """What the process does: one computing, told by the pipe."""
    config, compute, job = pipe.recv()
    from watcher.platform.app import build_platform  # noqa: PLC0415 - the worker is imported by the application's users

    def leave_with_parent() -> None:
        # Nothing is ever sent to this side, so an answer means that the other end is gone.
        pipe.poll(None)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    platform = build_platform(config, clock=SystemClock())
    try:
        outcome = compute(
            platform,
            job,
            progress=lambda n_done, n_total: pipe.send(("progress", (n_done, n_total))),
            cancelled=lambda: False,
        )
        pipe.send(("done", outcome))
    except Fault as fault:
        pipe.send(("error", ("Fault", (fault.status, fault.code, fault.text))))
    except Exception as error:  # noqa: BLE001 - raised again on the other side
        pipe.send(("error", ("other", error)))
    finally:
        platform.listings.close()
        platform.database.close()
