"""Tags. The mapping only grows, so a mask stays true for ever; `totSize` is one number for all tags of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from watcher.domain.bitmask import BitMask
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.tags import (
    INITIAL_TAG_NAME,
    InitialTagCreateRequest,
    TagArithmeticsRequest,
    TagBitMaskResponse,
    TagCreateRequest,
    TagData,
    TagUpdateRequest,
    TagUpsizeRequest,
)
from watcher.platform import access
from watcher.platform.calls import (
    Call,
    Operation,
    Stream,
)
from watcher.platform.faults import invalid, taken, unknown
from watcher.platform.secrets import new_id
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import jobs as job_store
from watcher.platform.store import scores as score_store
from watcher.platform.store import tags as store

MAX_NAME = 255
# Masks of a million samples have an eighth of a megabyte each.
_TAGS_AT_ONCE = 50
_NO_TAGS = "the dataset has no initial tag yet: upload samples and create it first"


def decode_mask(data: bytes) -> BitMask:
    """The mask of a row."""
    return BitMask(int.from_bytes(data, "little"))


def to_reply(row: store.TagRow, tags_size: int) -> TagData:
    """The protocol's form of a tag."""
    return TagData(
        id=row.id,
        dataset_id=row.dataset_id,
        prev_tag_id=row.prev_tag_id,
        name=row.name,
        bit_mask_data=decode_mask(row.mask).to_hex(),
        tot_size=tags_size,
        created_at=row.created_at,
        query_tag_id=row.query_tag_id,
        preselected_tag_id=row.preselected_tag_id,
        last_modified_at=row.modified_at,
        run_id=row.run_id,
    )


def get_tags(call: Call) -> Stream:
    """All tags, the initial one first; empty before it was made."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        tag_ids = [row.id for row in store.list_tags(session, dataset_id=dataset.id)]

    def chunks() -> Iterator[bytes]:
        opening = b"["
        for first in range(0, len(tag_ids), _TAGS_AT_ONCE):
            with call.platform.database.read() as session:
                rows = store.load_tags(session, tag_ids=tag_ids[first : first + _TAGS_AT_ONCE])
            for row in rows:
                yield opening + msgspec.json.encode(to_reply(row, dataset.tags_size))
                opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return Stream(chunks())


def get_tag(call: Call) -> TagData:
    """One tag."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        return to_reply(tag, dataset.tags_size)


def check_free_name(session: Session, dataset_id: str, name: str) -> None:
    """Refuses the name of a present tag, or of one that a running sampling will make."""
    if len(name) > MAX_NAME:
        raise invalid(f"the name of a tag has {MAX_NAME} characters at the most")
    if store.is_name_taken(session, dataset_id=dataset_id, name=name) or job_store.is_claimed(
        session, dataset_id=dataset_id, claim_key=build_claim_key(name)
    ):
        raise taken(
            "TAG_NAME_EXISTS", f"there is a tag {name!r} in this dataset already: choose another name"
        )


def build_claim_key(tag_name: str) -> str:
    """What an unfinished sampling holds so that no other makes a tag of that name."""
    return f"tag:{tag_name}"


def insert_tag(
    session: Session,
    *,
    dataset_id: str,
    name: str,
    mask: BitMask,
    creator: str,
    now_ms: int,
    prev_tag_id: str | None,
    values: Mapping[str, Any] | None = None,
) -> str:
    """Adds a tag and gives its id."""
    tag_id = new_id(now_ms / 1000)
    row = {
        "id": tag_id,
        "dataset_id": dataset_id,
        "name": name,
        "is_initial": False,
        "prev_tag_id": prev_tag_id,
        "mask": mask.to_bytes(),
        "n_set": len(mask),
        "creator": creator,
        "created_at": now_ms,
        "modified_at": now_ms,
        **(values or {}),
    }
    store.insert_tag(session, values=row)
    dataset_store.update_dataset(session, dataset_id=dataset_id, values={"modified_at": now_ms})
    return tag_id


