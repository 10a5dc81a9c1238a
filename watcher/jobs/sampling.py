"""Step `sampling`: picks the samples of the batch that are most worth labelling, different from all picked before.

The tag of the watch's last sampling is the preselected tag of this one, and its name is the batch's natural key: a
repeated run finds the tag instead of making a second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from watcher.domain.bitmask import BitMask
from watcher.domain.budget import compute_allowance, compute_period, describe_budget
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, DatasetError, SamplingError
from watcher.domain.models import BatchNovelty
from watcher.domain.pipeline import Discard, Done, Outcome
from watcher.domain.sampling_rules import BudgetPeriod, Lack
from watcher.jobs.candidates import count_candidates, iter_candidate_names
from watcher.jobs.context import RunContext
from watcher.jobs.embed import renew_embedding
from watcher.jobs.novelty import measure_novelty
from watcher.jobs.ranking import Nearest, rank_picks
from watcher.jobs.sampling_tags import SamplingTags, is_of_this_sampling, iter_names_at, prepare_tags
from watcher.jobs.score_sources import Scores, load_scores
from watcher.lightly.wire.samplings import SamplingConfig, SamplingCreateRequest, StoppingCondition
from watcher.lightly.wire.tags import TagData
from watcher.lightly.workflows.sampling import run_sampling as run_remote_sampling
from watcher.lightly.workflows.scoring import upload_scores
from watcher.logs import get_logger
from watcher.neighbours import NearestSoFar
from watcher.store import batches, lacks, novelty, picks, samples, vectors
from watcher.store.vectors import Vector

_log = get_logger("sampling")

# Most batches are sampled in less; later waits are the server's.
_FIRST_WAIT_S = 0.2
_MOST_TRIES = 3
_MOST_NAMES = 9
# What a server says when somebody changed the dataset between our looking and our asking.
_EMBEDDING_CODES = frozenset({"EMBEDDING_ROW_COUNT_INVALID", "EMBEDDING_UNKNOWN"})
_TAG_CODES = frozenset(
    {
        "TAG_QUERYTAG_NOT_IN_DATASET",
        "TAG_PRESELECTEDTAG_NOT_IN_DATASET",
        "TAG_NO_SCORES_AVAILABLE",
        "TAG_UNKNOWN",
    }
)


def run_sampling(context: RunContext) -> Outcome:
    """Runs the sampling `<watch>-<batch>` on the server and stores what it picked.

    Memory is two masks, one page of names, and the picks; methods that need scores hold the names and scores of the
    candidates besides, about 200 bytes each.

    Returns:
        `Done` with the tag's name and the number of picks, or `Discard` with the reason if the batch is not new
        enough, the budget is spent, or nothing but near-duplicates is left.

    Raises:
        WatcherError: the server failed or refused, or scores are missing.
    """
    rules = context.config.sampling
    measured = measure_novelty(context)
    n_candidates = count_candidates(context, scored=False)
    if not n_candidates:
        return Discard(_explain_nothing(context, measured))
    reason = _find_reason_to_skip(context, measured)
    if reason is not None:
        return Discard(reason)
    allowance = _compute_allowance(context)
    if allowance == 0:
        return Discard(f"the budget of {describe_budget(rules)} is spent: nothing is picked of this batch")
    scores: dict[str, float] = {}
    facts: dict[str, object] = {}
    if rules.method.needs_scores:
        found = _score(context)
        scores = found.values
        if found.unusable:
            key = "n_scores_by_default" if rules.scores.default is not None else "n_without_score"
            facts[key] = len(found.unusable)
        n_candidates = count_candidates(context)
        if not n_candidates:
            return Discard(_explain_nothing(context, measured))
    if rules.uses_vectors and measured.n_without_vector:
        facts["n_without_vector"] = measured.n_without_vector
    prepared, tag = _sample(context, n_candidates, scores, allowance)
    mask = (BitMask.from_hex(tag.bit_mask_data) - prepared.preselected) & prepared.candidates
    names = _load_names_at(context, mask)
    ranked = _rank(context, names, scores, prepared)
    with context.database.write() as session:
        # In whatever state: whoever took the run over meanwhile may have ended the batch.
        picked = samples.load_samples_named(session, watch_id=context.watch.id, file_names=names)
        rows = [(picked[name].id, rank, reason) for rank, (name, reason) in enumerate(ranked, 1)]
        picks.replace_picks(session, batch_id=context.batch.id, rows=rows)
        batches.record_sampling_tag(session, batch_id=context.batch.id, tag_id=tag.id, tag_name=tag.name)
    crash_point("sampling.recorded")
    result: dict[str, object] = {
        "tag": tag.name,
        "n_picks": len(names),
        "n_preselected": len(prepared.preselected),
        "n_candidates": n_candidates,
        **facts,
    }
    if prepared.absent:
        result["absent_tags"] = prepared.absent
    return Done(result)


def _score(context: RunContext) -> Scores:
    """The candidates' scores; without a default, those of which there is none are candidates no longer."""
    names = {name for page in iter_candidate_names(context, scored=False) for name in page}
    scores = load_scores(context, names)
    default = context.config.sampling.scores.default
    with context.database.write() as session:
        # An earlier attempt may have found other ones.
        lacks.forget_batch_lacks(session, lack=Lack.SCORE, batch_id=context.batch.id)
        if default is None:
            found = samples.load_samples_named(
                session, watch_id=context.watch.id, file_names=sorted(scores.unusable)
            )
            reasons = {found[name].id: reason for name, reason in scores.unusable.items() if name in found}
            lacks.record_lacks(session, lack=Lack.SCORE, reasons=reasons, now_ms=context.now_ms())
    crash_point("sampling.scores_noted")
    for name, reason in scores.unusable.items():
        _log.warning("score.unusable", watch=context.watch.name, file_name=name, reason=reason, given=default)
    return scores


