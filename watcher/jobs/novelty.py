"""How new a batch is: each sample's distance to its nearest neighbour among everything known.

Known is every vector of the watch's embedder that was there before: of earlier batches, of samples that others put
into the dataset, and of the earlier samples of the batch itself, in the order of their discovery.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from watcher.domain.crash_points import crash_point
from watcher.domain.models import BatchNovelty, Sample, SampleNovelty
from watcher.embedders.descriptor_facts import find_default_distances
from watcher.jobs.context import RunContext
from watcher.jobs.neighbour_search import find_nearest
from watcher.logs import get_logger
from watcher.store import neighbours, novelty, samples, vectors

_log = get_logger("novelty")

# Queries that pass over the known vectors together; their products with a block take some megabytes.
_CHUNK: Final = 2048
# Less than this cannot be told from 0 in float32, and a mean of 0 cannot be divided by.
_LEAST_DISTANCE: Final = 1e-3


def measure_novelty(context: RunContext) -> BatchNovelty:
    """Measures the batch's samples and then the batch; what was measured before stays.

    Goes on where a killed attempt ended. Memory is one chunk of the batch and some blocks of known vectors.

    Raises:
        CancelledError, DeadlineExceededError: see `RunContext.check`.
    """
    batch, embedder = context.batch, context.embedder
    with context.database.read() as session:
        known = novelty.load_batch_novelty(session, batch_id=batch.id)
    if known is not None:
        return known
    _pack_others(context)
    for chunk in _iter_unmeasured(context):
        _measure_chunk(context, chunk)
    _, repeat_distance = _find_distances(context)
    with context.database.write() as session:
        measured = novelty.record_batch_novelty(
            session,
            batch_id=batch.id,
            watch_id=context.watch.id,
            embedder=embedder.name,
            n_history=context.config.novelty.history_batches,
            floor=max(_LEAST_DISTANCE, repeat_distance or 0.0),
            now_ms=context.now_ms(),
        )
    crash_point("novelty.recorded")
    return measured


def _find_distances(context: RunContext) -> tuple[float | None, float | None]:
    """The distances that make a near-duplicate and a repeat; None where nobody said and nothing was measured."""
    rules = context.config.novelty
    near, repeat = find_default_distances(context.embedder.name)
    return (
        near if rules.near_duplicate_distance is None else rules.near_duplicate_distance,
        repeat if rules.repeat_distance is None else rules.repeat_distance,
    )


def _pack_others(context: RunContext) -> None:
    """Packs vectors that are not the batch's: of the time before blocks, of another's samples, of a new embedder."""
    embedder = context.embedder
    while True:
        with context.database.write() as session:
            rows = neighbours.load_unpacked(
                session,
                watch_id=context.watch.id,
                embedder=embedder.name,
                but_batch_id=context.batch.id,
                limit=neighbours.compute_block_rows(embedder.dim),
            )
            if not rows:
                return
            neighbours.pack_vectors(
                session, watch_id=context.watch.id, embedder=embedder.name, dim=embedder.dim, rows=rows
            )
        crash_point("novelty.others_packed")
        context.check()


def _iter_unmeasured(context: RunContext) -> Iterator[list[Sample]]:
    after = 0
    while True:
        with context.database.read() as session:
            page = samples.load_batch_page(session, batch_id=context.batch.id, after_id=after, limit=_CHUNK)
            measured = novelty.load_measured(session, sample_ids=[sample.id for sample in page])
        if not page:
            return
        missing = [sample for sample in page if sample.remote_id and sample.id not in measured]
        if missing:
            yield missing
        after = page[-1].id


def _measure_chunk(context: RunContext, chunk: Sequence[Sample]) -> None:
    embedder = context.embedder
    names = [sample.file_name for sample in chunk]
    with context.database.read() as session:
        found = vectors.load_vectors(
            session, watch_id=context.watch.id, embedder=embedder.name, file_names=names
        )
        packed = neighbours.load_packed_names(
            session, watch_id=context.watch.id, embedder=embedder.name, file_names=names
        )
    present = [sample for sample in chunk if sample.file_name in found and found[sample.file_name].any()]
    queries = np.array([found[sample.file_name] for sample in present], dtype=np.float32).reshape(
        len(present), embedder.dim
    )
    distances, nearest = find_nearest(context, [sample.file_name for sample in present], queries, packed)
    near_at, repeat_at = _find_distances(context)
    measured = {
        sample.id: SampleNovelty(
            sample_id=sample.id,
            distance=float(distance) if np.isfinite(distance) else None,
            nearest=name,
            is_near_duplicate=near_at is not None and bool(distance <= near_at),
            is_repeat=repeat_at is not None and bool(distance <= repeat_at),
        )
        for sample, distance, name in zip(present, distances, nearest, strict=True)
    }
    nothing: dict[str, Any] = {
        "distance": None,
        "nearest": None,
        "is_near_duplicate": False,
        "is_repeat": False,
    }
    with context.database.write() as session:
        novelty.record_sample_novelties(
            session,
            batch_id=context.batch.id,
            rows=[measured.get(s.id) or SampleNovelty(sample_id=s.id, **nothing) for s in chunk],
        )
        neighbours.pack_vectors(
            session,
            watch_id=context.watch.id,
            embedder=embedder.name,
            dim=embedder.dim,
            rows=[(name, found[name]) for name in names if name in found],
        )
    crash_point("novelty.chunk_recorded")
    context.check()