def create_initial_tag(call: Call) -> CreateEntityResponse:
    """Covers all present samples and tells what was uploaded of them."""
    request = call.read(InitialTagCreateRequest)
    name = request.name or INITIAL_TAG_NAME
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        if store.load_initial_tag(session, dataset_id=dataset.id) is not None:
            raise taken("TAG_INITIAL_EXISTS", "the dataset has its initial tag already")
        check_free_name(session, dataset.id, name)
        tag_id = insert_tag(
            session,
            dataset_id=dataset.id,
            name=name,
            mask=BitMask.from_length(dataset.n_samples),
            creator=request.creator or "UNKNOWN",
            now_ms=call.now_ms,
            prev_tag_id=None,
            values={"is_initial": True, "run_id": request.run_id},
        )
        values = {"img_type": request.img_type, "tags_size": dataset.n_samples}
        dataset_store.update_dataset(session, dataset_id=dataset.id, values=values)
    return CreateEntityResponse(id=tag_id)


def upsize_tags(call: Call) -> CreateEntityResponse:
    """Widens all tags to the present size and names the added samples; nothing added: the initial tag's id."""
    request = call.read(TagUpsizeRequest)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        initial = store.load_initial_tag(session, dataset_id=dataset.id)
        if initial is None:
            raise unknown("TAG_NO_TAG_IN_DATASET", _NO_TAGS)
        if dataset.n_samples == dataset.tags_size:
            return CreateEntityResponse(id=initial.id)
        check_free_name(session, dataset.id, request.upsize_tag_name)
        everything = BitMask.from_length(dataset.n_samples)
        added = everything - BitMask.from_length(dataset.tags_size)
        widened = {"mask": everything.to_bytes(), "n_set": dataset.n_samples, "modified_at": call.now_ms}
        store.update_tag(session, tag_id=initial.id, values=widened)
        tag_id = insert_tag(
            session,
            dataset_id=dataset.id,
            name=request.upsize_tag_name,
            mask=added,
            creator=request.upsize_tag_creator,
            now_ms=call.now_ms,
            prev_tag_id=initial.id,
            values={"run_id": request.run_id},
        )
        dataset_store.update_dataset(session, dataset_id=dataset.id, values={"tags_size": dataset.n_samples})
    return CreateEntityResponse(id=tag_id)


def _read_mask(text_mask: str, tot_size: int) -> BitMask:
    try:
        mask = BitMask.from_hex(text_mask)
        mask.check_fits(tot_size)
    except ValueError as error:
        raise invalid(str(error), "DATASET_TAG_INVALID") from error
    return mask


def create_tag(call: Call) -> CreateEntityResponse:
    """Adds a tag by its mask."""
    request = call.read(TagCreateRequest)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        if not 0 <= request.tot_size <= dataset.tags_size:
            raise invalid(
                f"totSize is {dataset.tags_size} in this dataset, not {request.tot_size}",
                "DATASET_TAG_INVALID",
            )
        mask = _read_mask(request.bit_mask_data, request.tot_size)
        access.find_tag(session, dataset.id, request.prev_tag_id, code="TAG_PREVTAG_NOT_IN_DATASET")
        for tag_id, code in (
            (request.query_tag_id, "TAG_QUERYTAG_NOT_IN_DATASET"),
            (request.preselected_tag_id, "TAG_PRESELECTEDTAG_NOT_IN_DATASET"),
        ):
            if tag_id is not None:
                access.find_tag(session, dataset.id, tag_id, code=code)
        check_free_name(session, dataset.id, request.name)
        tag_id = insert_tag(
            session,
            dataset_id=dataset.id,
            name=request.name,
            mask=mask,
            creator=request.creator or "UNKNOWN",
            now_ms=call.now_ms,
            prev_tag_id=request.prev_tag_id,
            values={
                "query_tag_id": request.query_tag_id,
                "preselected_tag_id": request.preselected_tag_id,
                "run_id": request.run_id,
            },
        )
    return CreateEntityResponse(id=tag_id)


def update_tag(call: Call) -> None:
    """Renames a tag, or gives it another mask, which ends its scores; the initial tag keeps both."""
    request = call.read(TagUpdateRequest)
    values: dict[str, Any] = {"modified_at": call.now_ms}
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        if request.name != tag.name:
            _refuse_initial(tag, "renamed")
            check_free_name(session, dataset.id, request.name)
            values["name"] = request.name
        if request.bit_mask_data is not None:
            mask = _read_mask(request.bit_mask_data, dataset.tags_size)
            if mask != decode_mask(tag.mask):
                _refuse_initial(tag, "narrowed")
                values.update(mask=mask.to_bytes(), n_set=len(mask), picks=None, distances=None)
                # They belong to the samples of the old mask, by their order alone.
                score_store.delete_tag_scores(session, tag_id=tag.id)
        store.update_tag(session, tag_id=tag.id, values=values)


