"""Signed URLs: bytes go in and out here, without a token.

A signature covers method, object and expiry, so a URL is good for one object, one direction and some minutes. What
was uploaded is never served with a type of its own choosing.
"""

from __future__ import annotations

import asyncio
import re
import secrets as random
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from watcher.platform import datasources
from watcher.platform.blobs import OpenBlob
from watcher.platform.faults import Fault, invalid, too_large, unknown
from watcher.platform.secrets import is_id
from watcher.platform.signing import check_signature
from watcher.platform.store import samples as sample_store

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_SAMPLE_KEY = re.compile(r"([a-f0-9]{24})/(thumb|full)/([a-f0-9]{2})/([a-f0-9]{24})")
_CSV_KEY = re.compile(r"([a-f0-9]{24})/csv/([a-f0-9]{24})")
_SMALL_BYTES = 512 * 1024
_BUFFER_BYTES = 1024 * 1024
MAX_UPLOAD_S = 3600.0
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
CSV_TYPE = "text/csv; charset=utf-8"


def detect_type(head: bytes) -> str | None:
    """The media type of an image by its first bytes; None for everything else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _SIGNATURES if head.startswith(magic)), None)


def build_sample_check(platform: Platform, key: str) -> re.Match[str] | None:
    """The parts of a sample's key if the sample is still there."""
    match = _SAMPLE_KEY.fullmatch(key)
    if match is None:
        return None
    with platform.database.read() as session:
        found = sample_store.has_sample(session, dataset_id=match[1], sample_id=match[4])
    return match if found else None


async def get_blob(request: Request) -> Response:
    """Serves an upload."""
    platform: Platform = request.app.state.platform
    key = request.path_params["key"]
    check_signature(request.query_params, platform, "GET", "blobs", key)
    blob = await run_in_threadpool(platform.blobs.open, key)
    if blob is None:
        raise unknown("NOT_FOUND", "nothing was uploaded there")
    return await _serve(blob, CSV_TYPE if key.endswith(".csv") else None)


async def get_file(request: Request) -> Response:
    """Serves an object, or leads to its store where that signs slowly, for as long as the URL is good."""
    platform: Platform = request.app.state.platform
    dataset_id, name = request.path_params["datasetId"], request.path_params["name"]
    check_signature(request.query_params, platform, "GET", "files", f"{dataset_id}/{name}")
    ttl_s = int(request.query_params["e"]) - int(platform.clock.now_s())
    blob = await run_in_threadpool(_open_file, platform, dataset_id, name, ttl_s)
    if isinstance(blob, str):
        return RedirectResponse(blob, status_code=307, headers={"cache-control": "no-store"})
    if blob is None:
        raise unknown("NOT_FOUND", "the datasource has no such object")
    return await _serve(blob, None)


def _open_file(platform: Platform, dataset_id: str, name: str, ttl_s: int) -> OpenBlob | str | None:
    """The object, or the URL of its store."""
    if not is_id(dataset_id):
        return None
    source = platform.sources.find("files", dataset_id)
    if source is None:
        with platform.database.read() as session:
            source = datasources.load_source(platform, session, dataset_id)
        if source is None:
            return None
        platform.sources.keep(source, "files", dataset_id)
    if source.objects is None:
        return None
    if source.objects.signs_slowly:
        (url,) = source.objects.sign_reads([name], ttl_s=max(1, ttl_s)) or (None,)
        if url is not None:
            return url
    return source.objects.open(name)


async def _serve(blob: OpenBlob, media_type: str | None) -> Response:
    head = await run_in_threadpool(blob.file.read, _SMALL_BYTES)
    kind = media_type or detect_type(head[:16])
    headers = {
        "last-modified": formatdate(blob.modified_s, usegmt=True),
        "etag": f'"{int(blob.modified_s * 1_000_000):x}-{blob.size:x}"',
        "content-length": str(blob.size),
        "cache-control": "private, max-age=300",
    }
    if kind is None or media_type is not None:
        headers["content-disposition"] = "attachment"
    kind = kind or "application/octet-stream"
    if len(head) >= blob.size:
        blob.file.close()
        return Response(head[: blob.size], headers=headers, media_type=kind)

    def chunks() -> Iterator[bytes]:
        with blob.file:
            yield head
            left = blob.size - len(head)
            # A file that grew meanwhile is cut at the announced length.
            while left > 0 and (chunk := blob.file.read(min(_BUFFER_BYTES, left))):
                left -= len(chunk)
                yield chunk

    return StreamingResponse(chunks(), headers=headers, media_type=kind)


def _store_csv(platform: Platform, key: re.Match[str], path: Path, now_ms: int) -> None:
    from watcher.platform import embedding_csv  # noqa: PLC0415 - brings numpy

    embedding_csv.store_upload(platform, dataset_id=key[1], embedding_id=key[2], path=path, now_ms=now_ms)


async def put_blob(request: Request) -> Response:
    """Takes an upload: into a temporary file, checked, then into place as a whole."""
    platform: Platform = request.app.state.platform
    key = request.path_params["key"]
    check_signature(request.query_params, platform, "PUT", "blobs", key)
    csv_key = _CSV_KEY.fullmatch(key)
    if csv_key is None and await run_in_threadpool(build_sample_check, platform, key) is None:
        raise unknown("SAMPLE_UNKNOWN", "the sample of this URL is gone")
    is_thumbnail = "/thumb/" in key
    limit = platform.config.max_thumbnail_bytes if is_thumbnail else platform.config.max_upload_bytes
    path = platform.blobs.build_temp_path(random.token_hex(12))
    try:
        await _receive(request, path, limit, platform.config.request_timeout_s)
        if csv_key is not None:
            now_ms = int(platform.clock.now_s() * 1000)
            await run_in_threadpool(_store_csv, platform, csv_key, path, now_ms)
        else:
            await run_in_threadpool(platform.blobs.put_file, key, path)
    except FileNotFoundError as error:
        # The cleaner takes folders of deleted datasets away, also from under an upload that began before.
        raise unknown("DATASET_UNKNOWN", "the dataset of this URL was deleted meanwhile") from error
    finally:
        await run_in_threadpool(path.unlink, missing_ok=True)
    return Response(status_code=200)


async def _receive(request: Request, path: Path, limit: int, idle_s: float) -> None:
    announced = request.headers.get("content-length")
    if announced is not None and (not announced.isdigit() or int(announced) > limit):
        raise too_large(f"this upload may have {limit} bytes at the most")
    file = await run_in_threadpool(path.open, "xb")
    try:
        received = await _copy(request, file, limit, idle_s)
    finally:
        await run_in_threadpool(file.close)
    if announced is not None and received != int(announced):
        raise invalid(f"{announced} bytes were announced, {received} arrived")
    if received == 0:
        raise invalid("the upload is empty: open the file anew before sending it again")


async def _copy(request: Request, file: BinaryIO, limit: int, idle_s: float) -> int:
    received, buffer = 0, bytearray()
    stream = request.stream()
    try:
        async with asyncio.timeout(MAX_UPLOAD_S):
            while True:
                async with asyncio.timeout(idle_s):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                received += len(chunk)
                if received > limit:
                    raise too_large(f"this upload may have {limit} bytes at the most")
                buffer += chunk
                if len(buffer) >= _BUFFER_BYTES:
                    await run_in_threadpool(file.write, bytes(buffer))
                    buffer.clear()
    except TimeoutError as error:
        raise Fault(408, "BAD_REQUEST", "the upload came too slowly") from error
    except ClientDisconnect as error:
        raise invalid("the upload ended early") from error
    await run_in_threadpool(file.write, bytes(buffer))
    return received
