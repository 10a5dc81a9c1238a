"""Fresh read URLs for samples whose own were refused or grew old: they expire, and objects move."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, TransportError
from watcher.domain.models import Sample
from watcher.jobs.context import WorkContext
from watcher.lightly.workflows.listing import iter_pages
from watcher.store import polls, samples, sidecars

_AHEAD_S = 86_400


def renew_read_urls(context: WorkContext, *, file_names: Collection[str]) -> dict[str, str]:
    """Lists the windows in which the samples were found again, up to the present.

    Unfinished samples on the same pages get their fresh URLs into the ledger too, so one listing serves a whole
    backlog. The end of the listing lies in the future, since an object that was written again moved there.

    Args:
        context: the attempt.
        file_names: whose URLs are wanted; they are in the ledger.

    Returns:
        (file name: URL) of those that the datasource still lists. Cost: one listing from the oldest window on.
    """
    with context.database.read() as session:
        rows = samples.load_samples_named(session, watch_id=context.watch.id, file_names=list(file_names))
    return _list_again(context, found_with=list(rows.values()), wanted=set(file_names))


def renew_sidecar_urls(
    context: WorkContext, *, beside: Sequence[Sample], file_names: Collection[str]
) -> dict[str, str]:
    """The same for sidecars, in the windows in which the samples they lie beside were found."""
    return _list_again(context, found_with=beside, wanted=set(file_names))


def _list_again(context: WorkContext, *, found_with: Sequence[Sample], wanted: set[str]) -> dict[str, str]:
    with context.database.read() as session:
        found_by = [
            polls.load_poll(session, poll_id=poll_id) for poll_id in {row.poll_id for row in found_with}
        ]
    starts = [
        poll.from_s if poll.overlap_from_s is None else poll.overlap_from_s
        for poll in found_by
        if poll is not None
    ]
    is_sidecar = context.config.metadata.is_sidecar
    found: dict[str, str] = {}
    first, last = context.watch.listing.compute_range(
        min(starts, default=0), int(context.parts.clock.now_s()) + _AHEAD_S
    )
    n_pages = 0
    try:
        for page in iter_pages(
            context.transport,
            dataset_id=context.watch.dataset_id,
            from_s=first,
            to_s=last,
            max_pages=context.config.poll.max_pages,
        ):
            n_pages += 1
            context.check()
            listed = [(row.file_name, row.read_url) for row in page.rows]
            with context.database.write() as session:
                samples.refresh_unfinished(session, watch_id=context.watch.id, rows=listed)
                beside = [(name, url) for name, url in listed if name in wanted and is_sidecar(name)]
                sidecars.record_sidecars(session, watch_id=context.watch.id, rows=beside)
            crash_point("read_urls.page_refreshed")
            found.update((name, url) for name, url in listed if name in wanted)
            if len(found) == len(wanted):
                break
    except ApiException as error:
        if not n_pages or error.retryable or error.status in {401, 403}:
            raise
        # Behind the first page the cursor was refused: as in a poll it may have expired, and nothing else is wrong.
        raise TransportError(f"the listing for fresh URLs broke off, and begins anew: {error}") from error
    return found
