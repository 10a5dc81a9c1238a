"""The tags a sampling stands on: what may be picked, and what counts as picked before.

People and programs make, widen and delete tags of the same dataset at any time. So nothing is taken from a tag that the
store knows better: the candidates are the batch's samples by name, the earlier picks are those of the store, and a tag
of a name we want is taken only if it holds what it should.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from watcher.domain.bitmask import BitMask
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ApiException, DatasetError
from watcher.jobs.candidates import iter_candidate_names, load_candidate_ids
from watcher.jobs.context import RunContext
from watcher.lightly import tags
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.wire.tags import TagData
from watcher.lightly.workflows.picking import create_tag_of_mask
from watcher.lightly.workflows.register import find_initial_tag
from watcher.logs import get_logger
from watcher.store import batches, overwrites, picks

_log = get_logger("sampling")

_MOST_NAMES = 9


@dataclass(frozen=True, slots=True)
class SamplingTags:
    """What a sampling is asked with.

    Attributes:
        present: the dataset's tags when the others were found.
        candidates: mask of the query tag.
        query_tag_id: tag of exactly the candidates.
        preselected: what counts as picked before.
        preselected_tag_id: tag of exactly that; None if it is nothing.
        absent: tags that the settings name and the dataset does not have.
    """

    present: list[TagData]
    candidates: BitMask
    query_tag_id: str
    preselected: BitMask
    preselected_tag_id: str | None
    absent: list[str]


def prepare_tags(context: RunContext, n_candidates: int) -> SamplingTags:
    """Finds or makes the two tags; one pass over the mapping's names, of which one page is in memory.

    The query tag is the batch's own where that holds just the candidates, else `<watch>-<batch>-candidates`. The
    preselected tag is that of the last sampling, or one that the settings name, where one of them holds everything;
    else `<watch>-<batch>-known`.

    Args:
        context: the run.
        n_candidates: how many samples of the batch may be picked.

    Raises:
        DatasetError: the dataset has no tags, or not all of the samples.
        ApiException: the server refused a tag.
    """
    dataset_id = context.watch.dataset_id
    present = tags.fetch_tags(context.transport, dataset_id=dataset_id)
    by_id = {tag.id: tag for tag in present}
    initial = find_initial_tag(present)
    if initial is None:
        raise DatasetError(
            "the dataset has no tags any more: its initial tag was deleted; upload makes it anew"
        )
    with context.database.read() as session:
        last_id = batches.load_last_sampling_tag(
            session, watch_id=context.watch.id, but_batch_id=context.batch.id
        )
    last = by_id.get(last_id) if last_id is not None else None
    named = [tag for tag in present if tag.name in context.config.sampling.preselected_tags]
    absent = sorted(set(context.config.sampling.preselected_tags) - {tag.name for tag in named})
    if absent:
        _log.warning("tag.absent", watch=context.watch.name, tags=absent)
    candidates, picked_before, again = _find_positions(
        context, with_picks=last_id is not None and last is None
    )
    if len(candidates) < n_candidates:
        raise DatasetError(_describe_lost(context, n_candidates - len(candidates), n_candidates))
    # What was picked of a sample that was written again since is no more.
    known = (picked_before if last is None else BitMask.from_hex(last.bit_mask_data)) - again
    for tag in named:
        known |= BitMask.from_hex(tag.bit_mask_data)
    own = by_id.get(context.batch.query_tag_id or "")
    query_id = _ensure_tag(
        context,
        present,
        candidates,
        name=f"{context.batch.key}-candidates",
        choices=[own] if own else [],
        initial=initial,
    )
    known_id = None
    if known:
        known_id = _ensure_tag(
            context,
            present,
            known,
            name=f"{context.batch.key}-known",
            choices=[tag for tag in (last, *named) if tag is not None],
            initial=initial,
        )
    return SamplingTags(
        present=present,
        candidates=candidates,
        query_tag_id=query_id,
        preselected=known,
        preselected_tag_id=known_id,
        absent=absent,
    )


def is_of_this_sampling(tag: TagData, prepared: SamplingTags) -> bool:
    """Whether a tag of the name we wanted is the sampling's result, and not one that somebody else made."""
    if tag.query_tag_id is not None and tag.query_tag_id != prepared.query_tag_id:
        return False
    return not BitMask.from_hex(tag.bit_mask_data) - prepared.preselected - prepared.candidates