def _refuse_initial(tag: store.TagRow, what: str) -> None:
    if tag.is_initial:
        raise invalid(f"the initial tag cannot be {what}", "DATASET_TAG_INVALID")


def delete_tag(call: Call) -> None:
    """Removes a tag that is no other's parent."""
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        if tag.is_initial:
            raise taken("TAG_UNDELETABLE_IS_INITIAL", "the initial tag cannot be deleted")
        if store.has_children(session, dataset_id=dataset.id, tag_id=tag.id):
            raise taken(
                "TAG_UNDELETABLE_NOT_A_LEAF", "this tag is the parent of another one: delete that one first"
            )
        store.delete_tag(session, tag_id=tag.id)


def _combine(session: Session, dataset_id: str, request: TagArithmeticsRequest) -> BitMask:
    first, second = (
        decode_mask(access.find_tag(session, dataset_id, tag_id).mask)
        for tag_id in (request.tag_id1, request.tag_id2)
    )
    if request.operation == "UNION":
        return first | second
    return first & second if request.operation == "INTERSECTION" else first - second


def combine_tags(call: Call) -> CreateEntityResponse | TagBitMaskResponse:
    """Combines two tags into a mask, or into a new tag if a name is given."""
    request = call.read(TagArithmeticsRequest)
    if request.new_tag_name is None:
        return combine_masks(call)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        mask = _combine(session, dataset.id, request)
        initial = store.load_initial_tag(session, dataset_id=dataset.id)
        check_free_name(session, dataset.id, request.new_tag_name)
        # A parent is normally a superset: of a union only the initial tag is one.
        parent = initial.id if initial and request.operation == "UNION" else request.tag_id1
        tag_id = insert_tag(
            session,
            dataset_id=dataset.id,
            name=request.new_tag_name,
            mask=mask,
            creator=request.creator or "UNKNOWN",
            now_ms=call.now_ms,
            prev_tag_id=parent,
            values={"run_id": request.run_id},
        )
    return CreateEntityResponse(id=tag_id)


def combine_masks(call: Call) -> TagBitMaskResponse:
    """Combines two tags into a mask; never makes a tag."""
    request = call.read(TagArithmeticsRequest)
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        return TagBitMaskResponse(bit_mask_data=_combine(session, dataset.id, request).to_hex())


_ALL = "/v1/datasets/{datasetId}/tags"
_ONE = _ALL + "/{tagId}"
OPERATIONS = (
    Operation("GET", _ALL, "getTagsByDatasetId", get_tags, "List tags", reply=list[TagData]),
    Operation(
        "POST",
        _ALL,
        "createTagByDatasetId",
        create_tag,
        "Create a tag",
        reply=CreateEntityResponse,
        body=TagCreateRequest,
        status=201,
    ),
    Operation(
        "POST",
        _ALL + "/initial",
        "createInitialTagByDatasetId",
        create_initial_tag,
        "Create the initial tag",
        reply=CreateEntityResponse,
        body=InitialTagCreateRequest,
        status=201,
    ),
    Operation(
        "POST",
        _ALL + "/upsize",
        "upsizeTagsByDatasetId",
        upsize_tags,
        "Extend all tags to the present size",
        reply=CreateEntityResponse,
        body=TagUpsizeRequest,
        status=201,
    ),
    Operation(
        "POST",
        _ALL + "/arithmetics",
        "performTagArithmetics",
        combine_tags,
        "Combine two tags",
        reply=(CreateEntityResponse, TagBitMaskResponse),
        body=TagArithmeticsRequest,
    ),
    Operation(
        "POST",
        _ALL + "/arithmetics/bitmask",
        "performTagArithmeticsBitmask",
        combine_masks,
        "Combine two tags, mask only",
        reply=TagBitMaskResponse,
        body=TagArithmeticsRequest,
    ),
    Operation("GET", _ONE, "getTagByTagId", get_tag, "Read a tag", reply=TagData),
    Operation("PUT", _ONE, "updateTagByTagId", update_tag, "Change a tag", body=TagUpdateRequest),
    Operation("DELETE", _ONE, "deleteTagByTagId", delete_tag, "Delete a tag"),
)
