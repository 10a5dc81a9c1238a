"""Embeddings: records, CSV transfers, and projections to two dimensions."""

from __future__ import annotations

import struct
from itertools import chain

from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.embeddings import (
    DatasetEmbeddingData,
    Embedding2dCreateRequest,
    Embedding2dData,
    EmbeddingIdIsProcessedBody,
    SampleEmbeddingData,
    Trigger2dEmbeddingJobRequest,
    WriteCSVUrlData,
)
from watcher.platform import access, jobs, signing
from watcher.platform.blobs import build_embedding_key
from watcher.platform.calls import Call, Operation, text
from watcher.platform.faults import invalid, taken, unknown
from watcher.platform.secrets import is_id, new_id
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import embeddings as store

NAME = text("name", min_length=1, max_length=255)
DEFAULT_NAME = "default"
# Pages draw them in float32.
_MAX_COORDINATE = 3.4e38


def to_reply(row: store.EmbeddingRow) -> DatasetEmbeddingData:
    """The protocol's form of an embedding."""
    return DatasetEmbeddingData(
        id=row.id, name=row.name, is_processed=row.is_processed, created_at=row.created_at, is2d=False
    )


def get_embeddings(call: Call) -> list[DatasetEmbeddingData]:
    """All embeddings, newest first."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        return [to_reply(row) for row in store.load_embeddings(session, dataset_id=dataset.id)]


def get_csv_write_url(call: Call) -> WriteCSVUrlData:
    """Makes the record, or finds it while it has no content yet, and signs the URL for its CSV."""
    name = NAME.of(call) or DEFAULT_NAME
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        present = store.load_embedding_by_name(session, dataset_id=dataset.id, name=name)
        if present is not None and present.is_processed:
            raise taken(
                "EMBEDDING_NAME_EXISTS", f"there is an embedding {name!r} already: choose another name"
            )
        if present is not None:
            embedding_id: str = present.id
        else:
            embedding_id = new_id(call.now_s)
            newest = store.load_embeddings(session, dataset_id=dataset.id)[:1]
            # The order of creation is what clients go by, so two never share a millisecond.
            now_ms = max(call.now_ms, newest[0].created_at + 1) if newest else call.now_ms
            store.insert_embedding(
                session, embedding_id=embedding_id, dataset_id=dataset.id, name=name, now_ms=now_ms
            )
            dataset_store.update_dataset(session, dataset_id=dataset.id, values={"modified_at": call.now_ms})
    url = signing.sign_write(call, f"{dataset.id}/csv/{embedding_id}")
    return WriteCSVUrlData(signed_write_url=url, embedding_id=embedding_id)


def get_csv_read_url(call: Call) -> str:
    """A signed URL of the CSV."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = access.find_embedding(session, call, dataset.id)
    if not row.is_processed:
        raise invalid("nothing was uploaded for this embedding yet", "EMBEDDING_NOT_READY")
    return signing.sign_read(call, build_embedding_key(dataset.id, row.id, row.digest, "csv"))


def delete_embedding(call: Call) -> None:
    """Removes an embedding with its files; as long as files are left it is there and can be deleted again."""
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        row = access.find_embedding(session, call, dataset.id)
        store.update_embedding(session, embedding_id=row.id, values={"is_processed": False})
    if row.digest is not None:
        for suffix in ("csv", "npy"):
            call.platform.blobs.delete(build_embedding_key(dataset.id, row.id, row.digest, suffix))
    with call.platform.database.write() as session:
        store.delete_embedding(session, embedding_id=row.id)


def set_is_processed(call: Call) -> None:
    """Accepted when it says what the server found itself; the server alone decides."""
    request = call.read(EmbeddingIdIsProcessedBody)
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = access.find_embedding(session, call, dataset.id)
    if not row.is_processed:
        raise invalid("the CSV of this embedding has not arrived", "EMBEDDING_NOT_READY")
    if request.row_count != row.n_rows:
        raise invalid(f"the embedding has {row.n_rows} rows", "EMBEDDING_ROW_COUNT_INVALID")


def trigger_projection(call: Call) -> None:
    """Starts the computing of a projection, unless it is there or under way."""
    request = call.read(Trigger2dEmbeddingJobRequest)
    method = request.dimensionality_reduction_method
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        row = access.find_embedding(session, call, dataset.id)
        if any(present.name == method for present in store.load_projections(session, embedding_id=row.id)):
            return
        jobs.insert_projection(session, call, dataset_id=dataset.id, embedding_id=row.id, method=method)
    jobs.announce(call.platform, jobs.PROJECTION)


def to_projection_reply(row: store.ProjectionRow, *, whole: bool) -> Embedding2dData:
    """The protocol's form of a projection; lists leave the coordinates out."""
    numbers = struct.unpack(f"<{len(row.coordinates) // 8}d", row.coordinates) if whole else ()
    return Embedding2dData(
        id=row.id,
        dataset_id=row.dataset_id,
        embedding_id=row.embedding_id,
        name=row.name,
        created_at=row.created_at,
        dimensionality_reduction_method=row.method,
        coordinates_dimension1=list(numbers[::2]) if whole else None,
        coordinates_dimension2=list(numbers[1::2]) if whole else None,
    )


