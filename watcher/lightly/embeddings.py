"""Embedding records and the signed URLs of their CSV files."""

from __future__ import annotations

from watcher.lightly.transport import Transport
from watcher.lightly.wire.embeddings import (
    DatasetEmbeddingData,
    DimensionalityReductionMethod,
    Embedding2dData,
    Trigger2dEmbeddingJobRequest,
    WriteCSVUrlData,
)

_EMBEDDINGS = "/v1/datasets/{datasetId}/embeddings"
_EMBEDDING = "/v1/datasets/{datasetId}/embeddings/{embeddingId}"


def fetch_embeddings(transport: Transport, *, dataset_id: str) -> list[DatasetEmbeddingData]:
    """All embedding records, newest first whatever the server's order."""
    found = transport.get_json(
        _EMBEDDINGS, type=list[DatasetEmbeddingData], path_params={"datasetId": dataset_id}
    )
    return sorted(found, key=lambda embedding: embedding.created_at, reverse=True)


def fetch_embedding_by_name(
    transport: Transport, *, dataset_id: str, name: str
) -> DatasetEmbeddingData | None:
    """The newest embedding of exactly this name, or None."""
    embeddings = fetch_embeddings(transport, dataset_id=dataset_id)
    return next((embedding for embedding in embeddings if embedding.name == name), None)


def fetch_csv_write_url(transport: Transport, *, dataset_id: str, name: str) -> WriteCSVUrlData:
    """Makes an embedding record and gives the URL to write its CSV to.

    For the name of a record whose CSV was never read, servers may give a fresh URL for that record; for a name in
    use the code is EMBEDDING_NAME_EXISTS. A GET by the protocol, yet it creates: a lost answer leaves an empty
    record, so it is not repeated here once it was sent.
    """
    return transport.send_json(
        "GET",
        f"{_EMBEDDINGS}/writeCSVUrl",
        type=WriteCSVUrlData,
        path_params={"datasetId": dataset_id},
        query={"name": name},
        idempotent=False,
    )


def fetch_csv_read_url(transport: Transport, *, dataset_id: str, embedding_id: str) -> str:
    """A signed URL to read the CSV."""
    return transport.get_json(
        f"{_EMBEDDING}/readCSVUrl",
        type=str,
        path_params={"datasetId": dataset_id, "embeddingId": embedding_id},
    )


def delete_embedding(transport: Transport, *, dataset_id: str, embedding_id: str) -> None:
    """Deletes an embedding; servers of the older generation cannot."""
    transport.send("DELETE", _EMBEDDING, path_params={"datasetId": dataset_id, "embeddingId": embedding_id})


def trigger_projection(
    transport: Transport, *, dataset_id: str, embedding_id: str, method: DimensionalityReductionMethod
) -> None:
    """Asks for a two-dimensional projection; nobody waits for it."""
    transport.send(
        "POST",
        f"{_EMBEDDING}/trigger2dEmbeddingsJob",
        path_params={"datasetId": dataset_id, "embeddingId": embedding_id},
        body=Trigger2dEmbeddingJobRequest(dimensionality_reduction_method=method),
        idempotent=True,
    )


def fetch_projections(transport: Transport, *, dataset_id: str, embedding_id: str) -> list[Embedding2dData]:
    """The projections that are computed, coordinates in mapping order."""
    return transport.get_json(
        f"{_EMBEDDING}/2d",
        type=list[Embedding2dData],
        path_params={"datasetId": dataset_id, "embeddingId": embedding_id},
    )
