"""Samples."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from watcher.lightly.wire.base import TimestampMs, Wire

SampleType = Literal["IMAGE", "VIDEO_FRAME", "CROP"]
SamplePartialMode = Literal["ids", "fileNames", "full"]


class SampleMetaData(Wire, frozen=True, kw_only=True):
    """Values computed from the pixels; one array entry a channel.

    `is_corrupted` and `corruption` are snake case on the wire and only ever sent to a server.
    """

    is_corrupted: bool | None = msgspec.field(default=None, name="is_corrupted")
    corruption: str | None = None
    sharpness: float | None = None
    luminance: float | None = None
    size_in_bytes: int | None = None
    snr: float | None = None
    uniform_row_ratio: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    sum_of_squares: list[float] | None = None
    sum_of_values: list[float] | None = None
    shape: list[int] | None = None
    custom: dict[str, Any] | None = None
    dynamic: dict[str, Any] | None = None


class VideoFrameData(Wire, frozen=True, kw_only=True):
    """Where in a video a frame comes from."""

    source_video: str | None = None
    source_video_frame_index: float | None = None
    source_video_frame_timestamp: float | None = None


class SampleCreateRequest(Wire, frozen=True, kw_only=True):
    """A new sample; a name that exists already gives back the present sample's id."""

    file_name: str
    thumb_name: str | None = None
    exif: dict[str, Any] | None = None
    meta_data: SampleMetaData | None = None
    custom_meta_data: dict[str, Any] | None = None
    video_frame_data: VideoFrameData | None = None
    crop_data: dict[str, Any] | None = None


class SampleUpdateRequest(Wire, frozen=True, kw_only=True):
    """Only the fields present are changed."""

    file_name: str | None = None
    thumb_name: str | None = None
    exif: dict[str, Any] | None = None
    meta_data: SampleMetaData | None = None
    custom_meta_data: dict[str, Any] | None = None


class SampleData(Wire, frozen=True, kw_only=True):
    """A sample; `index` is its position in the mapping, which is its bit in every mask."""

    id: str
    type: str
    file_name: str
    dataset_id: str | None = None
    thumb_name: str | None = None
    exif: dict[str, Any] | None = None
    index: int | None = None
    created_at: TimestampMs | None = None
    last_modified_at: TimestampMs | None = None
    meta_data: SampleMetaData | None = None
    custom_meta_data: dict[str, Any] | None = None
    video_frame_data: VideoFrameData | None = None
    crop_data: dict[str, Any] | None = None


class SamplePartialData(Wire, frozen=True, kw_only=True):
    """A sample with the fields of the asked mode: `ids`, `fileNames` or `full`."""

    id: str
    type: str | None = None
    file_name: str | None = None
    dataset_id: str | None = None
    thumb_name: str | None = None
    exif: dict[str, Any] | None = None
    index: int | None = None
    created_at: TimestampMs | None = None
    last_modified_at: TimestampMs | None = None
    meta_data: SampleMetaData | None = None
    custom_meta_data: dict[str, Any] | None = None
    video_frame_data: VideoFrameData | None = None
    crop_data: dict[str, Any] | None = None


class SampleWriteUrls(Wire, frozen=True, kw_only=True):
    """Signed URLs to write the image and its thumbnail."""

    full: str
    thumb: str


class CreateSampleWithWriteUrlsResponse(Wire, frozen=True, kw_only=True):
    """A new sample's id with its write URLs."""

    id: str
    sample_write_urls: SampleWriteUrls
