"""Thumbnails for the pages, fetched through the API, so that no signed URL stands in a page."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from watcher.domain.errors import StoreError, WatcherError
from watcher.domain.models import Sample, Watch
from watcher.lightly import samples as remote_samples
from watcher.ops.bounded import Limited
from watcher.ops.parts import OpsParts
from watcher.store import samples, watches

_MAX_BYTES = 1_000_000


class Thumbnails:
    """`/thumbnails/{sample_id}`: always WEBP, at most a megabyte."""

    def __init__(self, parts: OpsParts, readings: Limited) -> None:
        """Keeps the values; `readings` runs whatever reads the store."""
        self._parts = parts
        self._readings = readings

    def answer(self, request: Request, _login: object) -> Response:
        """The picture; 404 without one, 502 if the server does not give it."""
        try:
            sample, watch = self._readings.run(partial(self._load, request.path_params["sample_id"]))
        except StoreError as error:
            return PlainTextResponse(f"{error}\n", status_code=503)
        if sample is None or watch is None or sample.remote_id is None:
            return PlainTextResponse("there is no such thumbnail\n", status_code=404)
        try:
            url = remote_samples.fetch_read_url(
                self._parts.transport,
                dataset_id=watch.dataset_id,
                sample_id=sample.remote_id,
                kind="thumbnail",
            )
            body = self._parts.transport.read_url_bytes(url, max_bytes=_MAX_BYTES).body
        except WatcherError as error:
            return PlainTextResponse(f"{error}\n", status_code=502)
        if body[:4] != b"RIFF" or body[8:12] != b"WEBP":
            return PlainTextResponse("the thumbnail is no WEBP image\n", status_code=502)
        headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return Response(body, media_type="image/webp", headers=headers)

    def _load(self, sample_id: int) -> tuple[Sample | None, Watch | None]:
        with self._parts.database.read() as session:
            sample = samples.load_sample_by_id(session, sample_id=sample_id)
            if sample is None:
                return None, None
            return sample, watches.load_watch_by_id(session, watch_id=sample.watch_id)