def get_projections(call: Call) -> list[Embedding2dData]:
    """The projections of an embedding, without their coordinates."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = access.find_embedding(session, call, dataset.id)
        found = store.load_projections(session, embedding_id=row.id)
    return [to_projection_reply(projection, whole=False) for projection in found]


def get_projection(call: Call) -> Embedding2dData:
    """One projection with its coordinates in mapping order."""
    projection_id = call.path["embedding2dId"]
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = access.find_embedding(session, call, dataset.id)
        found = (
            store.load_projection(session, embedding_id=row.id, projection_id=projection_id)
            if is_id(projection_id)
            else None
        )
    if found is None:
        raise unknown("EMBEDDING_2D_UNKNOWN", "this embedding has no such projection")
    return to_projection_reply(found, whole=True)


def create_projection(call: Call) -> CreateEntityResponse:
    """Stores a projection computed elsewhere."""
    request = call.read(Embedding2dCreateRequest)
    first, second = request.coordinates_dimension1, request.coordinates_dimension2
    if not 1 <= len(request.name) <= 255 or "\0" in request.name:
        raise invalid("the name of a projection has 1 to 255 characters")
    if not all(abs(value) <= _MAX_COORDINATE for value in (*first, *second)):
        raise invalid(f"the coordinates must lie between -{_MAX_COORDINATE} and {_MAX_COORDINATE}")
    projection_id = new_id(call.now_s)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        row = access.find_embedding(session, call, dataset.id)
        if len(first) != len(second) or (row.n_rows is not None and len(first) != row.n_rows):
            raise invalid("one pair of coordinates for each row is needed", "EMBEDDING_ROW_COUNT_INVALID")
        store.replace_projection(
            session,
            values={
                "id": projection_id,
                "dataset_id": dataset.id,
                "embedding_id": row.id,
                "name": request.name,
                "method": request.dimensionality_reduction_method,
                "coordinates": struct.pack(
                    f"<{2 * len(first)}d", *chain.from_iterable(zip(first, second, strict=True))
                ),
                "created_at": call.now_ms,
            },
        )
    return CreateEntityResponse(id=projection_id)


def get_embeddings_of_sample(call: Call) -> list[SampleEmbeddingData]:
    """The embeddings that have a row for the sample."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        sample = access.find_sample(session, call, dataset.id)
        rows = store.load_embeddings(session, dataset_id=dataset.id)
    return [
        SampleEmbeddingData(id=row.id, dataset=dataset.id, name=row.name)
        for row in rows
        if row.is_processed and sample.position < row.n_rows
    ]


_ALL = "/v1/datasets/{datasetId}/embeddings"
_ONE = _ALL + "/{embeddingId}"
OPERATIONS = (
    Operation(
        "GET",
        _ALL,
        "getEmbeddingsByDatasetId",
        get_embeddings,
        "List embeddings, newest first",
        reply=list[DatasetEmbeddingData],
    ),
    Operation(
        "GET",
        _ALL + "/writeCSVUrl",
        "getEmbeddingsCsvWriteUrlById",
        get_csv_write_url,
        "Create an embedding and get its write URL",
        reply=WriteCSVUrlData,
        query=(NAME,),
    ),
    Operation("DELETE", _ONE, "deleteEmbeddingById", delete_embedding, "Delete an embedding"),
    Operation(
        "GET",
        _ONE + "/readCSVUrl",
        "getEmbeddingsCsvReadUrlById",
        get_csv_read_url,
        "Signed URL to read the CSV",
        reply=str,
    ),
    Operation(
        "PUT",
        _ONE + "/isProcessed",
        "setEmbeddingsIsProcessedFlagById",
        set_is_processed,
        "Mark an embedding as read in",
        body=EmbeddingIdIsProcessedBody,
    ),
    Operation(
        "POST",
        _ONE + "/trigger2dEmbeddingsJob",
        "trigger2dEmbeddingsJob",
        trigger_projection,
        "Start a 2d projection",
        body=Trigger2dEmbeddingJobRequest,
        codes=(429,),
    ),
    Operation(
        "GET",
        _ONE + "/2d",
        "getEmbeddings2dByEmbeddingId",
        get_projections,
        "List 2d projections",
        reply=list[Embedding2dData],
    ),
    Operation(
        "POST",
        _ONE + "/2d",
        "createEmbeddings2dByEmbeddingId",
        create_projection,
        "Store a 2d projection",
        reply=CreateEntityResponse,
        body=Embedding2dCreateRequest,
        status=201,
    ),
    Operation(
        "GET",
        _ONE + "/2d/{embedding2dId}",
        "getEmbedding2dById",
        get_projection,
        "Read a 2d projection",
        reply=Embedding2dData,
    ),
    Operation(
        "GET",
        "/users/datasets/{datasetId}/samples/{sampleId}/embeddings",
        "getEmbeddingsBySampleId",
        get_embeddings_of_sample,
        "Embeddings of a sample",
        reply=list[SampleEmbeddingData],
        query=(text("mode"),),
    ),
)
