"""Datasets."""

from __future__ import annotations

from typing import Literal

from watcher.lightly.wire.base import DatasetName, ObjectId, TimestampMs, TimestampS, Wire

DatasetType = Literal["Images", "Videos", "Crops"]
ImageType = Literal["full", "thumbnail", "meta"]
Creator = Literal["UNKNOWN", "USER_WEBAPP", "USER_PIP", "USER_PIP_LIGHTLY_MAGIC", "USER_WORKER"]


class CreateEntityResponse(Wire, frozen=True, kw_only=True):
    """The id of what was created."""

    id: str


class DatasetCreateRequest(Wire, frozen=True, kw_only=True):
    """1.2.x sends only the name."""

    name: DatasetName
    type: DatasetType = "Images"
    img_type: ImageType | None = None
    creator: Creator | None = None
    parent_dataset_id: ObjectId | None = None


class DatasetUpdateRequest(Wire, frozen=True, kw_only=True):
    """A new name."""

    name: DatasetName


class DatasetData(Wire, frozen=True, kw_only=True):
    """A dataset; `img_type` is absent until the initial tag exists, times are in milliseconds."""

    id: str
    name: str
    user_id: str = ""
    type: str
    n_samples: int
    size_in_bytes: int
    created_at: TimestampMs
    last_modified_at: TimestampMs
    img_type: str | None = None
    access_type: str | None = None
    meta_data_configuration_id: str | None = None
    datasources: list[str] | None = None
    datasource_processed_until_timestamp: TimestampS | None = None
    access_role: str | None = None
    parent_dataset_id: str | None = None
    original_dataset_id: str | None = None


class DatasetDataEnriched(Wire, frozen=True, kw_only=True):
    """A dataset with counts."""

    id: str
    name: str
    user_id: str = ""
    type: str
    n_samples: int
    size_in_bytes: int
    created_at: TimestampMs
    last_modified_at: TimestampMs
    samples: list[str]
    n_tags: int
    n_embeddings: int
    img_type: str | None = None
    access_type: str | None = None
    meta_data_configuration_id: str | None = None
    datasources: list[str] | None = None
    access_role: str | None = None
    parent_dataset_id: str | None = None
    original_dataset_id: str | None = None


class EntityBody(Wire, frozen=True, kw_only=True):
    """A body that names one thing."""

    id: ObjectId


class JobStatusMeta(Wire, frozen=True, kw_only=True):
    """Progress: `processed` of `total`; also the body of `registerDatasetUpload`."""

    total: int
    processed: int
    upload_method: Literal["USER_WEBAPP", "USER_PIP", "INTERNAL"] | None = None
    is_registered: bool | None = None
