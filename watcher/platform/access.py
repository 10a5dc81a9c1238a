"""Who asks, and what they may see. What is not visible is unknown: its existence is not told."""

from __future__ import annotations

from sqlalchemy.orm import Session

from watcher.platform.calls import Call
from watcher.platform.faults import unknown
from watcher.platform.secrets import is_id
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import embeddings as embedding_store
from watcher.platform.store import samples as sample_store
from watcher.platform.store import tags as tag_store


def find_dataset(session: Session, call: Call, *, lock: bool = False) -> dataset_store.DatasetRow:
    """The dataset of the path; with `lock` other writers of it wait until the end of the transaction."""
    dataset_id = call.path["datasetId"]
    row = (
        dataset_store.load_dataset(session, dataset_id=dataset_id, user_id=call.caller.id, lock=lock)
        if is_id(dataset_id)
        else None
    )
    if row is None:
        raise unknown("DATASET_UNKNOWN", "there is no such dataset for this token")
    return row


def find_tag(
    session: Session, dataset_id: str, tag_id: str, *, code: str = "TAG_UNKNOWN"
) -> tag_store.TagRow:
    """A tag of the dataset."""
    row = tag_store.load_tag(session, dataset_id=dataset_id, tag_id=tag_id) if is_id(tag_id) else None
    if row is None:
        raise unknown(code, f"there is no tag {tag_id[:40]!r} in this dataset")
    return row


def find_sample(session: Session, call: Call, dataset_id: str) -> sample_store.SampleRow:
    """The sample of the path."""
    sample_id = call.path["sampleId"]
    row = (
        sample_store.load_sample(session, dataset_id=dataset_id, sample_id=sample_id)
        if is_id(sample_id)
        else None
    )
    if row is None:
        raise unknown("SAMPLE_UNKNOWN", "there is no such sample in this dataset")
    return row


def find_embedding(
    session: Session, call: Call, dataset_id: str, *, lock: bool = False
) -> embedding_store.EmbeddingRow:
    """The embedding of the path."""
    embedding_id = call.path["embeddingId"]
    row = (
        embedding_store.load_embedding(session, dataset_id=dataset_id, embedding_id=embedding_id, lock=lock)
        if is_id(embedding_id)
        else None
    )
    if row is None:
        raise unknown("EMBEDDING_UNKNOWN", "there is no such embedding in this dataset")
    return row
