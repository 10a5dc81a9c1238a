"""Uploading active-learning scores."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from watcher.domain.bitmask import BitMask
from watcher.domain.errors import DatasetError
from watcher.lightly import scores, tags
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.register import find_initial_tag

_SCORE_TYPE = re.compile(r"[a-zA-Z0-9_+=,.@:/-]+")


def upload_scores(
    transport: Transport,
    *,
    dataset_id: str,
    scores_by_type: Mapping[str, Sequence[float]],
    tag_id: str | None = None,
) -> None:
    """Stores one number a sample of a tag, per score type; all are checked before the first is sent.

    Args:
        transport: the way.
        dataset_id: whose tag.
        scores_by_type: numbers in ascending bit order of the tag.
        tag_id: absent: the initial tag.

    Raises:
        DatasetError: no such tag, another number of scores than samples, a number that is not finite, or a name
            that cannot be a score type.
    """
    present = tags.fetch_tags(transport, dataset_id=dataset_id)
    tag = find_initial_tag(present) if tag_id is None else next((t for t in present if t.id == tag_id), None)
    if tag is None:
        raise DatasetError("the dataset has no such tag" if tag_id else "the dataset has no tags yet")
    n_samples = len(BitMask.from_hex(tag.bit_mask_data))
    checked: dict[str, list[float]] = {}
    for score_type, values in scores_by_type.items():
        numbers = [float(value) for value in values]
        if not _SCORE_TYPE.fullmatch(score_type):
            raise DatasetError(f"{score_type[:100]!r} cannot be a score type")
        if len(numbers) != n_samples:
            raise DatasetError(f"{len(numbers)} scores {score_type!r} for a tag of {n_samples} samples")
        if not all(map(math.isfinite, numbers)):
            raise DatasetError(f"the scores {score_type!r} hold a number that is not finite")
        checked[score_type] = numbers
    for score_type, numbers in checked.items():
        scores.create_scores(
            transport, dataset_id=dataset_id, tag_id=tag.id, score_type=score_type, scores=numbers
        )
