"""Pictures that end the process: found by working on one sample at a time, and set aside.

A decoder or model in native code can die of a file, and the machine can kill a process that takes too much memory.
Nobody is left to record that, so the run is claimed again and again, and its batch would be held for ever. A run whose
process died several times is therefore worked on sample by sample, each noted in the ledger before it is begun. What
was noted and is still not through when the process died again is the suspect.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from watcher.domain.crash_points import crash_point
from watcher.domain.models import ENDED_WITHOUT_A_WORD, Run, Sample, SampleState
from watcher.jobs.context import RunContext
from watcher.logs import get_logger
from watcher.store import samples

_log = get_logger("alone")

# Whoever kills the daemon a few times in a row must not have a sample blamed for it.
_ATTEMPTS_BEFORE: Final = 5
_MOST_DEATHS: Final = 3
_NOTE: Final = "the process died {} times while it worked on this sample alone"
_NOTED: Final = re.compile(re.escape(_NOTE).replace(re.escape("{}"), r"(\d+)"))
# Two suspects at once, and the innocent one would be blamed for the other.
_ONE_AT_A_TIME: Final = threading.Lock()
_LOOK_UP_S: Final = 0.2


def works_alone(run: Run) -> bool:
    """Whether the process of this run died so often that its samples are worked on one by one."""
    return run.attempt > _ATTEMPTS_BEFORE and run.error in ENDED_WITHOUT_A_WORD


def work_alone(context: RunContext, sample: Sample, work: Callable[[], None]) -> None:
    """Calls `work` for one sample, noted in the ledger meanwhile; a sample the process died of thrice is quarantined.

    Raises:
        WatcherError: from `work`, or `CancelledError` at a shutdown.
    """
    match = _NOTED.fullmatch(sample.reason or "")
    n_deaths = int(match[1]) if match else 0
    if n_deaths >= _MOST_DEATHS:
        _set_aside(context, sample, n_deaths)
        return
    with _waiting(context):
        # Were the process to die now, this would be true.
        _note(context, sample, _NOTE.format(n_deaths + 1))
        before = None if match else sample.reason
        try:
            work()
        except Exception:
            _forget(context, sample, before)
            raise
        _forget(context, sample, before)


def _set_aside(context: RunContext, sample: Sample, n_deaths: int) -> None:
    reason = (
        f"{_NOTE.format(n_deaths)}: its decoder dies of the file, or the picture takes more memory than there is; "
        "lower UPLOAD__MAX_PIXELS, or give the process more"
    )
    with context.database.write() as session:
        samples.record_quarantined(session, sample_id=sample.id, reason=reason, now_ms=context.now_ms())
    crash_point("alone.set_aside")
    _log.error("sample.quarantined", watch=context.watch.name, file_name=sample.file_name, reason=reason)


def _note(context: RunContext, sample: Sample, reason: str | None) -> None:
    with context.database.write() as session:
        samples.record_reason(session, sample_id=sample.id, reason=reason, now_ms=context.now_ms())
    crash_point("alone.noted")


def _forget(context: RunContext, sample: Sample, reason: str | None) -> None:
    """Takes the note back, unless the work left a reason of its own."""
    with context.database.read() as session:
        present = samples.load_sample(session, watch_id=sample.watch_id, file_name=sample.file_name)
    if (
        present is not None
        and present.state is SampleState.PROCESSING
        and _NOTED.fullmatch(present.reason or "")
    ):
        _note(context, sample, reason)


@contextmanager
def _waiting(context: RunContext) -> Iterator[None]:
    while not _ONE_AT_A_TIME.acquire(timeout=_LOOK_UP_S):
        context.check()
    try:
        yield
    finally:
        _ONE_AT_A_TIME.release()
