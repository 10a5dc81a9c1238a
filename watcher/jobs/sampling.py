"""Step `sampling`: picks the samples of the batch that are most worth labelling, different from all picked before.

The tag of the watch's last sampling is the preselected tag of this one, and its name is the batch's natural key: a
repeated run finds the tag instead of making a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watcher.domain.bitmask import BitMask
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ProtocolError
from watcher.domain.models import SamplingMethod
from watcher.domain.pipeline import Done, Outcome
from watcher.jobs.context import RunContext
from watcher.lightly import tags
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.wire.samplings import SamplingConfig, SamplingCreateRequest, StoppingCondition
from watcher.lightly.workflows.sampling import run_sampling as run_remote_sampling
from watcher.logs import get_logger
from watcher.store import batches, picks, samples, vectors
from watcher.store.vectors import Vector

_log = get_logger("sampling")

# Most batches are sampled in less; later waits are the server's.
_FIRST_WAIT_S = 0.2


def run_sampling(context: RunContext) -> Outcome:
    """Runs the sampling `<watch>-<batch>` on the server and stores what it picked.

    Returns:
        `Done` with the tag's name and the number of picks.

    Raises:
        WatcherError: the server failed or refused.
    """
    batch, rules = context.batch, context.config.sampling
    assert batch.embedding_id is not None
    assert batch.query_tag_id is not None
    dataset_id = context.watch.dataset_id
    with context.database.read() as session:
        before_id = batches.load_last_sampling_tag(session, watch_id=context.watch.id, but_batch_id=batch.id)
    before = BitMask()
    if before_id is not None:
        before = BitMask.from_hex(
            tags.fetch_tag(context.transport, dataset_id=dataset_id, tag_id=before_id).bit_mask_data
        )
    tag = run_remote_sampling(
        context.transport,
        dataset_id=dataset_id,
        embedding_id=batch.embedding_id,
        request=SamplingCreateRequest(
            new_tag_name=batch.key,
            method=rules.method.value,
            config=SamplingConfig(
                stopping_condition=StoppingCondition(
                    n_samples=len(before) + rules.budget,
                    min_distance=-1 if rules.min_distance is None else rules.min_distance,
                )
            ),
            preselected_tag_id=before_id,
            query_tag_id=batch.query_tag_id,
        ),
        deadline_s=rules.time_limit_s,
        cancel=context.stop,
        on_progress=lambda _job: context.check(),
        on_wait=context.check,
        adopt_existing=True,
        first_wait_s=_FIRST_WAIT_S,
    )
    crash_point("sampling.ended")
    picked = BitMask.from_hex(tag.bit_mask_data) - before
    file_names = _find_file_names(context, picked)
    with context.database.write() as session:
        _store_picks(context, session, file_names)
        batches.record_sampling_tag(session, batch_id=batch.id, tag_id=tag.id, tag_name=tag.name)
    crash_point("sampling.recorded")
    return Done({"tag": tag.name, "n_picks": len(file_names), "n_preselected": len(before)})


def _find_file_names(context: RunContext, positions: BitMask) -> list[str]:
    """The names at the positions; memory is one page of names."""
    wanted = iter(positions)
    position = next(wanted, None)
    found: list[str] = []
    offset = 0
    for names in iter_file_names(context.transport, dataset_id=context.watch.dataset_id):
        while position is not None and position < offset + len(names):
            found.append(names[position - offset])
            position = next(wanted, None)
        if position is None:
            return found
        offset += len(names)
    if position is not None:
        raise ProtocolError(f"the tag names position {position}, but the dataset has only {offset} samples")
    return found


def _store_picks(context: RunContext, session: Any, file_names: Sequence[str]) -> None:
    rows = samples.load_samples_named(session, watch_id=context.watch.id, file_names=file_names)
    known = vectors.load_vectors(
        session, watch_id=context.watch.id, embedder=context.embedder.name, file_names=file_names
    )
    method = context.config.sampling.method
    ranked = (
        rank_by_distance([(name, known[name]) for name in file_names if name in known])
        if method is not SamplingMethod.RANDOM
        else [(name, None) for name in file_names]
    )
    stored: list[tuple[int, int, dict[str, Any]]] = []
    for name, distance in ranked:
        if name not in rows:
            _log.warning("pick.unknown", watch=context.watch.name, file_name=name)
            continue
        reason: dict[str, Any] = {"method": method.value}
        if distance is not None:
            reason["distance_to_nearest_earlier_pick_of_batch"] = round(distance, 6)
        stored.append((rows[name].id, len(stored) + 1, reason))
    picks.replace_picks(session, batch_id=context.batch.id, rows=stored)


def rank_by_distance(named: Iterable[tuple[str, Vector]]) -> list[tuple[str, float | None]]:
    """Orders the picks so that any first k of them differ most: greedy farthest point among themselves.

    The protocol hands out picks as a set; this gives them an order that a person with time for k would want. The
    first is the one farthest from the mean. Quadratic in the number of picks of one batch.

    Returns:
        (file name, distance to the nearest one before it; None for the first).
    """
    items = list(named)
    if not items:
        return []
    matrix: NDArray[np.float32] = np.stack([vector for _, vector in items])
    chosen = int(np.argmax(np.linalg.norm(matrix - matrix.mean(axis=0), axis=1)))
    ranked: list[tuple[str, float | None]] = [(items[chosen][0], None)]
    nearest = np.linalg.norm(matrix - matrix[chosen], axis=1)
    left = np.ones(len(items), dtype=bool)
    left[chosen] = False
    while left.any():
        chosen = int(np.argmax(np.where(left, nearest, -1.0)))
        ranked.append((items[chosen][0], float(nearest[chosen])))
        left[chosen] = False
        nearest = np.minimum(nearest, np.linalg.norm(matrix - matrix[chosen], axis=1))
    return ranked
