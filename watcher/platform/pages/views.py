"""The pages' handlers. Every one but the login needs the cookie; whoever has none is sent to the login."""

from __future__ import annotations

import math
import mimetypes
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from watcher.domain.bitmask import BitMask
from watcher.platform import access, datasources, signing, tags, tokens
from watcher.platform.blobs import build_sample_key
from watcher.platform.bodies import read_body
from watcher.platform.calls import Call, integer
from watcher.platform.faults import Fault, unknown
from watcher.platform.pages import session as sessions
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import embeddings as embedding_store
from watcher.platform.store import jobs as job_store
from watcher.platform.store import samples as sample_store
from watcher.platform.store import tags as tag_store
from watcher.platform.store.users import User

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_HERE = Path(__file__).parent
_PAGE = 60
_MAX_FORM_BYTES = 4096
_MAX_JOBS = 200
_STATIC = ("style.css", "scatter.js")
PAGE = integer("page", minimum=1, maximum=10**9)
POSITION = integer("position")
_POLICY = (
    "default-src 'none'; img-src 'self' https: http:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

View = Callable[[jinja2.Environment, Call], Response]


def build_routes(platform: Platform) -> list[Route]:
    """The routes of all pages."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    templates.filters["when"] = _format_ms
    pages: dict[str, View] = {
        "/": show_datasets,
        "/pages/datasets/{datasetId}": show_dataset,
        "/pages/datasets/{datasetId}/tags/{tagId}": show_tag,
        "/pages/datasets/{datasetId}/embeddings/{embeddingId}": show_embedding,
        "/pages/datasets/{datasetId}/embeddings/{embeddingId}/points/{embedding2dId}": get_points,
        "/pages/datasets/{datasetId}/thumbnail": get_thumbnail,
        "/pages/jobs": show_jobs,
    }
    routes = [
        Route(path, _protect(platform, templates, view), methods=["GET"]) for path, view in pages.items()
    ]
    return [
        *routes,
        Route("/login", _build_login(platform, templates), methods=["GET", "POST"]),
        Route("/logout", _log_out, methods=["POST"]),
        Route("/pages/static/{name}", _get_static, methods=["GET"]),
    ]


Templates = jinja2.Environment


def _format_ms(value: int | None) -> str:
    if value is None:
        return ""
    return f"{datetime.fromtimestamp(value // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _protect(
    platform: Platform, templates: Templates, view: View
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_answer, platform, templates, view, request)

    return endpoint


def _answer(platform: Platform, templates: Templates, view: View, request: Request) -> Response:
    user = sessions.read_cookie(platform, request.cookies.get(sessions.COOKIE, ""))
    if user is None:
        return RedirectResponse("/login", status_code=303, headers=_HEADERS)
    # No base: the pages' own addresses are relative, so they fit whatever name the browser knows this server by.
    call = Call(
        platform=platform,
        user=user,
        path=request.path_params,
        query=dict(request.query_params),
        body=b"",
        url_base="",
        now_s=platform.clock.now_s(),
    )
    try:
        return view(templates, call)
    except Fault as fault:
        # Somebody followed an old link: they get a page with a way on, not the form that clients read.
        answer = _render(templates, "fault.html", user, fault=fault)
        answer.status_code = fault.status
        return answer


def _render(templates: Templates, name: str, user: User | None, **values: Any) -> Response:
    html = templates.get_template(name).render(user=user, **values)
    return Response(html, media_type="text/html", headers=_HEADERS)


def _build_login(platform: Platform, templates: Templates) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.method == "GET":
            return _render(templates, "login.html", None, refused=False)
        body = await read_body(
            request, request.stream(), limit=_MAX_FORM_BYTES, idle_s=platform.config.request_timeout_s
        )
        token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        user = await run_in_threadpool(tokens.find_by_token, platform, token)
        if user is None:
            answer = _render(templates, "login.html", None, refused=True)
            answer.status_code = 401
            return answer
        answer = RedirectResponse("/", status_code=303, headers=_HEADERS)
        answer.set_cookie(
            sessions.COOKIE,
            sessions.build_cookie(platform, user),
            max_age=sessions.LIFE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    return endpoint


async def _log_out(_request: Request) -> Response:
    answer = RedirectResponse("/login", status_code=303, headers=_HEADERS)
    answer.delete_cookie(sessions.COOKIE, httponly=True, samesite="strict")
    return answer


async def _get_static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise unknown("NOT_FOUND", "there is no such file")
    kind = mimetypes.guess_type(name)[0]
    return Response(
        (_HERE / "static" / name).read_bytes(), media_type=kind, headers={"cache-control": "max-age=300"}
    )


def show_datasets(templates: Templates, call: Call) -> Response:
    """All datasets that the user may see."""
    with call.platform.database.read() as session:
        rows = dataset_store.load_datasets(
            session, user_id=call.caller.id, scope="all", limit=1000, newest_first=True
        )
    return _render(templates, "datasets.html", call.user, datasets=rows)


def show_dataset(templates: Templates, call: Call) -> Response:
    """A dataset with its tags and embeddings."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        found = tag_store.list_tags(session, dataset_id=dataset.id)
        embeddings = embedding_store.load_embeddings(session, dataset_id=dataset.id)
    names = {tag.id: tag.name for tag in found}
    return _render(
        templates, "dataset.html", call.user, dataset=dataset, tags=found, names=names, embeddings=embeddings
    )


def show_tag(templates: Templates, call: Call) -> Response:
    """A tag as a gallery; a sampling's picks come in the order of picking, those of its parent are marked."""
    from watcher.platform import positions  # noqa: PLC0415 - brings numpy

    page = PAGE.of(call) or 1
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        preselected = (
            tag_store.load_tag(session, dataset_id=dataset.id, tag_id=tag.preselected_tag_id)
            if tag.preselected_tag_id
            else None
        )
        picks, distances = tag_store.load_picks(session, tag_id=tag.id)
    earlier = tags.decode_mask(preselected.mask) if preselected is not None else BitMask()
    order, n_ranked = positions.order_positions(tag.mask, picks)
    ranks = {position: rank for rank, position in enumerate(order[:n_ranked].tolist(), start=1)}
    n_pages = max(1, math.ceil(len(order) / _PAGE))
    page = min(page, n_pages)
    chosen = order[(page - 1) * _PAGE : page * _PAGE]
    gaps = dict(zip(ranks, positions.decode_distances(distances), strict=False))
    entries = [
        {
            "position": row.position,
            "name": row.file_name,
            "url": f"/pages/datasets/{dataset.id}/thumbnail?position={row.position}",
            "is_earlier": row.position in earlier,
            "rank": ranks.get(row.position),
            "distance": gaps.get(row.position),
        }
        for row in _load_rows(call, dataset.id, chosen.tolist())
    ]
    return _render(
        templates,
        "tag.html",
        call.user,
        dataset=dataset,
        tag=tag,
        preselected=preselected,
        entries=entries,
        page=page,
        n_pages=n_pages,
    )


def _load_rows(call: Call, dataset_id: str, positions: list[int]) -> list[sample_store.SampleRow]:
    with call.platform.database.read() as session:
        rows = sample_store.load_samples_at(
            session, dataset_id=dataset_id, positions=positions, columns=("id", "position", "file_name")
        )
    by_position = {row.position: row for row in rows}
    return [by_position[position] for position in positions if position in by_position]


def show_embedding(templates: Templates, call: Call) -> Response:
    """The projections of an embedding as scatter plots."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = access.find_embedding(session, call, dataset.id)
        projections = embedding_store.load_projections(session, embedding_id=row.id)
        found = tag_store.list_tags(session, dataset_id=dataset.id)
    chosen = call.query.get("projection") or (projections[0].id if projections else None)
    tag_id = call.query.get("tag") or (found[-1].id if len(found) > 1 else None)
    return _render(
        templates,
        "embedding.html",
        call.user,
        dataset=dataset,
        embedding=row,
        projections=projections,
        tags=found[1:],
        chosen=chosen,
        tag_id=tag_id,
    )


def get_points(_templates: Templates, call: Call) -> Response:
    """The points: n x 2 float32, then a byte each, 1 for those in the tag of the query."""
    from watcher.platform import positions  # noqa: PLC0415 - brings numpy

    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = access.find_embedding(session, call, dataset.id)
        projection = embedding_store.load_projection(
            session, embedding_id=row.id, projection_id=call.path["embedding2dId"]
        )
        tag_id = call.query.get("tag")
        tag = access.find_tag(session, dataset.id, tag_id) if tag_id else None
    if projection is None:
        raise unknown("EMBEDDING_2D_UNKNOWN", "this embedding has no such projection")
    return Response(
        positions.encode_points(projection.coordinates, None if tag is None else tag.mask),
        media_type="application/octet-stream",
        headers=_HEADERS,
    )


def get_thumbnail(_templates: Templates, call: Call) -> Response:
    """Leads to the thumbnail of a position, or to the picture in the datasource; its name goes in a header."""
    position = POSITION.of(call) or 0
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        source = datasources.load_source(call.platform, session, dataset.id)
    rows = _load_rows(call, dataset.id, [position])
    if not rows:
        raise unknown("SAMPLE_UNKNOWN", "there is no such position")
    key = build_sample_key(dataset.id, rows[0].id, thumbnail=True)
    if call.platform.blobs.exists(key) or source is None or source.objects is None:
        url = signing.sign_read(call, key)
    else:
        url = datasources.sign_reads(call, dataset.id, source, [rows[0].file_name])[0]
    return RedirectResponse(url, status_code=302, headers={**_HEADERS, "x-name": quote(rows[0].file_name)})


def show_jobs(templates: Templates, call: Call) -> Response:
    """The newest jobs of the user."""
    with call.platform.database.read() as session:
        rows = job_store.load_jobs(session, user_id=call.caller.id, limit=_MAX_JOBS)
    return _render(templates, "jobs.html", call.user, jobs=rows)
