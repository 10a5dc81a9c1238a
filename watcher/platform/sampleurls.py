"""Signed URLs to read and write the image of a sample and its thumbnail."""

from __future__ import annotations

from watcher.lightly.wire.samples import (
    CreateSampleWithWriteUrlsResponse,
    SampleCreateRequest,
    SampleWriteUrls,
)
from watcher.platform import access, datasources, samples, signing
from watcher.platform.blobs import build_sample_key
from watcher.platform.calls import Call, Operation, Redirect, boolean, choice
from watcher.platform.faults import unknown

KIND = choice("type", "full", "thumbnail")
IS_THUMBNAIL = boolean("isThumbnail", required=True)


def create_sample_with_urls(call: Call) -> CreateSampleWithWriteUrlsResponse:
    """Registers a sample and signs its write URLs."""
    dataset_id, sample_id = samples.create(call)
    return CreateSampleWithWriteUrlsResponse(
        id=sample_id, sample_write_urls=_sign_writes(call, dataset_id, sample_id)
    )


def _sign_writes(call: Call, dataset_id: str, sample_id: str) -> SampleWriteUrls:
    full, thumb = (
        signing.sign_write(call, build_sample_key(dataset_id, sample_id, thumbnail=thumbnail))
        for thumbnail in (False, True)
    )
    return SampleWriteUrls(full=full, thumb=thumb)


def _read_url(call: Call) -> str:
    thumbnail = (KIND.of(call) or "full") == "thumbnail"
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        sample = access.find_sample(session, call, dataset.id)
        source = None if thumbnail else datasources.load_source(call.platform, session, dataset.id)
    key = build_sample_key(dataset.id, sample.id, thumbnail=thumbnail)
    if call.platform.blobs.exists(key):
        return signing.sign_read(call, key)
    if source is not None and source.objects is not None and source.objects.exists(sample.file_name):
        return datasources.sign_reads(call, dataset.id, source, [sample.file_name])[0]
    if thumbnail:
        raise unknown("SAMPLE_THUMBNAME_UNKNOWN", "no thumbnail was uploaded for this sample")
    raise unknown("NOT_FOUND", "no image was uploaded for this sample, and its datasource has none")


def get_read_url(call: Call) -> str:
    """A signed URL of the image or its thumbnail."""
    return _read_url(call)


def redirect_to_image(call: Call) -> Redirect:
    """Leads to the image or its thumbnail."""
    return Redirect(_read_url(call))


def get_write_url(call: Call) -> str:
    """A signed URL to upload the image or its thumbnail."""
    thumbnail = IS_THUMBNAIL.must(call)
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        sample = access.find_sample(session, call, dataset.id)
    return signing.sign_write(call, build_sample_key(dataset.id, sample.id, thumbnail=thumbnail))


def get_write_urls(call: Call) -> SampleWriteUrls:
    """Signed URLs to upload both."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        sample = access.find_sample(session, call, dataset.id)
    return _sign_writes(call, dataset.id, sample.id)


_ALL = "/v1/datasets/{datasetId}/samples"
_ONE = _ALL + "/{sampleId}"
OPERATIONS = (
    Operation(
        "POST",
        _ALL + "/withWriteUrls",
        "createSampleWithWriteUrlsByDatasetId",
        create_sample_with_urls,
        "Register a sample and get its write URLs",
        reply=CreateSampleWithWriteUrlsResponse,
        body=SampleCreateRequest,
        status=201,
    ),
    Operation(
        "GET",
        _ONE + "/readurl",
        "getSampleImageReadUrlById",
        get_read_url,
        "Signed URL to read an image",
        reply=str,
        query=(KIND,),
    ),
    Operation(
        "GET",
        _ONE + "/readurlRedirect",
        "getSampleImageResourceRedirectById",
        redirect_to_image,
        "Redirect to an image",
        status=302,
        query=(KIND,),
    ),
    Operation(
        "GET",
        _ONE + "/writeurl",
        "getSampleImageWriteUrlById",
        get_write_url,
        "Signed URL to write one file",
        reply=str,
        query=(IS_THUMBNAIL,),
    ),
    Operation(
        "GET",
        _ONE + "/writeurls",
        "getSampleImageWriteUrlsById",
        get_write_urls,
        "Signed URLs to write image and thumbnail",
        reply=SampleWriteUrls,
    ),
)
