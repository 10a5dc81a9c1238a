"""Tags made on this side: from file names, and at random when there is no embedding to sample by."""

from __future__ import annotations

import random
from collections.abc import Iterable

from watcher.domain.bitmask import BitMask
from watcher.domain.errors import ApiException, DatasetError, UnknownOutcomeError
from watcher.lightly import mappings, tags
from watcher.lightly.transport import Transport
from watcher.lightly.wire.tags import TagCreateRequest, TagData
from watcher.lightly.workflows.register import find_initial_tag


def create_tag_of_names(
    transport: Transport,
    *,
    dataset_id: str,
    name: str,
    file_names: Iterable[str],
    parent_tag_id: str | None = None,
) -> TagData:
    """Makes a tag of the samples with the given names.

    Args:
        transport: the way.
        dataset_id: whose samples.
        name: of the new tag.
        file_names: repeats are harmless.
        parent_tag_id: absent: the initial tag.

    Raises:
        DatasetError: the name is taken or cannot be one, there are no tags yet, or a file name is unknown.
    """
    tags.check_tag_name(name)
    present = tags.fetch_tags(transport, dataset_id=dataset_id)
    initial = _check_present(present, name)
    positions = {
        file_name: position
        for position, file_name in enumerate(mappings.fetch_file_names(transport, dataset_id=dataset_id))
    }
    wanted = dict.fromkeys(file_names)
    unknown = [file_name for file_name in wanted if file_name not in positions]
    if unknown:
        raise DatasetError(
            f"{len(unknown)} of {len(wanted)} file names are not in the dataset, which has {len(positions)} samples; "
            f"the first is {str(unknown[0])[:200]!r}"
        )
    mask = BitMask.from_indices(positions[file_name] for file_name in wanted)
    return create_tag_of_mask(
        transport,
        dataset_id=dataset_id,
        name=name,
        mask=mask,
        tot_size=initial.tot_size,
        parent_tag_id=parent_tag_id or initial.id,
    )


def pick_randomly(
    transport: Transport,
    *,
    dataset_id: str,
    name: str,
    n_samples: float,
    preselected_tag_id: str | None = None,
    query_tag_id: str | None = None,
    rng: random.Random | None = None,
) -> TagData:
    """Makes a tag of randomly picked samples, for datasets without embeddings.

    Args:
        transport: the way.
        dataset_id: whose samples.
        name: of the new tag.
        n_samples: a count that includes the preselected samples, or below 1 a share of all.
        preselected_tag_id: samples that are in the tag anyway.
        query_tag_id: where to pick from; absent: the initial tag.
        rng: source of the picks.

    Raises:
        DatasetError: the name is taken, a tag is unknown, or `n_samples` is no condition to stop at.
    """
    tags.check_tag_name(name)
    present = tags.fetch_tags(transport, dataset_id=dataset_id)
    initial = _check_present(present, name)
    by_id = {tag.id: tag for tag in present}
    for tag_id in (preselected_tag_id, query_tag_id):
        if tag_id is not None and tag_id not in by_id:
            raise DatasetError(f"the dataset has no tag with the id {tag_id[:100]!r}")
    chosen = _read_mask(by_id[preselected_tag_id]) if preselected_tag_id else BitMask()
    pool = _read_mask(by_id[query_tag_id] if query_tag_id else initial) - chosen
    n_wanted = round(n_samples * initial.tot_size) if 0 <= n_samples < 1 else int(n_samples)
    if n_wanted < 1:
        raise DatasetError(f"random sampling needs n_samples, got {n_samples}")
    positions = list(pool)
    n_new = max(0, min(len(positions), n_wanted - len(chosen)))
    picked = (rng or random.SystemRandom()).sample(positions, n_new)
    return create_tag_of_mask(
        transport,
        dataset_id=dataset_id,
        name=name,
        mask=chosen | BitMask.from_indices(picked),
        tot_size=initial.tot_size,
        parent_tag_id=preselected_tag_id or initial.id,
    )


def create_tag_of_mask(
    transport: Transport, *, dataset_id: str, name: str, mask: BitMask, tot_size: int, parent_tag_id: str
) -> TagData:
    """Makes a tag; after an unknown outcome a tag of this name and mask counts as made.

    Raises:
        ApiException: with code TAG_NAME_EXISTS if the name is taken.
        UnknownOutcomeError: it may have been made, and is not to be seen.
    """
    request = TagCreateRequest(
        name=name,
        prev_tag_id=parent_tag_id,
        bit_mask_data=mask.to_hex(),
        tot_size=tot_size,
        creator=transport.creator,
    )
    failure: UnknownOutcomeError | None = None
    for _ in range(2):
        try:
            tag_id = tags.create_tag(transport, dataset_id=dataset_id, request=request)
            return tags.fetch_tag(transport, dataset_id=dataset_id, tag_id=tag_id)
        except UnknownOutcomeError as error:
            failure = error
        except ApiException as error:
            if failure is None or error.code != "TAG_NAME_EXISTS":
                raise
        found = tags.fetch_tag_by_name(transport, dataset_id=dataset_id, name=name)
        if found is not None and _read_mask(found) == mask:
            return found
    raise failure or UnknownOutcomeError("the outcome of making a tag is unknown")


def _check_present(present: list[TagData], name: str) -> TagData:
    """The initial tag, if there are tags and none bears the name."""
    if any(tag.name == name for tag in present):
        raise DatasetError(f"there is a tag {name!r} already: choose another name")
    initial = find_initial_tag(present)
    if initial is None:
        raise DatasetError("the dataset has no tags yet: they are made at the end of an upload")
    return initial


def _read_mask(tag: TagData) -> BitMask:
    try:
        mask = BitMask.from_hex(tag.bit_mask_data)
        mask.check_fits(tag.tot_size)
    except ValueError as error:
        raise DatasetError(f"tag {tag.name!r}: {error}") from None
    return mask