def _explain_nothing(context: RunContext, measured: BatchNovelty) -> str:
    """Why there is no candidate."""
    rules = context.config.sampling
    counts = []
    if context.config.novelty.exclude_near_duplicates:
        counts.append((measured.n_near_duplicates, "near-duplicates of known ones"))
    with context.database.read() as session:
        if rules.uses_vectors:
            n = lacks.count_lacks(session, lack=Lack.VECTOR, batch_id=context.batch.id)
            counts.append((n, "without a usable vector"))
        if rules.method.needs_scores:
            n = lacks.count_lacks(session, lack=Lack.SCORE, batch_id=context.batch.id)
            counts.append((n, "without a usable score"))
    for n, what in counts:
        if n >= measured.n_samples:
            return f"all {measured.n_samples} samples are {what}: nothing to pick"
    told = ", ".join(f"{n} are {what}" for n, what in counts if n)
    return f"none of the {measured.n_samples} samples may be picked: {told or 'none is on the server'}"


def _load_names_at(context: RunContext, positions: BitMask) -> list[str]:
    return [name for page in iter_names_at(context, positions) for name in page]


def _find_reason_to_skip(context: RunContext, measured: BatchNovelty) -> str | None:
    least = context.config.novelty.min_ratio
    if least is None or measured.ratio is None or measured.ratio >= least:
        return None
    return f"the novelty of the batch is {measured.ratio:.3f}, below novelty.min_ratio {least:g}: nothing is picked"


def _compute_allowance(context: RunContext) -> int:
    """What the budget leaves for this batch, counted from the store, so that no restart can spend it twice.

    A batch counts for the day or week in which it was cut, whenever it is sampled.
    """
    rules, batch = context.config.sampling, context.batch
    with context.database.read() as session:
        if rules.budget_per is BudgetPeriod.BATCH:
            measured = novelty.load_batch_novelty(session, batch_id=batch.id)
            n_samples, n_picked = measured.n_samples if measured else 0, 0
        else:
            from_ms, to_ms = compute_period(
                at_ms=batch.created_ms, per=rules.budget_per, time_zone=rules.time_zone
            )
            n_samples = novelty.count_measured(
                session, watch_id=context.watch.id, from_ms=from_ms, to_ms=to_ms, up_to_batch_id=batch.id
            )
            n_picked = picks.count_picks_between(
                session, watch_id=context.watch.id, from_ms=from_ms, to_ms=to_ms, but_batch_id=batch.id
            )
    return compute_allowance(rules, n_samples=n_samples, n_picked=n_picked)


