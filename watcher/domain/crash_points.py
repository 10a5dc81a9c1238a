"""Named places between two durable effects, at which a test can let the process die.

For tests only. With the variable `CRASH_AT` set to a name, or to `name:n` for its n-th passing, the process kills
itself there with SIGKILL, as a power cut would. Without it a point costs one look-up in a set. The variable is no
setting of the daemon: it is not listed, and nothing else reads it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

VARIABLE = "CRASH_AT"

NAMES = frozenset(
    {
        "alone.noted",
        "attach.dataset_created",
        "attach.datasource_set",
        "attach.watch_stored",
        "control.changed",
        "control.requested",
        "daemon.batches_cut",
        "daemon.runs_released",
        "deliver.promised",
        "deliveries.claimed",
        "deliveries.lease_extended",
        "deliveries.progress_saved",
        "deliveries.recorded",
        "deliveries.tasks_recorded",
        "duties.problem_cleared",
        "duties.problem_stored",
        "duties.request_refused",
        "embed.csv_uploaded",
        "embed.embedder_chosen",
        "embed.foreign_vectors_stored",
        "embed.old_deleted",
        "embed.old_forgotten",
        "embed.outdated_deleted",
        "embed.recorded",
        "embed.refusal_forgotten",
        "embed.vectors_stored",
        "embedding.promised",
        "label_studio.project_created",
        "label_studio.tasks_imported",
        "lateness.recorded",
        "manifest.renamed",
        "manifest.uploaded",
        "manifest.written",
        "metadata.sent",
        "metadata.set_aside",
        "moving.part_copied",
        "moving.source_marked",
        "novelty.chunk_recorded",
        "novelty.index_written",
        "novelty.others_packed",
        "novelty.recorded",
        "overwrites.looked_at",
        "poll.created",
        "poll.interruption_stored",
        "poll.mark_moved",
        "poll.page_stored",
        "poll.problem_stored",
        "poll.query_turned",
        "poll.remote_mark_stored",
        "poll.remote_mark_told",
        "probe.problem_stored",
        "probe.recorded",
        "read_urls.page_refreshed",
        "reconcile.page_stored",
        "reconcile.reported",
        "reconcile.returned_recorded",
        "reconcile.statement_kept",
        "reconcile.unexplained_stored",
        "reconcile.vanished_recorded",
        "reembed.csv_uploaded",
        "reembed.finished",
        "reembed.noted",
        "reembed.old_deleted",
        "reembed.vectors_stored",
        "runner.claimed",
        "runner.lease_extended",
        "runner.recorded",
        "sampling.asked",
        "sampling.ended",
        "sampling.recorded",
        "sampling.scores_noted",
        "sampling.scores_uploaded",
        "sampling.tag_made",
        "source_check.recorded",
        "upload.again_tag_made",
        "upload.file_put",
        "upload.refused_recorded",
        "upload.sample_recorded",
        "upload.sample_registered",
        "upload.sample_set_aside",
        "upload.sample_updated",
        "upload.tag_made",
        "upload.tag_recorded",
        "upload.thumbnail_put",
        "upload.vanished_recorded",
        "webhook.posted",
    }
)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class CrashPlan:
    """Where to die; counts the passings of that place over all threads."""

    def __init__(self, text: str, *, die: Callable[[], None] = _die) -> None:
        """Reads `name` or `name:n`.

        Raises:
            ValueError: there is no such point, or n is no number from 1 on.
        """
        name, colon, number = text.partition(":")
        if name not in NAMES:
            raise ValueError(
                f"{VARIABLE}={text}: there is no such point; known are {', '.join(sorted(NAMES))}"
            )
        if colon and (not number.isdecimal() or int(number) < 1):
            raise ValueError(f"{VARIABLE}={text}: the passing is a number from 1 on")
        self._name = name
        self._left = int(number) if colon else 1
        self._lock = threading.Lock()
        self._die = die

    def note(self, name: str) -> None:
        """A point is passed; dies if it is the one."""
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._die()


_plan: CrashPlan | None = None


def arm() -> None:
    """Reads the variable; done once at the import.

    Raises:
        ValueError: it names no point.
    """
    global _plan  # noqa: PLW0603 - one process, one plan
    text = os.environ.get(VARIABLE)
    _plan = CrashPlan(text) if text else None


arm()


def crash_point(name: str) -> None:
    """Nothing, unless the process was told to die here.

    Raises:
        LookupError: the name is not in `NAMES`.
    """
    if name not in NAMES:
        raise LookupError(f"{name!r} is no crash point: add it to NAMES")
    if _plan is not None:
        _plan.note(name)
