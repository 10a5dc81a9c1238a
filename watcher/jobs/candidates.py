"""What may be picked of a batch, looked up page by page so that memory does not grow with the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from watcher.domain.sampling_rules import Lack
from watcher.jobs.context import RunContext
from watcher.store import candidates
from watcher.store.candidates import CandidateRules


def count_candidates(context: RunContext, *, scored: bool = True) -> int:
    """How many samples of the batch may be picked; with `scored` off, whether or not they have a score."""
    with context.database.read() as session:
        return candidates.count_candidates(
            session, batch_id=context.batch.id, rules=_build_rules(context, scored=scored)
        )


def load_candidate_ids(context: RunContext, file_names: Sequence[str]) -> dict[str, int]:
    """Ids of those of the names that may be picked, by file name."""
    with context.database.read() as session:
        return candidates.load_candidate_ids(
            session,
            watch_id=context.watch.id,
            batch_id=context.batch.id,
            rules=_build_rules(context),
            file_names=file_names,
        )


def iter_candidate_names(context: RunContext, *, scored: bool = True) -> Iterator[list[str]]:
    """File names of all that `count_candidates` counts, a page at a time, in the order of their discovery."""
    after = 0
    while True:
        with context.database.read() as session:
            page = candidates.load_candidate_page(
                session,
                batch_id=context.batch.id,
                rules=_build_rules(context, scored=scored),
                after_id=after,
            )
        if not page:
            return
        yield [name for _, name in page]
        after = page[-1][0]
        context.check()


def _build_rules(context: RunContext, *, scored: bool = True) -> CandidateRules:
    rules = context.config.sampling
    needs = {Lack.VECTOR} if rules.uses_vectors else set()
    if rules.method.needs_scores and scored:
        needs.add(Lack.SCORE)
    return CandidateRules(
        near_duplicates=not context.config.novelty.exclude_near_duplicates, needs=frozenset(needs)
    )
