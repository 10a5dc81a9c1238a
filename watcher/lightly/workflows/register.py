"""Registering samples, writing their files, and the tags that cover them. Repeating any of it is harmless."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

from watcher.domain.errors import ApiException, DatasetError, UnknownOutcomeError
from watcher.lightly import samples, tags
from watcher.lightly.answers import is_missing_endpoint
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import ImageType
from watcher.lightly.wire.samples import SampleCreateRequest, SampleWriteUrls
from watcher.lightly.wire.tags import INITIAL_TAG_NAME, InitialTagCreateRequest, TagData, TagUpsizeRequest

_MAX_TRIES = 3
_CONFLICT_CODES = frozenset({"TAG_INITIAL_EXISTS", "TAG_NAME_EXISTS", "CONFLICT"})


@dataclass(frozen=True, slots=True)
class EnsuredSample:
    """A sample that is registered.

    Attributes:
        sample_id: its id.
        write_urls: where to write its files; None if not asked for.
        created: whether a request of this call registered it; False if it was found there.
    """

    sample_id: str
    write_urls: SampleWriteUrls | None
    created: bool


def ensure_sample(
    transport: Transport,
    *,
    dataset_id: str,
    request: SampleCreateRequest,
    look_up_first: bool,
    with_write_urls: bool = True,
) -> EnsuredSample:
    """Registers a sample unless there is one of its file name.

    One call where the server has `samples/withWriteUrls`, else one for the sample and one for the URLs. After an
    unknown outcome the name is looked up before the request is repeated.

    Args:
        transport: the way.
        dataset_id: where to.
        request: the sample; its file name is its key.
        look_up_first: whether an earlier attempt may have got through, so that the name is looked up to begin with.
        with_write_urls: whether files are to be written.

    Raises:
        UnknownOutcomeError: the outcome stayed unknown, after three tries.
        ApiException: e.g. DATASET_AT_MAX_CAPACITY.
    """
    look_up = look_up_first
    failure: UnknownOutcomeError | None = None
    for _ in range(_MAX_TRIES):
        if look_up:
            found = samples.fetch_sample_by_file_name(
                transport, dataset_id=dataset_id, file_name=request.file_name
            )
            if found is not None:
                urls = _fetch_write_urls(transport, dataset_id, found.id) if with_write_urls else None
                return EnsuredSample(sample_id=found.id, write_urls=urls, created=failure is not None)
        try:
            return _create(transport, dataset_id, request, with_write_urls=with_write_urls)
        except UnknownOutcomeError as error:
            failure = error
            look_up = True
    raise failure or UnknownOutcomeError("the outcome of registering a sample is unknown")


def _create(
    transport: Transport, dataset_id: str, request: SampleCreateRequest, *, with_write_urls: bool
) -> EnsuredSample:
    endpoint = f"POST {samples.WITH_WRITE_URLS_ENDPOINT}"
    if with_write_urls and not transport.lacks(endpoint):
        try:
            made = samples.create_sample_with_write_urls(transport, dataset_id=dataset_id, request=request)
        except ApiException as error:
            if not is_missing_endpoint(error):
                raise
            transport.remember_missing(endpoint)
        else:
            return EnsuredSample(sample_id=made.id, write_urls=made.sample_write_urls, created=True)
    sample_id = samples.create_sample(transport, dataset_id=dataset_id, request=request)
    urls = _fetch_write_urls(transport, dataset_id, sample_id) if with_write_urls else None
    return EnsuredSample(sample_id=sample_id, write_urls=urls, created=True)


def _fetch_write_urls(transport: Transport, dataset_id: str, sample_id: str) -> SampleWriteUrls:
    return samples.fetch_write_urls(transport, dataset_id=dataset_id, sample_id=sample_id)


def put_sample_file(
    transport: Transport,
    *,
    dataset_id: str,
    sample: EnsuredSample,
    kind: Literal["full", "thumb"],
    body: bytes | Callable[[], BinaryIO],
    size: int | None = None,
    datasource_type: str | None = None,
) -> None:
    """Writes the image or the thumbnail of a sample to its URL; a refused URL is renewed once.

    Args:
        transport: the way.
        dataset_id: the sample's dataset.
        sample: what `ensure_sample` gave.
        kind: which of the two files.
        body: the bytes, or what opens the file at its start; opened anew for each try.
        size: length in bytes of an opened file.
        datasource_type: see `build_put_headers`.

    Raises:
        DatasetError: the file has another length than `size`, or `size` is missing.
        ApiException, TransportError: see `signed_urls.put_signed_url`.
    """
    if isinstance(body, bytes):
        content = body
        size = len(content)

        def open_body() -> BinaryIO:
            return BytesIO(content)
    else:
        open_body = body
    if size is None:
        raise DatasetError("a file to upload needs its size")
    urls = sample.write_urls or _fetch_write_urls(transport, dataset_id, sample.sample_id)
    for last_try in (False, True):
        url = urls.full if kind == "full" else urls.thumb
        try:
            headers = build_put_headers(
                url,
                size,
                datasource_type=datasource_type,
                s3_kms_key=os.environ.get("LIGHTLY_S3_SSE_KMS_KEY"),
            )
            transport.put_signed_url(url, open_body, size, headers)
        except ApiException as error:
            if last_try or error.status not in (400, 401, 403):
                raise
            urls = _fetch_write_urls(transport, dataset_id, sample.sample_id)
        else:
            return


def build_put_headers(
    url: str, size: int, *, datasource_type: str | None = None, s3_kms_key: str | None = None
) -> dict[str, str]:
    """Headers that a store wants with a PUT.

    Args:
        url: its host tells Azure and S3 apart from the rest.
        size: of the body, in bytes.
        datasource_type: `AZURE` asks for Azure's headers whatever the host.
        s3_kms_key: what `LIGHTLY_S3_SSE_KMS_KEY` holds: `true` for AES256, else the id of a key.
    """
    host = (urlsplit(url).hostname or "").lower()
    if datasource_type == "AZURE" or host.endswith(".blob.core.windows.net"):
        return {
            "x-ms-blob-type": "BlockBlob",
            "x-ms-original-content-length": str(size),
            "Accept": "*/*",
            "Accept-Encoding": "*",
        }
    if s3_kms_key and host.endswith(".amazonaws.com") and ".s3" in f".{host}":
        if s3_kms_key.lower() == "true":
            return {"x-amz-server-side-encryption": "AES256"}
        return {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": s3_kms_key,
        }
    return {}


def ensure_initial_or_upsize_tag(
    transport: Transport, *, dataset_id: str, img_type: ImageType, upsize_tag_name: str
) -> TagData:
    """Sees to it that the tags cover all samples.

    No tags yet: makes the initial tag. Else, if samples were added since the last time, the tags are upsized under
    the given name. A tag that bears it already is taken as this round's; if it does not reach to the end of the
    dataset - the caller's memory is older than the server's, as after a backup was put back - the tags are upsized
    under the next free name.

    Args:
        transport: the way.
        dataset_id: whose tags.
        img_type: what was uploaded; noted with the initial tag.
        upsize_tag_name: natural key of this round of samples.

    Returns:
        The tag that covers this round: the named one, or the initial tag when that is new or nothing was added.

    Raises:
        DatasetError: no tag may bear this name.
        UnknownOutcomeError: the outcome stayed unknown, after three tries.
        ApiException: the server refused.
    """
    tags.check_tag_name(upsize_tag_name)
    failure: ApiException | UnknownOutcomeError | None = None
    for _ in range(_MAX_TRIES):
        present = tags.fetch_tags(transport, dataset_id=dataset_id)
        named = next((tag for tag in present if tag.name == upsize_tag_name), None)
        initial = find_initial_tag(present)
        if initial is not None and not has_samples_beyond(
            transport, dataset_id=dataset_id, n_covered=max(tag.tot_size for tag in present)
        ):
            return named or initial
        try:
            if initial is None:
                tag_id = tags.create_initial_tag(
                    transport,
                    dataset_id=dataset_id,
                    request=InitialTagCreateRequest(
                        img_type=img_type,
                        creator=transport.creator,
                    ),
                )
            else:
                tag_id = tags.upsize_tags(
                    transport,
                    dataset_id=dataset_id,
                    request=TagUpsizeRequest(
                        upsize_tag_name=_find_free_name(upsize_tag_name, present),
                        upsize_tag_creator=transport.creator,
                    ),
                )
            if named is not None:
                return named
            return tags.fetch_tag(transport, dataset_id=dataset_id, tag_id=tag_id)
        except UnknownOutcomeError as error:
            failure = error
        except ApiException as error:
            if error.code not in _CONFLICT_CODES:
                raise
            failure = error
    raise failure or UnknownOutcomeError("the outcome of making a tag is unknown")


def find_initial_tag(present: list[TagData]) -> TagData | None:
    """The tag called `initial-tag`, else the oldest without parent, else the oldest; None without tags."""
    named = next((tag for tag in present if tag.name == INITIAL_TAG_NAME), None)
    roots = [tag for tag in present if tag.prev_tag_id is None]
    return named or min(roots or present, key=lambda tag: tag.created_at, default=None)


def _find_free_name(name: str, present: Sequence[TagData]) -> str:
    taken = {tag.name for tag in present}
    names = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in names if candidate not in taken)


def has_samples_beyond(transport: Transport, *, dataset_id: str, n_covered: int) -> bool:
    """Whether a dataset has more than `n_covered` samples. One call; of servers that do not page a long one."""
    page = transport.get_json(
        "/v1/datasets/{datasetId}/mappings",
        type=list[str],
        path_params={"datasetId": dataset_id},
        query={"field": "_id", "pageSize": 1, "pageOffset": n_covered},
    )
    # A server that ignores paging answers the whole list.
    return len(page) > (0 if len(page) == 1 else n_covered)
