"""The daemon's HTTP application: metrics and health, and the control API with the status page."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from watcher.database.schema import check_schema
from watcher.domain.errors import StoreError
from watcher.ops.api import Api
from watcher.ops.bounded import Bounded, Limited
from watcher.ops.faults import Fault
from watcher.ops.pages import Pages
from watcher.ops.parts import OpsParts, build_json
from watcher.store import SCHEMA

_MOST_READINGS = 16
_MOST_CHANGES = 8
_MAY_FOLLOW = " The change may still be carried out: the log tells, and to ask for it again does no harm"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How long the store is waited for.

    Attributes:
        read_s: by a page or an answer of the API.
        change_s: by a change; longer than the wait for the lock of SQLite.
        health_s: by the answer whether this process is ready.
    """

    read_s: float = 5.0
    change_s: float = 20.0
    health_s: float = 2.0


def build_app(
    parts: OpsParts, *, probes: bool = True, control: bool = True, limits: StoreLimits = StoreLimits()
) -> Starlette:
    """The application; its handlers run in threads, since the store is synchronous.

    Args:
        parts: what the handlers need.
        probes: serve metrics and health.
        control: serve the control API and the status page.
        limits: how long the store is waited for.
    """
    routes: list[Route] = []
    if probes:
        routes += _Probes(parts, limits).build_routes()
    if control:
        readings = Limited(limit_s=limits.read_s, most=_MOST_READINGS, what="the store")
        changes = Limited(limit_s=limits.change_s, most=_MOST_CHANGES, what="the store", then=_MAY_FOLLOW)
        api = Api(parts, readings=readings, changes=changes)
        pages = Pages(parts, api, readings=readings, has_probes=probes)
        routes += api.build_routes() + pages.build_routes()
    return Starlette(
        routes=routes, exception_handlers={HTTPException: _refuse, ClientDisconnect: _say_to_nobody}
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


def _say_to_nobody(_request: Request, _error: Exception) -> Response:
    """The client went before its request was whole: no fault of ours, and nobody reads the answer."""
    return PlainTextResponse("the request ended early\n", status_code=400)


class _Probes:
    def __init__(self, parts: OpsParts, limits: StoreLimits) -> None:
        self._parts = parts
        self._check_store = Bounded(
            lambda: check_schema(parts.database, SCHEMA), limit_s=limits.health_s, what="the store"
        )

    def build_routes(self) -> list[Route]:
        return [
            Route("/metrics", self._metrics),
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
        ]

    def _metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._parts.registry), headers={"Content-Type": content_type})

    async def _live(self, _request: Request) -> Response:
        # In the loop itself: threads that wait for a store that hangs do not make this answer late.
        stalled = self._parts.heartbeats.find_stalled()
        if not stalled:
            return build_json({"status": "ok"})
        return build_json(
            {"status": "stalled", "loops": {name: round(s, 1) for name, s in stalled.items()}}, status=503
        )

    def _ready(self, _request: Request) -> Response:
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
