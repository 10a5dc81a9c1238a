"""Step `deliver`: hands the picks of the batch on, each with a fresh read URL."""

from __future__ import annotations

from collections.abc import Iterator

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, StoreUnavailableError
from watcher.domain.models import Delivery, Pick
from watcher.domain.pipeline import Done, Outcome
from watcher.jobs.context import RunContext
from watcher.jobs.read_urls import renew_read_urls
from watcher.lightly import samples as remote_samples
from watcher.sinks.manifest import ManifestLine
from watcher.store import picks


def run_deliver(context: RunContext) -> Outcome:
    """Delivers the picks; a repeated delivery replaces the earlier one.

    Returns:
        `Done` with the place and the number of picks.

    Raises:
        WatcherError: no fresh read URL could be had.
        StoreUnavailableError: the manifest could not be written.
    """
    with context.database.read() as session:
        picked = picks.load_picks(session, batch_id=context.batch.id)
    urls = _fetch_read_urls(context, picked)
    sink = context.parts.sink
    try:
        path = sink.deliver(batch_key=context.batch.key, lines=_iter_lines(context, picked, urls))
    except OSError as error:
        raise StoreUnavailableError(
            f"the manifest of {context.batch.key} cannot be written to {sink.folder}: {error.strerror}"
        ) from error
    delivery = Delivery(
        batch_id=context.batch.id,
        sink=sink.name,
        location=str(path),
        n_picks=len(picked),
        delivered_ms=context.now_ms(),
    )
    with context.database.write() as session:
        picks.record_delivery(session, delivery=delivery)
    crash_point("deliver.recorded")
    return Done({"sink": sink.name, "location": str(path), "n_picks": len(picked)})


def _iter_lines(context: RunContext, picked: list[Pick], urls: dict[str, str]) -> Iterator[ManifestLine]:
    for pick in picked:
        yield ManifestLine(
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


def _fetch_read_urls(context: RunContext, picked: list[Pick]) -> dict[str, str]:
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
