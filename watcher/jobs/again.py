"""Samples that go through the pipeline again: the tag by which a sampling finds them."""

from __future__ import annotations

from watcher.domain.bitmask import BitMask
from watcher.domain.crash_points import crash_point
from watcher.jobs.context import RunContext
from watcher.lightly import tags
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.wire.tags import TagCreateRequest, TagData
from watcher.store import overwrites, samples


def ensure_again_tag(context: RunContext, tag: TagData) -> TagData:
    """The tag that holds a batch which has overwritten samples in it; `tag` itself where it has none.

    Such samples are in the dataset already, so the tag of what was added does not cover them. The tag `<key>-again`
    is made of exactly the batch, and looked up by its name before it is made.
    """
    with context.database.read() as session:
        if not overwrites.has_overwritten(session, batch_id=context.batch.id):
            return tag
    dataset_id = context.watch.dataset_id
    name = f"{context.batch.key}-again"
    found = tags.fetch_tag_by_name(context.transport, dataset_id=dataset_id, name=name)
    if found is not None:
        return found
    mask = BitMask.from_indices(_find_positions(context))
    tag_id = tags.create_tag(
        context.transport,
        dataset_id=dataset_id,
        request=TagCreateRequest(
            name=name,
            prev_tag_id=tag.id,
            bit_mask_data=mask.to_hex(),
            tot_size=tag.tot_size,
            creator=context.transport.creator,
        ),
    )
    crash_point("upload.again_tag_made")
    return tags.fetch_tag(context.transport, dataset_id=dataset_id, tag_id=tag_id)


def _find_positions(context: RunContext) -> list[int]:
    wanted: set[str] = set()
    after = 0
    while True:
        with context.database.read() as session:
            page = samples.load_batch_page(session, batch_id=context.batch.id, after_id=after)
        if not page:
            break
        wanted.update(sample.file_name for sample in page if sample.remote_id)
        after = page[-1].id
    positions = []
    offset = 0
    for names in iter_file_names(context.transport, dataset_id=context.watch.dataset_id):
        positions += [offset + place for place, name in enumerate(names) if name in wanted]
        offset += len(names)
    return positions
