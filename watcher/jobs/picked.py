"""The picks of a batch as receivers get them: piece by piece, each with the address that its sink asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from watcher.domain.delivery import ImageReference
from watcher.domain.errors import ApiException, ProtocolError
from watcher.domain.models import Pick
from watcher.jobs.context import DeliveryContext
from watcher.jobs.read_urls import renew_read_urls
from watcher.lightly import samples as remote_samples
from watcher.lightly.answers import is_missing_endpoint
from watcher.lightly.workflows.tag_export import fetch_lasting_urls
from watcher.sinks.base import PickedSample, PickLine
from watcher.store import picks


def iter_chunks(
    context: DeliveryContext, *, reference: ImageReference, size: int, after_rank: int
) -> Iterator[list[PickedSample]]:
    """The picks by rank.

    Args:
        context: the attempt.
        reference: which address stands in `read_url`; empty with `URI`, since the sink makes it of the name.
        size: picks in a piece.
        after_rank: only those behind it.

    Raises:
        WatcherError: no fresh read URL could be had.
    """
    redirects: dict[str, str] | None = None
    while True:
        context.check()
        with context.database.read() as session:
            picked = picks.load_picks_after(session, batch_id=context.batch.id, rank=after_rank, limit=size)
        if not picked:
            return
        if reference is ImageReference.READ_URL:
            urls = fetch_read_urls(context, picked)
        elif reference is ImageReference.REDIRECT:
            if redirects is None:
                redirects = _fetch_redirects(context)
            urls = redirects
        else:
            urls = {}
        yield [PickedSample(pick.sample_id, _build_line(context, pick, urls)) for pick in picked]
        after_rank = picked[-1].rank


def _build_line(context: DeliveryContext, pick: Pick, urls: dict[str, str]) -> PickLine:
    return PickLine(
        file_name=pick.file_name,
        # Empty for a picked object that vanished since: the pick stands, and its absence can be seen.
        read_url=urls.get(pick.file_name, ""),
        watch=context.watch.name,
        dataset_id=context.watch.dataset_id,
        tag=context.batch.sampling_tag_name or context.batch.key,
        rank=pick.rank,
        batch=context.batch.key,
        reason=pick.reason,
    )


def fetch_read_urls(context: DeliveryContext, picked: Sequence[Pick]) -> dict[str, str]:
    """A fresh URL for each pick: the server's for the sample, else from a new listing of the datasource."""
    urls: dict[str, str] = {}
    unserved: list[str] = []
    for pick in picked:
        context.check()
        if pick.remote_id is None:
            # Somebody else registered it; the batch that will find it there has not come yet.
            unserved.append(pick.file_name)
            continue
        try:
            urls[pick.file_name] = remote_samples.fetch_read_url(
                context.transport, dataset_id=context.watch.dataset_id, sample_id=pick.remote_id, kind="full"
            )
        except ApiException as error:
            if error.retryable or error.status in {401, 403}:
                raise
            unserved.append(pick.file_name)
    if unserved:
        urls |= renew_read_urls(context, file_names=unserved)
    return urls


def _fetch_redirects(context: DeliveryContext) -> dict[str, str]:
    """Addresses that never expire, by file name.

    The server exports them for a tag. That of the picks grows with every batch, so the one of the batch's samples is
    asked first. Memory is the larger of the two tags.
    """
    batch = context.batch
    found: dict[str, str] = {}
    with context.database.read() as session:
        n_picks = picks.count_picks(session, batch_id=batch.id)
        names = {
            pick.file_name
            for pick in picks.load_picks_after(session, batch_id=batch.id, rank=0, limit=n_picks)
        }
    for tag_id in (batch.query_tag_id, batch.sampling_tag_id):
        if tag_id is None or names <= found.keys():
            continue
        context.check()
        try:
            pairs = fetch_lasting_urls(
                context.transport, dataset_id=context.watch.dataset_id, tag_id=tag_id, check=context.check
            )
        except ApiException as error:
            if is_missing_endpoint(error):
                raise ProtocolError(
                    "this server exports no addresses that last: set the sink's IMAGE to read-url or uri"
                ) from error
            raise
        found |= {name: url for name, url in pairs if name in names}
    return found
