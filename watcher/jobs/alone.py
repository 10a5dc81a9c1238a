"""Pictures that end the process: found by decoding one at a time, and set aside.

A decoder in native code can die of a file, and the machine can kill a process that takes too much memory. Nobody is
left to record that, so the run is claimed again and again, and its batch would be held for ever. In a run whose process
died several times, pictures are therefore decoded one at a time over the whole process, each noted in the ledger
meanwhile. A sample that bears such a note when the run is claimed again is the suspect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ImageError
from watcher.domain.models import ENDED_WITHOUT_A_WORD, Run, Sample
from watcher.jobs.context import RunContext
from watcher.store import samples

# Whoever kills the daemon a few times in a row must not have a sample blamed for it.
_ATTEMPTS_BEFORE: Final = 5
_MOST_DEATHS: Final = 5
_NOTE: Final = "the process died {} times while it decoded this sample alone"
_NOTED: Final = re.compile(re.escape(_NOTE).replace(re.escape("{}"), r"(\d+)"))


def decodes_alone(run: Run) -> bool:
    """Whether the process of this run died so often that its pictures are decoded one at a time."""
    return run.attempt > _ATTEMPTS_BEFORE and run.error in ENDED_WITHOUT_A_WORD


@contextmanager
def suspecting(context: RunContext, sample: Sample) -> Iterator[None]:
    """Around the decoding of a picture; where nobody is suspected it does nothing.

    The caller holds the whole room of pixels, so that no other picture can be what the process dies of.

    Raises:
        ImageError: the process died of it several times.
        StoreUnavailableError: the note cannot be written.
    """
    if not decodes_alone(context.run):
        yield
        return
    match = _NOTED.fullmatch(sample.reason or "")
    n_deaths = int(match[1]) if match else 0
    if n_deaths >= _MOST_DEATHS:
        raise ImageError(
            f"{_NOTE.format(n_deaths)}: its decoder dies of the file, or the picture takes more memory than there is; "
            "lower UPLOAD__MAX_PIXELS, or give the process more"
        )
    before = None if match else sample.reason
    # Were the process to die now, this would be true.
    _note(context, sample, _NOTE.format(n_deaths + 1))
    try:
        yield
    except Exception:
        _note(context, sample, before)
        raise
    _note(context, sample, before)


def _note(context: RunContext, sample: Sample, reason: str | None) -> None:
    with context.database.write() as session:
        samples.record_reason(session, sample_id=sample.id, reason=reason, now_ms=context.now_ms())
    crash_point("alone.noted")
