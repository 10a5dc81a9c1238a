"""What may be picked of a batch, looked up page by page so that memory does not grow with the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from watcher.jobs.context import RunContext
from watcher.store import candidates


def count_candidates(context: RunContext) -> int:
    """How many samples of the batch may be picked."""
    with context.database.read() as session:
        return candidates.count_candidates(
            session, batch_id=context.batch.id, with_near_duplicates=_with_near_duplicates(context)
        )


def load_candidate_ids(context: RunContext, file_names: Sequence[str]) -> dict[str, int]:
    """Ids of those of the names that may be picked, by file name."""
    with context.database.read() as session:
        return candidates.load_candidate_ids(
            session,
            watch_id=context.watch.id,
            batch_id=context.batch.id,
            with_near_duplicates=_with_near_duplicates(context),
            file_names=file_names,
        )


def iter_candidate_names(context: RunContext) -> Iterator[list[str]]:
    """File names of all that may be picked, a page at a time, in the order of their discovery."""
    after = 0
    while True:
        with context.database.read() as session:
            page = candidates.load_candidate_page(
                session,
                batch_id=context.batch.id,
                with_near_duplicates=_with_near_duplicates(context),
                after_id=after,
            )
        if not page:
            return
        yield [name for _, name in page]
        after = page[-1][0]
        context.check()


def _with_near_duplicates(context: RunContext) -> bool:
    return not context.config.novelty.exclude_near_duplicates
