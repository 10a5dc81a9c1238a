"""Samples and their signed URLs."""

from __future__ import annotations

from typing import Literal

from watcher.domain.errors import ApiException
from watcher.lightly.paging import fetch_all_pages
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.samples import (
    CreateSampleWithWriteUrlsResponse,
    SampleCreateRequest,
    SampleData,
    SamplePartialData,
    SamplePartialMode,
    SampleUpdateRequest,
    SampleWriteUrls,
)

_SAMPLES = "/v1/datasets/{datasetId}/samples"
_SAMPLE = "/v1/datasets/{datasetId}/samples/{sampleId}"
_PARTIAL = f"{_SAMPLES}/partial"
WITH_WRITE_URLS_ENDPOINT = f"{_SAMPLES}/withWriteUrls"
_PAGE_SIZE = 25000


def fetch_samples(
    transport: Transport, *, dataset_id: str, mode: SamplePartialMode = "fileNames"
) -> list[SamplePartialData]:
    """All samples with the fields of `mode`, in pages of 25000.

    Servers of the older generation have no partial list; there the full one is fetched.
    """
    if not transport.lacks(f"GET {_PARTIAL}"):
        try:
            return fetch_all_pages(
                transport,
                _PARTIAL,
                page_type=list[SamplePartialData],
                key=lambda sample: sample.id,
                page_size=_PAGE_SIZE,
                path_params={"datasetId": dataset_id},
                query={"mode": mode},
            )
        except ApiException as error:
            # An older server reads "partial" as the id of a sample: 400 or 404, with a code of its own.
            if error.status not in (400, 404, 405, 501) or error.code == "DATASET_UNKNOWN":
                raise
    samples = transport.get_json(
        _SAMPLES, type=list[SamplePartialData], path_params={"datasetId": dataset_id}
    )
    transport.remember_missing(f"GET {_PARTIAL}")
    return samples


def fetch_sample(transport: Transport, *, dataset_id: str, sample_id: str) -> SampleData:
    """One sample."""
    return transport.get_json(
        _SAMPLE, type=SampleData, path_params={"datasetId": dataset_id, "sampleId": sample_id}
    )


def fetch_sample_by_file_name(transport: Transport, *, dataset_id: str, file_name: str) -> SampleData | None:
    """The sample of exactly this name, or None. The server's filter is not trusted: names are compared here."""
    samples = transport.get_json(
        _SAMPLES,
        type=list[SampleData],
        path_params={"datasetId": dataset_id},
        query={"fileName": file_name},
    )
    return next((sample for sample in samples if sample.file_name == file_name), None)


def create_sample(transport: Transport, *, dataset_id: str, request: SampleCreateRequest) -> str:
    """Registers a sample and gives its id.

    Raises:
        UnknownOutcomeError: look the name up before repeating.
    """
    return transport.send_json(
        "POST", _SAMPLES, type=CreateEntityResponse, path_params={"datasetId": dataset_id}, body=request
    ).id


def create_sample_with_write_urls(
    transport: Transport, *, dataset_id: str, request: SampleCreateRequest
) -> CreateSampleWithWriteUrlsResponse:
    """Registers a sample and gives its id and write URLs: one round trip less than asking for them.

    Raises:
        ApiException: for servers without this endpoint see `answers.is_missing_endpoint`.
        UnknownOutcomeError: look the name up before repeating.
    """
    return transport.send_json(
        "POST",
        WITH_WRITE_URLS_ENDPOINT,
        type=CreateSampleWithWriteUrlsResponse,
        path_params={"datasetId": dataset_id},
        body=request,
    )


def update_sample(
    transport: Transport, *, dataset_id: str, sample_id: str, request: SampleUpdateRequest
) -> None:
    """Changes the fields present in the request."""
    transport.send("PUT", _SAMPLE, path_params={"datasetId": dataset_id, "sampleId": sample_id}, body=request)


def fetch_read_url(
    transport: Transport, *, dataset_id: str, sample_id: str, kind: Literal["full", "thumbnail"] = "full"
) -> str:
    """A signed URL to read the image or its thumbnail."""
    return transport.get_json(
        f"{_SAMPLE}/readurl",
        type=str,
        path_params={"datasetId": dataset_id, "sampleId": sample_id},
        query={"type": kind},
    )


def fetch_write_url(transport: Transport, *, dataset_id: str, sample_id: str, is_thumbnail: bool) -> str:
    """A signed URL to write the image or its thumbnail."""
    return transport.get_json(
        f"{_SAMPLE}/writeurl",
        type=str,
        path_params={"datasetId": dataset_id, "sampleId": sample_id},
        query={"isThumbnail": is_thumbnail},
    )


def fetch_write_urls(transport: Transport, *, dataset_id: str, sample_id: str) -> SampleWriteUrls:
    """Signed URLs to write the image and its thumbnail."""
    return transport.get_json(
        f"{_SAMPLE}/writeurls",
        type=SampleWriteUrls,
        path_params={"datasetId": dataset_id, "sampleId": sample_id},
    )
