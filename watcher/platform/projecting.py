"""Projections of embeddings to two dimensions, as jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy.orm import Session

from watcher.platform.blobs import build_embedding_key
from watcher.platform.faults import Fault, unknown
from watcher.platform.jobs import ProjectionArguments
from watcher.platform.secrets import new_id
from watcher.platform.store import embeddings as embedding_store

if TYPE_CHECKING:
    import numpy as np

    from watcher.platform.context import Platform
    from watcher.platform.isolation import JobFacts
    from watcher.platform.store.jobs import JobRow

    Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def carry_out(
    platform: Platform,
    job: JobFacts,
    *,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Points:
    """Computes the projection of a job; touches nothing.

    Raises:
        Fault: the embedding is gone, or the method is not installed.
    """
    import numpy as np  # noqa: PLC0415 - fifteen megabytes that an idle platform does without

    arguments = msgspec.json.decode(job.arguments, type=ProjectionArguments)
    with platform.database.read() as session:
        embedding = embedding_store.load_embedding(
            session, dataset_id=job.dataset_id, embedding_id=arguments.embedding_id
        )
    if embedding is None:
        raise unknown("EMBEDDING_UNKNOWN", "the embedding was deleted meanwhile")
    if not embedding.is_processed:
        raise Fault(422, "EMBEDDING_NOT_READY", "the CSV of this embedding has not arrived")
    key = build_embedding_key(job.dataset_id, embedding.id, embedding.digest, "npy")
    vectors = np.load(platform.blobs.fetch_local(key), mmap_mode="r")
    return _project(arguments.method, vectors, progress, cancelled)


def _project(
    method: str, vectors: Any, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
) -> Points:
    from watcher.platform import projections  # noqa: PLC0415 - see above

    progress(0, len(vectors))
    try:
        points = projections.project(method, vectors, 0, cancelled=cancelled)
    except ModuleNotFoundError as error:
        raise Fault(422, "NOT_IMPLEMENTED", str(error)) from error
    progress(len(vectors), len(vectors))
    return points.astype("float64")


def store_result(session: Session, job: JobRow, points: Points, *, now_ms: int) -> str | None:
    """Stores a finished projection, in the transaction that ends its job; gives its id."""
    arguments = msgspec.json.decode(job.arguments, type=ProjectionArguments)
    row = embedding_store.load_embedding(
        session, dataset_id=job.dataset_id, embedding_id=arguments.embedding_id
    )
    if row is None:
        raise unknown("EMBEDDING_UNKNOWN", "the embedding was deleted meanwhile")
    projection_id = new_id(now_ms / 1000)
    embedding_store.replace_projection(
        session,
        values={
            "id": projection_id,
            "dataset_id": job.dataset_id,
            "embedding_id": row.id,
            "name": arguments.method,
            "method": arguments.method,
            "coordinates": points.astype("<f8").tobytes(),
            "created_at": now_ms,
        },
    )
    return projection_id