def _sample(
    context: RunContext, n_candidates: int, scores: Mapping[str, float], allowance: int
) -> tuple[SamplingTags, TagData]:
    """The tag of the sampling; what somebody changed meanwhile is looked at anew, a few times."""
    embedding_id = context.batch.embedding_id or renew_embedding(context)
    for attempt in range(1, _MOST_TRIES + 1):
        prepared = prepare_tags(context, n_candidates)
        try:
            return prepared, _ask(context, prepared, embedding_id, scores, allowance)
        except SamplingError as error:
            if attempt == _MOST_TRIES:
                raise
            _log.warning("sampling.repeated", watch=context.watch.name, reason=str(error))
        except ApiException as error:
            if attempt == _MOST_TRIES or error.code not in _EMBEDDING_CODES | _TAG_CODES:
                raise
            _log.warning("sampling.repeated", watch=context.watch.name, reason=str(error))
            if error.code in _EMBEDDING_CODES:
                embedding_id = renew_embedding(context)
        context.check()
    raise AssertionError


def _ask(
    context: RunContext,
    prepared: SamplingTags,
    embedding_id: str,
    scores: Mapping[str, float],
    allowance: int,
) -> TagData:
    """Asks for the sampling under the first name that nobody else has: `<watch>-<batch>`, or that with a number."""
    rules = context.config.sampling
    if rules.method.needs_scores:
        upload_scores(
            context.transport,
            dataset_id=context.watch.dataset_id,
            scores_by_type={
                rules.scores.type: [scores[name] for name in _load_names_at(context, prepared.candidates)]
            },
            tag_id=prepared.query_tag_id,
        )
        crash_point("sampling.scores_uploaded")
    key = context.batch.key
    for name in (key, *(f"{key}-{number}" for number in range(2, _MOST_NAMES + 1))):
        tag = run_remote_sampling(
            context.transport,
            dataset_id=context.watch.dataset_id,
            embedding_id=embedding_id,
            request=SamplingCreateRequest(
                new_tag_name=name,
                method=rules.method.value,
                config=SamplingConfig(
                    stopping_condition=StoppingCondition(
                        n_samples=len(prepared.preselected) + allowance,
                        min_distance=-1 if rules.min_distance is None else rules.min_distance,
                    )
                ),
                preselected_tag_id=prepared.preselected_tag_id,
                query_tag_id=prepared.query_tag_id,
                score_type=rules.scores.type if rules.method.needs_scores else None,
            ),
            deadline_s=rules.time_limit_s,
            cancel=context.stop,
            on_progress=lambda _job: context.check(),
            on_wait=context.check,
            adopt_existing=True,
            first_wait_s=_FIRST_WAIT_S,
            present_tags=prepared.present,
        )
        crash_point("sampling.ended")
        if is_of_this_sampling(tag, prepared):
            return tag
        _log.warning("tag.taken", watch=context.watch.name, tag=name)
    raise DatasetError(
        f"the names {key} to {key}-{_MOST_NAMES} are taken by other tags: delete or rename some"
    )


def _rank(
    context: RunContext, names: Sequence[str], scores: Mapping[str, float], prepared: SamplingTags
) -> list[tuple[str, dict[str, Any]]]:
    with context.database.read() as session:
        found = _load_vectors(context, session, names)
    return rank_picks(
        method=context.config.sampling.method,
        names=names,
        vectors=found,
        scores=scores,
        before=_find_nearest_before(context, found, prepared.preselected),
    )


def _find_nearest_before(
    context: RunContext, picked: Mapping[str, Vector], before: BitMask
) -> dict[str, Nearest]:
    """For each pick the nearest of all that was picked or labelled before; memory is one page of the mapping."""
    if not picked or not before:
        return {}
    search = NearestSoFar(np.stack(list(picked.values())))
    nearest: dict[int, str] = {}
    n_seen = 0
    for page in iter_names_at(context, before):
        with context.database.read() as session:
            known = _load_vectors(context, session, page)
        if not known:
            continue
        search.see_block(n_seen, np.stack(list(known.values())))
        page_names = list(known)
        for number in np.flatnonzero(search.rows >= n_seen):
            nearest[int(number)] = page_names[int(search.rows[number]) - n_seen]
        n_seen += len(known)
    distances = search.compute_distances()
    return {
        name: (float(distances[number]), nearest[number])
        for number, name in enumerate(picked)
        if number in nearest
    }


def _load_vectors(context: RunContext, session: Session, names: Sequence[str]) -> dict[str, Vector]:
    """Those that can be compared; a zero vector stands for none."""
    found = vectors.load_vectors(
        session, watch_id=context.watch.id, embedder=context.embedder.name, file_names=names
    )
    return {name: vector for name, vector in found.items() if vector.any()}
