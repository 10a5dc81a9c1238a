"""Jobs."""

from __future__ import annotations

from typing import Any, Literal

from watcher.lightly.wire.base import TimestampMs, Wire
from watcher.lightly.wire.datasets import JobStatusMeta

JobState = Literal["UNKNOWN", "WAITING", "RUNNING", "FAILED", "FINISHED"]
JobResultType = Literal["DATASET_PROCESSING", "IMAGEMETA", "EMBEDDING", "EMBEDDINGS2D", "SAMPLING"]


class JobResult(Wire, frozen=True, kw_only=True):
    """What a finished job made; for SAMPLING `data` is the id of the new tag."""

    type: str
    data: Any = None


class JobStatusData(Wire, frozen=True, kw_only=True):
    """State of a job; the first three states mean: ask again after `wait_time_till_next_poll` whole seconds."""

    id: str
    status: str
    wait_time_till_next_poll: int
    created_at: TimestampMs
    dataset_id: str | None = None
    meta: JobStatusMeta | None = None
    last_modified_at: TimestampMs | None = None
    finished_at: TimestampMs | None = None
    error: str | None = None
    result: JobResult | None = None


class JobsData(Wire, frozen=True, kw_only=True):
    """A job in the list of jobs."""

    id: str
    job_id: str
    job_type: str
    status: str
    created_at: TimestampMs
    dataset_id: str | None = None
    finished_at: TimestampMs | None = None
