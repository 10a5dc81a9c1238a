"""Step `metadata`: custom metadata of the batch's samples, from sidecars, a static mapping or a command.

Outcomes are kept sample by sample. A sample without good metadata goes on with the reason in the ledger, or is
quarantined, as the watch's policy says; it never holds the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, ConfigError
from watcher.domain.models import Sample, Step
from watcher.domain.pipeline import Discard, Done, Outcome
from watcher.domain.step_rules import MetadataPolicy, MetadataRules
from watcher.jobs.context import RunContext
from watcher.jobs.metadata_sources import Found, fetch_metadata
from watcher.lightly import samples as remote_samples
from watcher.lightly.parallel import open_pool
from watcher.lightly.wire.samples import SampleUpdateRequest
from watcher.logs import get_logger
from watcher.store import runs, samples

if TYPE_CHECKING:
    from watcher.jobs.metadata_schema import SchemaValidator

_log = get_logger("metadata")

_PAGE = 200
_COUNTS = ("n_stored", "n_skipped", "n_quarantined")
_LONGEST_REASON = 500
# The server refused this sample's metadata, not the caller or the moment.
_REFUSALS = frozenset({400, 404, 409, 413, 422})


def run_metadata(context: RunContext) -> Outcome:
    """Stores the metadata of every registered sample of the batch; after shards it only adds up what they did.

    Returns:
        `Done` with counts, or `Discard` if the policy took every sample out of the batch.

    Raises:
        ConfigError: the watch has no source of metadata, or its command cannot be started.
        CommandError: the command failed; after some attempts what it left out is taken for missing.
        WatcherError: the server or the store failed.
    """
    # Nothing in the ledger tells a sample with metadata from one without, so the runs of the shards do.
    with context.database.read() as session:
        shards = runs.load_shard_results(session, batch_id=context.batch.id, step=Step.METADATA)
    counts = _add_up(shards) if shards else _store_all(context)
    with context.database.read() as session:
        if samples.count_registered(session, batch_id=context.batch.id) == 0:
            return Discard("no sample of the batch has good metadata")
    return Done(dict(counts))


def metadata_shard(context: RunContext) -> Outcome:
    """Stores the metadata of the registered samples of a shard.

    Returns:
        `Done` with counts.

    Raises:
        WatcherError: as `run_metadata`.
    """
    return Done(dict(_store_all(context)))


def _add_up(results: Iterable[Mapping[str, Any]]) -> Counter[str]:
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    for result in results:
        counts.update({name: int(result[name]) for name in _COUNTS})
    return counts


def _store_all(context: RunContext) -> Counter[str]:
    """Stores the metadata of the run's samples; how many ended how."""
    rules = context.config.metadata
    if rules.source is None:
        raise ConfigError(
            f"the watch {context.watch.name!r} has no source of metadata any more, but this batch was cut while it "
            f"had: set WATCHER_WATCHES__{context.watch.name.upper()}__METADATA__SOURCE until the batch is through"
        )
    checker = MetadataChecker(rules)
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    with open_pool(context.config.upload.workers, name="metadata") as pool:
        for page in _iter_pages(context):
            found = fetch_metadata(context, page, pool)
            checked = [checker.check(found.get(sample.file_name)) for sample in page]
            outcomes = list(pool.map(lambda pair: _store(context, *pair), zip(page, checked, strict=True)))
            for sample, reason in zip(page, outcomes, strict=True):
                if reason is None:
                    counts["n_stored"] += 1
                else:
                    counts[_set_aside(context, sample, reason)] += 1
            context.check()
    return counts


def _iter_pages(context: RunContext) -> Iterator[list[Sample]]:
    after = context.first_sample_id - 1
    while True:
        with context.database.read() as session:
            page = samples.load_batch_page(
                session,
                batch_id=context.batch.id,
                after_id=after,
                last_id=context.run.last_sample_id,
                limit=_PAGE,
            )
        if not page:
            return
        after = page[-1].id
        registered = [sample for sample in page if sample.remote_id is not None]
        if registered:
            yield registered


class MetadataChecker:
    """Whether what a source gave can be stored."""

    def __init__(self, rules: MetadataRules) -> None:
        self._max_bytes = rules.max_bytes
        self._schema: SchemaValidator | None = None
        if rules.schema is not None:
            from watcher.jobs.metadata_schema import SchemaValidator  # noqa: PLC0415 - slow to load

            self._schema = SchemaValidator(rules.schema)

    def check(self, found: Found | None) -> Found:
        """The metadata, or the reason why it is none."""
        if found is None:
            return "its source gave no metadata for it"
        if isinstance(found, str):
            return found
        size = len(msgspec.json.encode(found))
        if size > self._max_bytes:
            return f"its metadata is too large: {size} bytes, {self._max_bytes} allowed"
        fault = None if self._schema is None else self._schema.find_fault(found)
        return found if fault is None else fault


def _store(context: RunContext, sample: Sample, checked: Found) -> str | None:
    """Sends the metadata; gives the reason why that is not possible."""
    context.check()
    if isinstance(checked, str):
        return checked
    assert sample.remote_id is not None
    dataset_id = context.watch.dataset_id
    try:
        if context.run.was_begun_before:
            # An earlier attempt may have got through.
            present = remote_samples.fetch_sample(
                context.transport, dataset_id=dataset_id, sample_id=sample.remote_id
            )
            if present.custom_meta_data == checked:
                return None
        remote_samples.update_sample(
            context.transport,
            dataset_id=dataset_id,
            sample_id=sample.remote_id,
            request=SampleUpdateRequest(custom_meta_data=checked),
        )
        crash_point("metadata.sent")
    except ApiException as error:
        if error.status not in _REFUSALS:
            raise
        return f"its metadata was refused by the server: {error}"
    return None


def _set_aside(context: RunContext, sample: Sample, reason: str) -> str:
    """Keeps the reason as the policy says; returns which count that is."""
    reason, now_ms = reason[:_LONGEST_REASON], context.now_ms()
    quarantine = context.config.metadata.on_error is MetadataPolicy.QUARANTINE
    with context.database.write() as session:
        if quarantine:
            samples.record_quarantined(session, sample_id=sample.id, reason=reason, now_ms=now_ms)
        else:
            samples.record_reason(session, sample_id=sample.id, reason=reason, now_ms=now_ms)
    crash_point("metadata.set_aside")
    event = "sample.quarantined" if quarantine else "sample.without_metadata"
    _log.warning(event, watch=context.watch.name, file_name=sample.file_name, reason=reason)
    return "n_quarantined" if quarantine else "n_skipped"