def iter_names_at(context: RunContext, positions: BitMask) -> Iterator[list[str]]:
    """The names at the positions, a list a page of the mapping; memory is one page of names."""
    wanted = iter(positions)
    position = next(wanted, None)
    offset = 0
    for names in iter_file_names(context.transport, dataset_id=context.watch.dataset_id):
        found = []
        while position is not None and position < offset + len(names):
            found.append(names[position - offset])
            position = next(wanted, None)
        if found:
            yield found
        if position is None:
            return
        offset += len(names)
        context.check()


def _find_positions(context: RunContext, *, with_picks: bool) -> tuple[BitMask, BitMask, BitMask]:
    """Positions of the candidates, if asked for of what earlier batches picked, and of what was written again."""
    found, picked, again = BitMask(), BitMask(), BitMask()
    with context.database.read() as session:
        has_again = overwrites.has_overwritten(session, batch_id=context.batch.id)
    offset = 0
    for page in iter_file_names(context.transport, dataset_id=context.watch.dataset_id):
        wanted = load_candidate_ids(context, page)
        found |= _find_in_page(page, wanted, offset)
        if with_picks:
            with context.database.read() as session:
                earlier = picks.load_picked_names(
                    session, watch_id=context.watch.id, but_batch_id=context.batch.id, file_names=page
                )
            picked |= _find_in_page(page, earlier, offset)
        if has_again:
            with context.database.read() as session:
                rewritten = overwrites.load_overwritten_names(
                    session, batch_id=context.batch.id, file_names=page
                )
            again |= _find_in_page(page, rewritten, offset)
        offset += len(page)
        context.check()
    return found, picked, again


def _find_in_page(page: list[str], wanted: Container[str], offset: int) -> BitMask:
    return BitMask.from_indices(offset + number for number, name in enumerate(page) if name in wanted)


def _describe_lost(context: RunContext, n_lost: int, n_candidates: int) -> str:
    present: set[str] = set()
    for page in iter_file_names(context.transport, dataset_id=context.watch.dataset_id):
        present.update(load_candidate_ids(context, page))
    absent = (name for names in iter_candidate_names(context) for name in names if name not in present)
    return (
        f"{n_lost} of the {n_candidates} samples of {context.batch.key} are no longer in the dataset, "
        f"{next(absent, 'back by now')!r} for one: somebody deleted them there"
    )


def _ensure_tag(
    context: RunContext,
    present: list[TagData],
    mask: BitMask,
    *,
    name: str,
    choices: list[TagData],
    initial: TagData,
) -> str:
    """The id of a tag with this mask: one of the choices, one of the name, or a new one of the name or `<name>-2`..."""
    for tag in choices:
        if BitMask.from_hex(tag.bit_mask_data) == mask:
            return tag.id
    by_name = {tag.name: tag for tag in present}
    for number in range(1, _MOST_NAMES + 1):
        numbered = name if number == 1 else f"{name}-{number}"
        found = by_name.get(numbered)
        if found is None:
            try:
                made = create_tag_of_mask(
                    context.transport,
                    dataset_id=context.watch.dataset_id,
                    name=numbered,
                    mask=mask,
                    tot_size=initial.tot_size,
                    parent_tag_id=initial.id,
                )
                crash_point("sampling.tag_made")
            except ApiException as error:
                if error.code != "TAG_NAME_EXISTS":
                    raise
                found = tags.fetch_tag_by_name(
                    context.transport, dataset_id=context.watch.dataset_id, name=numbered
                )
            else:
                return made.id
        if found is not None and BitMask.from_hex(found.bit_mask_data) == mask:
            return found.id
    raise DatasetError(
        f"the names {name} to {name}-{_MOST_NAMES} are taken by other tags: delete or rename some of them"
    )
