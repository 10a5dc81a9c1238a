"""Datasources: configuration, listing, the processed-until mark. Times are in whole seconds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from watcher.lightly.wire.base import ObjectId, TimestampS, Wire

DatasourcePurpose = Literal["INPUT_OUTPUT", "INPUT", "LIGHTLY"]
_NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
_KmsKey = Annotated[str, msgspec.Meta(pattern="^arn:aws:kms:[a-zA-Z0-9-]*:[0-9]{12}:key.+$")]


class _Datasource(Wire, tag_field="type", frozen=True, kw_only=True):
    """What every kind has. `purpose` is never sent by 1.2.x; it means INPUT_OUTPUT then."""

    full_path: str
    id: ObjectId | None = None
    purpose: DatasourcePurpose | None = None
    thumb_suffix: str | None = None


class DatasourceLightly(_Datasource, tag="LIGHTLY", frozen=True, kw_only=True):
    """Images are stored by the server itself."""


class DatasourceLocal(_Datasource, tag="LOCAL", frozen=True, kw_only=True):
    """A folder; `full_path` is relative to the server's root, without leading slash or dot parts."""

    web_server_location: Annotated[str, msgspec.Meta(pattern="^https?://.+$")] | None = None


class DatasourceS3(_Datasource, tag="S3", frozen=True, kw_only=True):
    """A bucket read with an access key."""

    s3_region: str
    s3_access_key_id: _NonEmpty
    s3_secret_access_key: _NonEmpty
    s3_server_side_encryption_kms_key: _KmsKey | None = msgspec.field(
        default=None, name="s3ServerSideEncryptionKMSKey"
    )


class DatasourceS3DelegatedAccess(_Datasource, tag="S3DelegatedAccess", frozen=True, kw_only=True):
    """A bucket read by assuming a role."""

    s3_region: str
    s3_external_id: Annotated[str, msgspec.Meta(min_length=10, pattern="^[a-zA-Z0-9_+=,.@:/-]+$")]
    s3_arn: Annotated[str, msgspec.Meta(min_length=12, pattern="^arn:aws:iam::[0-9]{12}:role.+$")] = (
        msgspec.field(name="s3ARN")
    )
    s3_server_side_encryption_kms_key: _KmsKey | None = msgspec.field(
        default=None, name="s3ServerSideEncryptionKMSKey"
    )


class DatasourceGCS(_Datasource, tag="GCS", frozen=True, kw_only=True):
    """A Google Cloud Storage bucket; `gcs_credentials` is the service account's JSON as text."""

    gcs_project_id: _NonEmpty
    gcs_credentials: str


class DatasourceAzure(_Datasource, tag="AZURE", frozen=True, kw_only=True):
    """An Azure Blob container; `account_key` is a key or a SAS token."""

    account_name: _NonEmpty
    account_key: _NonEmpty


class DatasourceOBS(_Datasource, tag="OBS", frozen=True, kw_only=True):
    """An S3-compatible store at an endpoint of its own."""

    obs_endpoint: Annotated[str, msgspec.Meta(pattern="^https?://.+$")]
    obs_access_key_id: _NonEmpty
    obs_secret_access_key: _NonEmpty


Datasource = (
    DatasourceLightly
    | DatasourceLocal
    | DatasourceS3
    | DatasourceS3DelegatedAccess
    | DatasourceGCS
    | DatasourceAzure
    | DatasourceOBS
)


class DatasourceVerifyErrors(Wire, frozen=True, kw_only=True):
    """Why a right is missing."""

    can_read: str | None = None
    can_write: str | None = None
    can_list: str | None = None
    can_overwrite: str | None = None


class DatasourceVerifyData(Wire, frozen=True, kw_only=True):
    """What the server may do in the datasource."""

    can_read: bool
    can_write: bool
    can_list: bool
    can_overwrite: bool = False
    errors: DatasourceVerifyErrors | None = None


class RawSample(Wire, frozen=True, kw_only=True):
    """One object: its path relative to the datasource, and a URL to read it without a token."""

    file_name: str
    read_url: str


class RawSamplesPage(Wire, frozen=True, kw_only=True):
    """One page of a listing. `cursor` is a string on the last page too; `data` may be empty in between."""

    has_more: bool
    cursor: str
    data: list[RawSample]


class DivideAndConquerCursors(Wire, frozen=True, kw_only=True):
    """One cursor a shard; at least one."""

    cursors: list[str]


class ProcessedUntilTimestamp(Wire, frozen=True, kw_only=True):
    """The mark, unix seconds; 0 means that nothing was processed yet."""

    processed_until_timestamp: TimestampS
