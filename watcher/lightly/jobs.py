"""Jobs."""

from __future__ import annotations

from watcher.lightly.transport import Transport
from watcher.lightly.wire.jobs import JobsData, JobStatusData


def fetch_job(transport: Transport, *, job_id: str) -> JobStatusData:
    """State of a job."""
    return transport.get_json("/v1/jobs/{jobId}", type=JobStatusData, path_params={"jobId": job_id})


def fetch_jobs(transport: Transport) -> list[JobsData]:
    """All jobs of the token's user."""
    return transport.get_json("/v1/jobs", type=list[JobsData])
