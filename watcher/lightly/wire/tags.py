"""Tags: named sets of samples."""

from __future__ import annotations

from typing import Any, Literal

from watcher.lightly.wire.base import BitMaskData, ObjectId, TagName, TimestampMs, Wire
from watcher.lightly.wire.datasets import ImageType

TagCreator = Literal[
    "UNKNOWN",
    "USER_WEBAPP",
    "USER_PIP",
    "USER_PIP_LIGHTLY_MAGIC",
    "USER_WORKER",
    "SAMPLER_ACTIVE_LEARNING",
    "SAMPLER_CORAL",
    "SAMPLER_CORESET",
    "SAMPLER_RANDOM",
]
TagArithmeticsOperation = Literal["UNION", "INTERSECTION", "DIFFERENCE"]
INITIAL_TAG_NAME = "initial-tag"


class InitialTagCreateRequest(Wire, frozen=True, kw_only=True):
    """Covers all present samples; without a name it is called `initial-tag`."""

    img_type: ImageType
    name: TagName | None = None
    creator: TagCreator | None = None
    run_id: ObjectId | None = None


class TagUpsizeRequest(Wire, frozen=True, kw_only=True):
    """Extends all tags to the present size and names the set of added samples."""

    upsize_tag_name: TagName
    upsize_tag_creator: TagCreator
    run_id: ObjectId | None = None


class TagCreateRequest(Wire, frozen=True, kw_only=True):
    """A tag by its mask."""

    name: TagName
    prev_tag_id: ObjectId
    bit_mask_data: BitMaskData
    tot_size: int
    query_tag_id: ObjectId | None = None
    preselected_tag_id: ObjectId | None = None
    creator: TagCreator | None = None
    changes: dict[str, Any] | None = None
    run_id: ObjectId | None = None


class TagUpdateRequest(Wire, frozen=True, kw_only=True):
    """A new name, and for 1.5.26 also a new mask."""

    name: TagName
    update_creator: TagCreator | None = None
    bit_mask_data: BitMaskData | None = None
    changes: dict[str, Any] | None = None


class TagData(Wire, frozen=True, kw_only=True):
    """A tag. `prev_tag_id` is present even when null; after a sampling it is the preselected or initial tag."""

    id: str
    dataset_id: str
    prev_tag_id: str | None
    name: str
    bit_mask_data: str
    tot_size: int
    created_at: TimestampMs
    query_tag_id: str | None = None
    preselected_tag_id: str | None = None
    last_modified_at: TimestampMs | None = None
    changes: Any = None
    run_id: str | None = None


class TagArithmeticsRequest(Wire, frozen=True, kw_only=True):
    """`DIFFERENCE` is the first tag without the second."""

    tag_id1: ObjectId
    tag_id2: ObjectId
    operation: TagArithmeticsOperation
    new_tag_name: TagName | None = None
    creator: TagCreator | None = None
    run_id: ObjectId | None = None


class TagBitMaskResponse(Wire, frozen=True, kw_only=True):
    """A mask alone."""

    bit_mask_data: str
