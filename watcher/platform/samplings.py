"""Samplings: the request, checked, becomes a job; the worker picks and makes the tag."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.orm import Session

from watcher.lightly.wire.samplings import AsyncTaskData, SamplingCreateRequest
from watcher.platform import access, jobs, tags
from watcher.platform.blobs import build_embedding_key
from watcher.platform.calls import Call, Operation
from watcher.platform.faults import Fault, invalid, unknown
from watcher.platform.store import embeddings as embedding_store
from watcher.platform.store import scores as score_store
from watcher.platform.store import tags as tag_store

if TYPE_CHECKING:
    from watcher.platform.context import Platform
    from watcher.platform.isolation import JobFacts
    from watcher.platform.samplers import Picks
    from watcher.platform.store.jobs import JobRow

NEEDS_SCORES = ("ACTIVE_LEARNING", "CORAL")


class SamplingArguments(msgspec.Struct, frozen=True):
    """What the worker needs to know; ids, so that masks are read when they are needed."""

    embedding_id: str
    tag_name: str
    method: str
    n_samples: float | None
    min_distance: float | None
    preselected_tag_id: str | None
    query_tag_id: str
    score_type: str | None
    # How far the tags reached at the request; None in jobs of before this was kept.
    tags_size: int | None = None


def trigger_sampling(call: Call) -> AsyncTaskData:
    """Checks a sampling and puts it into the queue."""
    request = call.read(SamplingCreateRequest)
    condition = request.config.stopping_condition
    n_samples = condition.n_samples if condition else None
    min_distance = condition.min_distance if condition else None
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        embedding = access.find_embedding(session, call, dataset.id)
        initial = tag_store.load_initial_tag(session, dataset_id=dataset.id)
        if initial is None:
            raise unknown("TAG_NO_TAG_IN_DATASET", "the dataset has no initial tag yet: upload samples first")
        if not embedding.is_processed:
            raise invalid("the CSV of this embedding has not arrived", "EMBEDDING_NOT_READY")
        if request.row_count is not None and request.row_count != embedding.n_rows:
            raise invalid(
                f"rowCount is {request.row_count:.15g}, but the embedding has {embedding.n_rows} rows",
                "EMBEDDING_ROW_COUNT_INVALID",
            )
        if embedding.n_rows < dataset.tags_size:
            raise invalid(
                f"the embedding has {embedding.n_rows} rows, the tags reach over {dataset.tags_size} samples: "
                "upload an embedding of all samples",
                "EMBEDDING_ROW_COUNT_INVALID",
            )
        query_tag_id = request.query_tag_id or initial.id
        query = access.find_tag(session, dataset.id, query_tag_id, code="TAG_QUERYTAG_NOT_IN_DATASET")
        if request.preselected_tag_id is not None:
            access.find_tag(
                session, dataset.id, request.preselected_tag_id, code="TAG_PRESELECTEDTAG_NOT_IN_DATASET"
            )
        if request.method in NEEDS_SCORES:
            _check_scores(_find_scores(session, query_tag_id, request.score_type), query.n_set, query.n_set)
        tags.check_free_name(session, dataset.id, request.new_tag_name)
        arguments = SamplingArguments(
            embedding_id=embedding.id,
            tag_name=request.new_tag_name,
            method=request.method,
            n_samples=n_samples,
            min_distance=min_distance,
            preselected_tag_id=request.preselected_tag_id,
            query_tag_id=query_tag_id,
            score_type=request.score_type,
            tags_size=dataset.tags_size,
        )
        job_id = jobs.insert(
            session,
            call,
            dataset_id=dataset.id,
            kind=jobs.SAMPLING,
            arguments=arguments,
            claim_key=tags.build_claim_key(request.new_tag_name),
        )
    jobs.announce(call.platform, jobs.SAMPLING)
    return AsyncTaskData(job_id=job_id)


def _find_scores(session: Session, tag_id: str, score_type: str | None) -> list[score_store.ScoreRow]:
    rows = score_store.load_tag_scores(session, tag_id=tag_id)
    if score_type is not None:
        rows = [row for row in rows if row.score_type == score_type]
    if not rows:
        what = f"scores of type {score_type!r}" if score_type is not None else "scores"
        raise invalid(f"the query tag has no {what}: upload them first", "TAG_NO_SCORES_AVAILABLE")
    return rows


def _check_scores(rows: list[score_store.ScoreRow], fewest: int, most: int) -> None:
    for row in rows:
        n_scores = len(row.values) // 8
        if not fewest <= n_scores <= most:
            raise invalid(
                f"the query tag has {most} samples, but {n_scores} scores of type {row.score_type!r}: "
                "samples were added since they came, so upload them again",
                "TAG_NO_SCORES_AVAILABLE",
            )


def carry_out(
    platform: Platform,
    job: JobFacts,
    *,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> Picks:
    """Picks the samples of a job; touches nothing. The seed follows from the dataset and the tag's name.

    Without a score type the mean of all kinds of scores at the query tag counts. Samples that the tags took in since
    the request are passed over: neither the embedding nor the scores need to know them.

    Raises:
        Fault: something it needs is gone.
        ValueError: what was asked is impossible.
    """
    import numpy as np  # noqa: PLC0415 - fifteen megabytes that an idle platform does without

    from watcher.platform import samplers  # noqa: PLC0415 - see above
    from watcher.platform.positions import decode_positions  # noqa: PLC0415 - see above

    arguments = msgspec.json.decode(job.arguments, type=SamplingArguments)
    with platform.database.read() as session:
        embedding = embedding_store.load_embedding(
            session, dataset_id=job.dataset_id, embedding_id=arguments.embedding_id
        )
        query = access.find_tag(session, job.dataset_id, arguments.query_tag_id)
        preselected = (
            access.find_tag(session, job.dataset_id, arguments.preselected_tag_id)
            if arguments.preselected_tag_id is not None
            else None
        )
        score_rows = (
            _find_scores(session, arguments.query_tag_id, arguments.score_type)
            if arguments.method in NEEDS_SCORES
            else []
        )
    if embedding is None or not embedding.is_processed:
        raise unknown("EMBEDDING_UNKNOWN", "the embedding was deleted meanwhile")
    key = build_embedding_key(job.dataset_id, embedding.id, embedding.digest, "npy")
    vectors = np.load(platform.blobs.fetch_local(key), mmap_mode="r")
    size = len(vectors) if arguments.tags_size is None else arguments.tags_size
    queried = decode_positions(query.mask)
    candidates = queried[queried < size]
    picked_before = decode_positions(preselected.mask if preselected is not None else b"")
    scores = None
    if score_rows:
        # A tag that grows keeps its scores, and may get others meanwhile: all begin with those of the candidates.
        _check_scores(score_rows, len(candidates), len(queried))
        columns = [np.frombuffer(row.values, dtype="<f8")[: len(candidates)] for row in score_rows]
        # Divided first: the sum of scores that float64 can hold may be one that it cannot.
        scores = np.sum([column / len(columns) for column in columns], axis=0)
    return samplers.pick(
        method=arguments.method,
        vectors=vectors,
        candidates=candidates,
        preselected=picked_before[picked_before < size],
        n_samples=_unless_off(arguments.n_samples),
        min_distance=_unless_off(arguments.min_distance),
        scores=scores,
        seed=_compute_seed(job.dataset_id, arguments.tag_name),
        progress=progress,
        cancelled=cancelled,
    )


def _compute_seed(dataset_id: str, tag_name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{dataset_id}\0{tag_name}".encode()).digest()[:4], "little")


def _unless_off(value: float | None) -> float | None:
    return None if value is None or value == -1 else value


def store_result(session: Session, job: JobRow, picks: Picks, *, now_ms: int) -> str:
    """Makes the tag of a finished sampling, in the transaction that ends its job; gives the tag's id.

    Raises:
        Fault: the name was taken or a tag it stands on was deleted meanwhile.
    """
    from watcher.platform.positions import encode_positions  # noqa: PLC0415 - brings numpy

    arguments = msgspec.json.decode(job.arguments, type=SamplingArguments)
    initial = tag_store.load_initial_tag(session, dataset_id=job.dataset_id)
    if initial is None:
        raise unknown("TAG_NO_TAG_IN_DATASET", "the dataset has no initial tag any more")
    if tag_store.is_name_taken(session, dataset_id=job.dataset_id, name=arguments.tag_name):
        raise Fault(409, "TAG_NAME_EXISTS", f"a tag {arguments.tag_name!r} was made meanwhile")
    mask = encode_positions(picks.positions, initial.n_set)
    if arguments.preselected_tag_id is not None:
        mask |= tags.decode_mask(access.find_tag(session, job.dataset_id, arguments.preselected_tag_id).mask)
    return tags.insert_tag(
        session,
        dataset_id=job.dataset_id,
        name=arguments.tag_name,
        mask=mask,
        creator=f"SAMPLER_{arguments.method}",
        now_ms=now_ms,
        prev_tag_id=arguments.preselected_tag_id or initial.id,
        values={
            "query_tag_id": arguments.query_tag_id,
            "preselected_tag_id": arguments.preselected_tag_id,
            "picks": picks.positions.astype("<i8").tobytes(),
            "distances": picks.distances.astype("<f4").tobytes(),
        },
    )


OPERATIONS = (
    Operation(
        "POST",
        "/v1/datasets/{datasetId}/embeddings/{embeddingId}/sampling",
        "triggerSamplingById",
        trigger_sampling,
        "Start a sampling job",
        reply=AsyncTaskData,
        body=SamplingCreateRequest,
        codes=(429,),
    ),
)
