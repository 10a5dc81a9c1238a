"""What the model server keeps, and how it looks on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from tests.simulation.objects import Datasource
from watcher.domain.bitmask import BitMask


class Refusal(Exception):  # noqa: N818 - an answer
    """An answer that is no success."""

    def __init__(self, status: int, code: str, text: str = "") -> None:
        self.status, self.code, self.text = status, code, text or code
        super().__init__(text)


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class RemoteSample:
    id: str
    name: str
    request: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class RemoteTag:
    id: str
    name: str
    mask: BitMask
    created_ms: int
    prev_id: str | None = None
    preselected_id: str | None = None


@dataclass
class RemoteEmbedding:
    id: str
    name: str
    created_ms: int
    names: list[str] | None = None
    sent_names: list[str] | None = None
    processed_at: float = 0.0


@dataclass
class RemoteJob:
    id: str
    tag_name: str
    ends_at: float
    end: Callable[[], str]
    status: str = "RUNNING"
    result: str = ""


@dataclass
class RemoteDataset:
    """A dataset with all that belongs to it."""

    id: str
    name: str
    datasource: Datasource
    mark_s: int = 0
    told_marks: set[int] = field(default_factory=set)
    samples: list[RemoteSample] = field(default_factory=list)
    tags: list[RemoteTag] = field(default_factory=list)
    tags_size: int = 0
    embeddings: list[RemoteEmbedding] = field(default_factory=list)
    deleted_embeddings: list[RemoteEmbedding] = field(default_factory=list)
    jobs: list[RemoteJob] = field(default_factory=list)

    def find_tag(self, tag_id: str) -> RemoteTag:
        for tag in self.tags:
            if tag.id == tag_id:
                return tag
        raise Refusal(404, "TAG_UNKNOWN")

    def find_embedding(self, embedding_id: str) -> RemoteEmbedding:
        for embedding in self.embeddings:
            if embedding.id == embedding_id:
                return embedding
        raise Refusal(404, "EMBEDDING_UNKNOWN")

    def find_sample(self, sample_id: str) -> RemoteSample:
        for sample in self.samples:
            if sample.id == sample_id:
                return sample
        raise Refusal(404, "SAMPLE_UNKNOWN")


def format_date(seconds: float) -> str:
    """An HTTP date."""
    return formatdate(int(seconds), usegmt=True)


def refuse(refusal: Refusal) -> Answer:
    body = json.dumps({"code": refusal.code, "error": refusal.text, "message": refusal.text}).encode()
    return Answer(refusal.status, body, {"Content-Type": "application/json"})


def show_dataset(dataset: RemoteDataset) -> dict[str, Any]:
    return {
        "id": dataset.id,
        "name": dataset.name,
        "type": "Images",
        "nSamples": len(dataset.samples),
        "sizeInBytes": 0,
        "createdAt": 0,
        "lastModifiedAt": 0,
    }


def show_sample(sample: RemoteSample) -> dict[str, Any]:
    return {"id": sample.id, "type": "Images", "fileName": sample.name}


def show_tag(dataset: RemoteDataset, tag: RemoteTag) -> dict[str, Any]:
    return {
        "id": tag.id,
        "datasetId": dataset.id,
        "prevTagId": tag.prev_id,
        "name": tag.name,
        "bitMaskData": tag.mask.to_hex(),
        "totSize": dataset.tags_size,
        "createdAt": tag.created_ms,
        "preselectedTagId": tag.preselected_id,
    }
