"""Jobs: what runs after the answer, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from watcher.lightly.wire.datasets import JobStatusMeta
from watcher.lightly.wire.jobs import JobResult, JobsData, JobStatusData
from watcher.platform.calls import Call, Operation
from watcher.platform.faults import Fault, unknown
from watcher.platform.secrets import is_id, new_id
from watcher.platform.store import jobs as store

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from watcher.platform.context import Platform

SAMPLING = "SAMPLING"
PROJECTION = "EMBEDDINGS2D"
# Each kind has a queue and a worker of its own: what somebody waits for does not stand behind plots.
KINDS = (SAMPLING, PROJECTION)
POLL_AGAIN_S = 1
_MAX_LISTED = 1000
_NAMES = {SAMPLING: "samplings", PROJECTION: "projections"}


class ProjectionArguments(msgspec.Struct, frozen=True):
    """What the worker needs to know."""

    embedding_id: str
    method: str


def insert(
    session: Session, call: Call, *, dataset_id: str, kind: str, arguments: Any, claim_key: str | None
) -> str:
    """Adds a job for the caller and gives its id; the worker looks when `announce` tells it.

    Raises:
        Fault: 429, too many of the caller's jobs of that kind wait. Calls at the same moment may pass together.
    """
    limit = call.platform.config.max_waiting_jobs
    if store.count_waiting(session, user_id=call.caller.id, kind=kind, limit=limit) >= limit:
        raise Fault(
            429,
            "JOB_CREATION_FAILED",
            f"{limit} {_NAMES[kind]} of yours wait already: ask again when some have ended, or cancel some",
        )
    job_id = new_id(call.now_s)
    store.insert_job(
        session,
        values={
            "id": job_id,
            "dataset_id": dataset_id,
            "user_id": call.caller.id,
            "type": kind,
            "arguments": msgspec.json.encode(arguments).decode(),
            "claim_key": claim_key,
            "n_total": 0,
            "n_processed": 0,
            "created_at": call.now_ms,
            "modified_at": call.now_ms,
        },
    )
    return job_id


def insert_projection(
    session: Session, call: Call, *, dataset_id: str, embedding_id: str, method: str
) -> None:
    """Adds the job of a projection unless one waits or runs already."""
    claim_key = f"projection:{embedding_id}:{method}"
    if not store.is_claimed(session, dataset_id=dataset_id, claim_key=claim_key):
        arguments = ProjectionArguments(embedding_id=embedding_id, method=method)
        insert(
            session, call, dataset_id=dataset_id, kind=PROJECTION, arguments=arguments, claim_key=claim_key
        )


def announce(platform: Platform, kind: str) -> None:
    """Lets the worker of this process look at once; after the commit."""
    platform.jobs_ready[kind].set()


def to_reply(row: store.JobRow) -> JobStatusData:
    """The protocol's form of a job."""
    result = None
    if row.status == "FINISHED":
        result = JobResult(type=row.type, data=msgspec.json.decode(row.result) if row.result else None)
    return JobStatusData(
        id=row.id,
        status=row.status,
        wait_time_till_next_poll=POLL_AGAIN_S,
        created_at=row.created_at,
        dataset_id=row.dataset_id,
        meta=JobStatusMeta(total=row.n_total, processed=row.n_processed),
        last_modified_at=row.modified_at,
        finished_at=row.finished_at,
        error=row.error,
        result=result,
    )


def _find(session: Session, call: Call) -> store.JobRow:
    job_id = call.path["jobId"]
    row = store.load_job(session, job_id=job_id) if is_id(job_id) else None
    if row is None or row.user_id != call.caller.id:
        raise unknown("JOB_UNKNOWN", "there is no such job for this token")
    return row


def get_job(call: Call) -> JobStatusData:
    """State of a job."""
    with call.platform.database.read() as session:
        return to_reply(_find(session, call))


def get_jobs(call: Call) -> list[JobsData]:
    """The newest thousand jobs of the caller."""
    with call.platform.database.read() as session:
        rows = store.load_jobs(session, user_id=call.caller.id, limit=_MAX_LISTED)
    return [
        JobsData(
            id=row.id,
            job_id=row.id,
            job_type=row.type,
            status=row.status,
            created_at=row.created_at,
            dataset_id=row.dataset_id,
            finished_at=row.finished_at,
        )
        for row in rows
    ]


def cancel_job(call: Call) -> None:
    """Ends a waiting job at once and a running one soon; harmless for an ended one."""
    with call.platform.database.write() as session:
        row = _find(session, call)
        if row.status == "WAITING":
            store.finish_job(session, job_id=row.id, owner=None, now_ms=call.now_ms, error="cancelled")
        elif row.status == "RUNNING":
            store.request_cancel(session, job_id=row.id, now_ms=call.now_ms)


OPERATIONS = (
    Operation("GET", "/v1/jobs", "getJobs", get_jobs, "List own jobs", reply=list[JobsData]),
    Operation("GET", "/v1/jobs/{jobId}", "getJobStatusById", get_job, "Read a job", reply=JobStatusData),
    Operation("POST", "/v1/jobs/{jobId}/cancel", "cancelJobById", cancel_job, "Cancel a job", own=True),
)
