"""The application: routing, tokens, limits, errors."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from watcher.database.engine import build_database
from watcher.domain.clock import Clock
from watcher.domain.errors import StoreError
from watcher.lightly.wire.errors import ApiError
from watcher.logs import get_logger
from watcher.platform import (
    collaboration,
    configurations,
    datasets,
    datasources,
    embeddings,
    exports,
    jobs,
    mappings,
    openapi,
    rawsamples,
    samples,
    sampleurls,
    samplings,
    scores,
    tags,
    tokens,
    transfers,
    versions,
)
from watcher.platform.blobs import BlobStore, FolderBlobs
from watcher.platform.bodies import Chunks, drop_body, read_body
from watcher.platform.calls import Call, Operation, Redirect, Stream
from watcher.platform.context import Platform
from watcher.platform.faults import Fault
from watcher.platform.intake import Intake
from watcher.platform.listings import Listings
from watcher.platform.objects.roles import RoleSessions
from watcher.platform.pages import views
from watcher.platform.recent import Recent
from watcher.platform.secrets import load_keys
from watcher.platform.settings import PlatformConfig
from watcher.platform.store.users import User
from watcher.platform.vault import Vault

_log = get_logger(__name__)
_REQUEST_ID = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9.\-_\[\]:]{1,255}")
_encode = msgspec.json.Encoder().encode
_HEADERS = {
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},  # or the sender could go on as slowly
    429: {"retry-after": "5"},
    503: {"retry-after": "5"},
}
_CODES = {404: "NOT_FOUND", 405: "NOT_IMPLEMENTED"}
_TEXTS = {
    404: "this server has no such call: /openapi.json lists those it has",
    405: "this server does not take this method there: /openapi.json lists the calls it has",
}

OPERATIONS: tuple[Operation, ...] = (
    *versions.OPERATIONS,
    *datasets.OPERATIONS,
    *datasources.OPERATIONS,
    *rawsamples.OPERATIONS,
    *samples.OPERATIONS,
    *sampleurls.OPERATIONS,
    *mappings.OPERATIONS,
    *scores.OPERATIONS,
    *tags.OPERATIONS,
    *exports.OPERATIONS,
    *samplings.OPERATIONS,
    *embeddings.OPERATIONS,
    *jobs.OPERATIONS,
    *configurations.OPERATIONS,
    *collaboration.OPERATIONS,
)


class _Anything(Convertor[str]):
    """The rest of a path; unlike Starlette's `path` also with line breaks."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


def build_platform(config: PlatformConfig, *, clock: Clock) -> Platform:
    """Makes the parts; the schema is neither checked nor changed."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = load_keys(config.data_dir, configured=config.key)
    database = build_database(config.store_url, pool_size=24)
    return Platform(
        config=config,
        clock=clock,
        database=database,
        intake=Intake(database, max_samples=config.max_samples),
        roles=RoleSessions(config, clock),
        keys=keys,
        vault=Vault(keys),
        blobs=_build_blobs(config),
        listings=Listings(config.data_dir / "listings", clock),
        users=Recent(clock, keep_s=5.0),
        sources=Recent(clock, keep_s=2.0),
        cleaning_due=threading.Event(),
        jobs_ready={kind: threading.Event() for kind in jobs.KINDS},
    )


def _build_blobs(config: PlatformConfig) -> BlobStore:
    folder = config.data_dir / "blobs"
    if config.blob_url is None:
        return FolderBlobs(folder)
    from watcher.platform.bucketblobs import BucketBlobs  # noqa: PLC0415 - obstore loads slowly

    return BucketBlobs(config.blob_url, folder)


def build_app(config: PlatformConfig, *, clock: Clock, platform: Platform | None = None) -> ASGIApp:
    """The application over its own or the given parts.

    Args:
        config: the settings.
        clock: reads the time.
        platform: parts made before, so that a server can share them with its worker.
    """
    parts = platform or build_platform(config, clock=clock)
    # One route a path, its methods side by side: Starlette answers 405 by itself then.
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    # Fixed parts go before parameters, so `tags/initial` is no tag id.
    ordered = sorted(by_path.items(), key=lambda item: [part.startswith("{") for part in item[0].split("/")])
    document = openapi.build_document(OPERATIONS)

    async def get_document(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    routes = [
        Route(path, _build_endpoint(parts, methods), methods=list(methods)) for path, methods in ordered
    ]
    routes += views.build_routes(parts)
    routes += [
        Route("/openapi.json", get_document),
        Route("/blobs/{key:anything}", transfers.get_blob, methods=["GET"]),
        Route("/blobs/{key:anything}", transfers.put_blob, methods=["PUT"]),
        Route("/files/{datasetId}/{name:anything}", transfers.get_file, methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            Fault: _answer_fault,
            HTTPException: _answer_http,
            IntegrityError: _answer_conflict,
            StoreError: _answer_store,
            Exception: _answer_bug,
        },
    )
    app.state.platform = parts
    # Around the whole, not as middleware: answers to crashes are made outside of that.
    return Envelope(app)


class Envelope:
    """Outermost: repeated slashes at the start of a path go, browsers may not guess types, and requests have an id.

    The id is the caller's `X-Request-Id` if it is well-formed, else a fresh one; the answer and every log line of the
    request carry it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith("//"):
            scope = {**scope, "path": "/" + scope["path"].lstrip("/")}
        sent = next((value for name, value in scope["headers"] if name == _REQUEST_ID), b"")
        request_id = sent if _WELL_FORMED.fullmatch(sent) else secrets.token_hex(8).encode()
        own = [(b"x-content-type-options", b"nosniff"), (_REQUEST_ID, request_id)]

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *own]
            await send(message)

        with bound_contextvars(request_id=request_id.decode()):
            await self._app(scope, receive, guarded)


