"""Step `embed`: one vector a sample, and an embedding on the server that covers the whole dataset.

The protocol knows an embedding as one CSV with a row for every sample of the dataset. Vectors are kept in the
store, so a batch computes only its own and the CSV is streamed from there, page by page of the mapping.
"""

from __future__ import annotations

from collections.abc import Iterator

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, EmbedderAnswerError, EmbedderChangedError, WatcherError
from watcher.domain.models import Sample
from watcher.domain.pipeline import Discard, Done, Outcome
from watcher.domain.sampling_rules import LEAST_TO_BLAME_THE_SOURCE, Lack
from watcher.jobs.context import RunContext
from watcher.jobs.embedder_changes import explain_change
from watcher.jobs.embedding_csv import write_embedding_csv
from watcher.jobs.novelty import measure_novelty
from watcher.jobs.vector_source import VectorSource
from watcher.lightly import embeddings
from watcher.lightly.workflows.embeddings import upload_embeddings_csv, wait_until_processed
from watcher.logs import get_logger
from watcher.store import batches, embedder_pins, lacks, samples, vectors
from watcher.work_folders import open_work_folder

_log = get_logger("embed")

_CHUNK = 64
_KEPT_EMBEDDINGS = 1


def run_embed(context: RunContext) -> Outcome:
    """Computes the batch's vectors and uploads the embedding `<watch>-<batch>`.

    Returns:
        `Done` with counts, or `Discard` if no sample of the batch is registered.

    Raises:
        EmbedderAnswerError: not one picture of a batch of at least five got a vector.
        WatcherError: the server or the store failed; vectors computed so far are kept.
    """
    _check_embedder(context)
    n_computed = _compute_batch_vectors(context)
    with context.database.read() as session:
        n_registered = samples.count_registered(session, batch_id=context.batch.id)
        n_without = lacks.count_lacks(session, lack=Lack.VECTOR, batch_id=context.batch.id)
    if n_registered == 0:
        return Discard("no sample of the batch is registered")
    if n_without == n_registered >= LEAST_TO_BLAME_THE_SOURCE:
        raise _refuse_vectors(context, n_registered)
    n_rows = _upload_embedding(context)
    measured = measure_novelty(context)
    _delete_old_embeddings(context)
    return Done(
        {
            "n_computed": n_computed,
            "n_rows": n_rows,
            "embedder": context.embedder.name,
            "n_near_duplicates": measured.n_near_duplicates,
            "n_without_vector": measured.n_without_vector,
        }
    )


def _refuse_vectors(context: RunContext, n_registered: int) -> EmbedderAnswerError:
    """The error of an embedder that serves no picture at all; a replay computes everything anew."""
    with context.database.write() as session:
        first = lacks.load_first_reason(session, lack=Lack.VECTOR, batch_id=context.batch.id)
        lacks.forget_batch_lacks(session, lack=Lack.VECTOR, batch_id=context.batch.id)
        vectors.forget_batch_vectors(
            session,
            watch_id=context.watch.id,
            embedder=context.embedder.name,
            batch_id=context.batch.id,
        )
    crash_point("embed.refusal_forgotten")
    assert first is not None
    return EmbedderAnswerError(
        f"the embedder {context.embedder.name} made a vector of none of the {n_registered} pictures of "
        f"{context.batch.key}; of {first[0]!r}, for one: {first[1]}. Mend it, then `watcher replay`"
    )


def renew_embedding(context: RunContext) -> str:
    """Replaces the batch's embedding, which somebody deleted or which no longer covers the dataset; gives its id.

    Raises:
        WatcherError: the server or the store failed.
    """
    dataset_id = context.watch.dataset_id
    old = embeddings.fetch_embedding_by_name(context.transport, dataset_id=dataset_id, name=context.batch.key)
    if old is not None:
        embeddings.delete_embedding(context.transport, dataset_id=dataset_id, embedding_id=old.id)
        crash_point("embed.outdated_deleted")
    _upload_embedding(context)
    with context.database.read() as session:
        embedding_id = batches.load_batch(session, batch_id=context.batch.id).embedding_id
    assert embedding_id is not None
    return embedding_id


