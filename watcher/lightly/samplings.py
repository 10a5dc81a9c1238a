"""Samplings: started here, carried out by the server as jobs."""

from __future__ import annotations

from watcher.lightly.transport import Transport
from watcher.lightly.wire.samplings import AsyncTaskData, SamplingCreateRequest


def create_sampling(
    transport: Transport, *, dataset_id: str, embedding_id: str, request: SamplingCreateRequest
) -> str:
    """Starts a sampling and gives the id of its job.

    Raises:
        UnknownOutcomeError: it may run; look for a tag of the name before repeating.
    """
    return transport.send_json(
        "POST",
        "/v1/datasets/{datasetId}/embeddings/{embeddingId}/sampling",
        type=AsyncTaskData,
        path_params={"datasetId": dataset_id, "embeddingId": embedding_id},
        body=request,
    ).job_id
