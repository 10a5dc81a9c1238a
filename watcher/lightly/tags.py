"""Tags: named sets of samples."""

from __future__ import annotations

import re

from watcher.domain.errors import DatasetError
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.tags import (
    InitialTagCreateRequest,
    TagArithmeticsRequest,
    TagBitMaskResponse,
    TagCreateRequest,
    TagData,
    TagUpsizeRequest,
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 .:;=@_-]+")
_TAGS = "/v1/datasets/{datasetId}/tags"
_TAG = "/v1/datasets/{datasetId}/tags/{tagId}"


def check_tag_name(name: str) -> None:
    """Raises DatasetError unless a tag may bear this name."""
    if len(name) < 3 or not _NAME.fullmatch(name):
        raise DatasetError(
            f"{name[:100]!r} cannot be the name of a tag: at least 3 characters, a letter or digit first, then "
            "letters, digits, blanks and . : ; = @ _ -"
        )


def fetch_tags(transport: Transport, *, dataset_id: str) -> list[TagData]:
    """All tags in no defined order; none before the initial tag exists. Masks come along: n / 4 bytes a tag."""
    return transport.get_json(_TAGS, type=list[TagData], path_params={"datasetId": dataset_id})


def fetch_tag(transport: Transport, *, dataset_id: str, tag_id: str) -> TagData:
    """One tag."""
    return transport.get_json(_TAG, type=TagData, path_params={"datasetId": dataset_id, "tagId": tag_id})


def fetch_tag_by_name(transport: Transport, *, dataset_id: str, name: str) -> TagData | None:
    """The tag of exactly this name, or None."""
    return next((tag for tag in fetch_tags(transport, dataset_id=dataset_id) if tag.name == name), None)


def create_tag(transport: Transport, *, dataset_id: str, request: TagCreateRequest) -> str:
    """Makes a tag by its mask and gives its id; code TAG_NAME_EXISTS if the name is taken."""
    return _create(transport, _TAGS, dataset_id, request)


def create_initial_tag(transport: Transport, *, dataset_id: str, request: InitialTagCreateRequest) -> str:
    """Makes the tag that covers all samples and gives its id; code TAG_INITIAL_EXISTS if there is one."""
    return _create(transport, f"{_TAGS}/initial", dataset_id, request)


def upsize_tags(transport: Transport, *, dataset_id: str, request: TagUpsizeRequest) -> str:
    """Extends all tags to the present size, names the set of added samples, gives the id of that tag."""
    return _create(transport, f"{_TAGS}/upsize", dataset_id, request)


def delete_tag(transport: Transport, *, dataset_id: str, tag_id: str) -> None:
    """Deletes a tag that no other one descends from."""
    transport.send("DELETE", _TAG, path_params={"datasetId": dataset_id, "tagId": tag_id})


def compute_tag_mask(transport: Transport, *, dataset_id: str, request: TagArithmeticsRequest) -> str:
    """The mask of a union, intersection or difference of two tags, as hexadecimal text; stores nothing."""
    return transport.send_json(
        "POST",
        f"{_TAGS}/arithmetics/bitmask",
        type=TagBitMaskResponse,
        path_params={"datasetId": dataset_id},
        body=request,
        idempotent=True,
    ).bit_mask_data


def fetch_tag_file_names_text(
    transport: Transport, *, dataset_id: str, tag_id: str, name_format: str = "NAME"
) -> str:
    """The names of a tag's samples as the server exports them, one a line."""
    return transport.get_json(
        f"{_TAG}/export/basic/filenames",
        type=str,
        path_params={"datasetId": dataset_id, "tagId": tag_id},
        query={"fileNameFormat": name_format},
    )


def _create(
    transport: Transport,
    path: str,
    dataset_id: str,
    request: TagCreateRequest | InitialTagCreateRequest | TagUpsizeRequest,
) -> str:
    return transport.send_json(
        "POST", path, type=CreateEntityResponse, path_params={"datasetId": dataset_id}, body=request
    ).id