def _upload_embedding(context: RunContext) -> int:
    """Uploads the vectors of all samples of the dataset and notes the embedding; tells how many rows it has."""
    with open_work_folder(context.parts.work_dir, prefix="embed-") as folder:
        path = folder / "embeddings.csv"
        n_rows = write_embedding_csv(context.database, VectorSource.of(context), path)
        embedding_id = upload_embeddings_csv(
            context.transport, dataset_id=context.watch.dataset_id, path=path, name=context.batch.key
        )
        crash_point("embed.csv_uploaded")
    wait_until_processed(
        context.transport,
        dataset_id=context.watch.dataset_id,
        embedding_id=embedding_id,
        deadline_s=context.config.sampling.time_limit_s,
        cancel=context.stop,
    )
    with context.database.write() as session:
        batches.record_embedding(session, batch_id=context.batch.id, embedding_id=embedding_id)
    crash_point("embed.recorded")
    return n_rows


def _check_embedder(context: RunContext) -> None:
    """Vectors of two embedders are never mixed in one dataset, whatever the settings of this process say."""
    with context.database.write() as session:
        chosen = embedder_pins.ensure_embedder(
            session, watch_id=context.watch.id, embedder=context.embedder.name, now_ms=context.now_ms()
        )
    crash_point("embed.embedder_chosen")
    if chosen != context.embedder.name:
        raise EmbedderChangedError(explain_change(context.watch.name, old=chosen, new=context.embedder.name))


def embed_shard(context: RunContext) -> Outcome:
    """Computes the vectors of a shard; the embedding is uploaded once, after the last shard.

    Returns:
        `Done` with the number of vectors computed.

    Raises:
        WatcherError: the server or the store failed; vectors computed so far are kept.
    """
    _check_embedder(context)
    return Done({"n_computed": _compute_batch_vectors(context)})


def _compute_batch_vectors(context: RunContext) -> int:
    source = VectorSource.of(context)
    n_computed = 0
    for chunk, without in _iter_missing(context):
        computed = source.compute(chunk)
        ids = {sample.file_name: sample.id for sample in chunk}
        reasons = {ids[name]: reason for name, reason in computed.refused.items()}
        reasons |= dict.fromkeys(without, "no vector could be made of its thumbnail")
        with context.database.write() as session:
            vectors.record_vectors(
                session, watch_id=context.watch.id, embedder=context.embedder.name, rows=computed.rows
            )
            lacks.record_lacks(session, lack=Lack.VECTOR, reasons=reasons, now_ms=context.now_ms())
        crash_point("embed.vectors_stored")
        n_computed += len(chunk)
        context.check()
    return n_computed


def _iter_missing(context: RunContext) -> Iterator[tuple[list[Sample], list[int]]]:
    """In chunks: registered samples of the run without a vector of this embedder; ids of those with the zero one.

    Samples of a batch behind another one may have got theirs there, from their thumbnails.
    """
    after = context.first_sample_id - 1
    while True:
        with context.database.read() as session:
            page = samples.load_batch_page(
                session,
                batch_id=context.batch.id,
                after_id=after,
                last_id=context.run.last_sample_id,
                limit=_CHUNK,
            )
            known = vectors.load_vectors(
                session,
                watch_id=context.watch.id,
                embedder=context.embedder.name,
                file_names=[sample.file_name for sample in page],
            )
        if not page:
            return
        missing = [sample for sample in page if sample.remote_id and sample.file_name not in known]
        without = [
            sample.id
            for sample in page
            if sample.remote_id and sample.file_name in known and not known[sample.file_name].any()
        ]
        if missing or without:
            yield missing, without
        after = page[-1].id


def _delete_old_embeddings(context: RunContext) -> None:
    """Every embedding holds the whole dataset, so only the newest are kept; a failure here costs nothing but room."""
    with context.database.read() as session:
        old = batches.load_embeddings_before(
            session, watch_id=context.watch.id, before_batch_id=context.batch.id, keep=_KEPT_EMBEDDINGS
        )
    for batch_id, embedding_id in old:
        try:
            embeddings.delete_embedding(
                context.transport, dataset_id=context.watch.dataset_id, embedding_id=embedding_id
            )
            crash_point("embed.old_deleted")
        except WatcherError as error:
            if not (isinstance(error, ApiException) and error.status == 404):
                _log.info("embedding.not_deleted", embedding_id=embedding_id, reason=str(error))
                return
        with context.database.write() as session:
            batches.forget_embedding(session, batch_id=batch_id)
        crash_point("embed.old_forgotten")
