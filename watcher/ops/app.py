"""The daemon's HTTP application."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import jinja2
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from watcher import __version__
from watcher.database import check_schema
from watcher.domain.errors import StoreError, WatcherError
from watcher.lightly import samples as remote_samples
from watcher.ops.api import Api
from watcher.ops.bounded import Bounded
from watcher.ops.faults import Fault
from watcher.ops.overview import Overview, load_overview
from watcher.ops.parts import OpsParts, build_json
from watcher.store import SCHEMA, samples, watches

_STORE_LIMIT_S = 2.0
_MAX_THUMBNAIL_BYTES = 1_000_000
_TEMPLATES = Path(__file__).parent / "templates"
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(parts: OpsParts) -> Starlette:
    """The application; its handlers run in threads, since the store is synchronous."""
    pages = _Pages(parts)
    return Starlette(
        routes=[
            Route("/", pages.status),
            Route("/metrics", pages.metrics),
            Route("/health/live", pages.live),
            Route("/health/ready", pages.ready),
            Route("/thumbnails/{sample_id:int}", pages.thumbnail),
            *Api(parts).build_routes(),
        ],
        exception_handlers={HTTPException: _refuse},
    )


def _refuse(request: Request, error: Exception) -> Response:
    """What leads nowhere, in the form of the API below `/api/`, as a line elsewhere."""
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):
        told = "there is no such path: see /api/v1/openapi.json" if error.status_code == 404 else error.detail
        code = {404: "PATH_UNKNOWN", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "REFUSED")
        answer = Fault(error.status_code, code, told).build_answer()
    else:
        answer = PlainTextResponse(f"{error.detail}\n", status_code=error.status_code)
    answer.headers.update(error.headers or {})
    return answer


class _Pages:
    def __init__(self, parts: OpsParts) -> None:
        self._parts = parts
        self._check_store = Bounded(
            lambda: check_schema(parts.database, SCHEMA), limit_s=_STORE_LIMIT_S, what="the store"
        )
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
        )
        environment.filters["moment"] = _format_moment
        environment.filters["span"] = _format_span
        self._template = environment.get_template("status.html")

    def status(self, _request: Request) -> Response:
        try:
            overview = self._load()
        except StoreError as error:
            return PlainTextResponse(
                f"The store cannot be read: {error}\n", status_code=503, headers=_PAGE_HEADERS
            )
        page = self._template.render(
            overview=overview,
            stalled=self._parts.heartbeats.find_stalled(),
            access=self._parts.access.get(),
            version=__version__,
        )
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._parts.registry), headers={"Content-Type": content_type})

    def live(self, _request: Request) -> Response:
        stalled = self._parts.heartbeats.find_stalled()
        if not stalled:
            return build_json({"status": "ok"})
        return build_json(
            {"status": "stalled", "loops": {name: round(s, 1) for name, s in stalled.items()}}, status=503
        )

    def ready(self, _request: Request) -> Response:
        problems: dict[str, str] = {}
        try:
            self._check_store()
        except StoreError as error:
            problems["store"] = str(error)
        if self._parts.database.last_failure is not None:
            problems.setdefault("store", self._parts.database.last_failure)
        access = self._parts.access.get()
        if access.is_refused:
            problems["credentials"] = "the server refuses the token: check LIGHTLY_TOKEN"
        elif access.last_ok_s is None:
            problems["server"] = "no answer of the server yet"
        if problems:
            return build_json(
                {"status": "not ready", "role": self._parts.role(), "problems": problems}, status=503
            )
        return build_json({"status": "ok", "role": self._parts.role()})

    def thumbnail(self, request: Request) -> Response:
        """A sample's thumbnail, fetched through the API, so that no signed URL stands in a page."""
        try:
            with self._parts.database.read() as session:
                sample = samples.load_sample_by_id(session, sample_id=request.path_params["sample_id"])
                watch = (
                    None if sample is None else watches.load_watch_by_id(session, watch_id=sample.watch_id)
                )
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
            body = self._parts.transport.read_url_bytes(url, max_bytes=_MAX_THUMBNAIL_BYTES).body
        except WatcherError as error:
            return PlainTextResponse(f"{error}\n", status_code=502)
        if body[:4] != b"RIFF" or body[8:12] != b"WEBP":
            return PlainTextResponse("the thumbnail is no WEBP image\n", status_code=502)
        headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return Response(body, media_type="image/webp", headers=headers)

    def _load(self) -> Overview:
        return load_overview(
            self._parts.database,
            now_ms=int(self._parts.clock.now_s() * 1000),
            next_polls=self._parts.next_polls(),
        )


def _format_moment(seconds: float | None) -> str:
    return (
        "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def _format_span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