def _build_endpoint(
    platform: Platform, methods: dict[str, Operation]
) -> Callable[[Request], Awaitable[Response]]:
    limit = platform.config.max_body_bytes
    idle_s = platform.config.request_timeout_s

    async def endpoint(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        if request.method == "GET":
            return await run_in_threadpool(_answer, platform, operation, request)
        stream = request.stream()
        try:
            # First of all, so that nobody unknown can make the server hold bodies.
            user = None if operation.public else await _find_sender(platform, request)
            body = await read_body(request, stream, limit=limit, idle_s=idle_s)
        except Fault as fault:
            return await _refuse(fault, request, stream)
        return await run_in_threadpool(_answer, platform, operation, request, user, body)

    return endpoint


async def _find_sender(platform: Platform, request: Request) -> User:
    """Whose token the request carries; who came lately is found without another thread."""
    token = _read_token(request)
    user = tokens.find_recent(platform, token)
    if user is None:
        user = await run_in_threadpool(tokens.authenticate, platform, token)
    return user


async def _refuse(fault: Fault, request: Request, stream: Chunks) -> Response:
    """Answers before the body has come to its end, for which it waits some seconds and no longer."""
    answer = build_error(fault.status, fault.code, fault.text)
    if fault.status != 408 and not await drop_body(request, stream):
        answer.headers["connection"] = "close"
    return answer


def _answer(
    platform: Platform, operation: Operation, request: Request, user: User | None = None, body: bytes = b""
) -> Response:
    if user is None and not operation.public:
        user = tokens.authenticate(platform, _read_token(request))
    call = Call(
        platform=platform,
        user=user,
        path=request.path_params,
        query=dict(request.query_params),
        body=body,
        url_base=_find_url_base(platform, request),
        now_s=platform.clock.now_s(),
    )
    reply = operation.handler(call)
    if isinstance(reply, Stream):
        return StreamingResponse(
            _first_early(reply.chunks), status_code=operation.status, media_type=reply.media_type
        )
    if isinstance(reply, Redirect):
        return RedirectResponse(reply.url, status_code=operation.status)
    if operation.reply is None:
        return Response(b"", status_code=operation.status)
    return Response(_encode(reply), status_code=operation.status, media_type="application/json")


def _first_early(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Makes the first piece at once, so that a failure there still becomes an error status."""
    first = next(chunks, b"")

    def all_chunks() -> Iterator[bytes]:
        yield first
        yield from chunks

    return all_chunks()


def _read_token(request: Request) -> str:
    token = request.query_params.get("token", "")
    if token:
        return token
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _find_url_base(platform: Platform, request: Request) -> str:
    if platform.config.url_base is not None:
        return platform.config.url_base.rstrip("/")
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise Fault(422, "MALFORMED_REQUEST", "the Host header is missing or malformed")
    return f"{request.url.scheme}://{host}"


def build_error(status: int, code: str, text: str) -> Response:
    """The protocol's error form; `error` is read by 1.5.26 and `message` by 1.2.x."""
    return Response(
        _encode(ApiError(code=code, error=text, message=text)) if code != "BAD_REQUEST" else _plain(text),
        status_code=status,
        media_type="application/json",
        headers=_HEADERS.get(status),
    )


def _plain(text: str) -> bytes:
    # The shape leaves out defaults, and this code is its default.
    return _encode({"code": "BAD_REQUEST", "error": text, "message": text})


async def _answer_fault(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Fault)
    return build_error(error.status, error.code, error.text)


async def _answer_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "BAD_REQUEST")
    return build_error(error.status_code, code, _TEXTS.get(error.status_code, str(error.detail)))


async def _answer_conflict(_request: Request, _error: Exception) -> Response:
    return build_error(409, "CONFLICT", "another request was faster: look, and repeat if it is still needed")


async def _answer_store(_request: Request, error: Exception) -> Response:
    _log.error("platform.store_failed", error=str(error))
    return build_error(503, "CREATION_FAILED", f"the server's store is not available: {error}")


async def _answer_bug(request: Request, error: Exception) -> Response:
    # The path alone: the query carries the token.
    _log.error("platform.request_crashed", method=request.method, path=request.url.path, exc_info=error)
    return build_error(500, "INTERNAL_ERROR", "the server failed: its log tells why")
