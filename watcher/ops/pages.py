"""The status page: overview, one watch, one file's life, the audit log, and with a login the changes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from watcher import __version__
from watcher.domain.errors import StoreError, WatcherError
from watcher.ops.api import Api, read_body
from watcher.ops.arrivals import Arrivals
from watcher.ops.bounded import Limited
from watcher.ops.changes import find_watch
from watcher.ops.faults import Fault
from watcher.ops.formats import format_moment, format_number, format_span
from watcher.ops.life import load_lives
from watcher.ops.operations import OPERATIONS, ChangeRequest, DropRequest, ReplayRequest
from watcher.ops.overview import load_overview
from watcher.ops.parts import OpsParts
from watcher.ops.sessions import COOKIE, LIFE_S, NOTICE_COOKIE, NOTICE_LIFE_S, Login, Sessions
from watcher.ops.summary import load_summary
from watcher.ops.thumbnails import Thumbnails
from watcher.store import control
from watcher.store.leadership import load_leader

_HERE = Path(__file__).parent
_STATIC = {"status.css": "text/css; charset=utf-8", "status.js": "text/javascript; charset=utf-8"}
_SHOWN_IN_FULL = 3
_LOG_ENTRIES = 100
_MOST_NAME_CHARACTERS = 4096
_VERBS = frozenset({"poll", "audit", "pause", "resume", "replay", "drop"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[Request, Login | None], Response]


class Pages:
    """Server-rendered, read without script; the script only fetches the same page again."""

    def __init__(self, parts: OpsParts, api: Api, *, readings: Limited, has_probes: bool) -> None:
        """Keeps the values; `readings` runs whatever reads the store."""
        self._parts = parts
        self._readings = readings
        self._api = api
        self._has_probes = has_probes
        self._arrivals = Arrivals()
        self._sessions = Sessions(parts.tokens, parts.clock)
        self._thumbnails = Thumbnails(parts, readings)
        self._operations = {operation.verb: operation for operation in OPERATIONS if operation.changes}
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(
            moment=format_moment,
            span=format_span,
            number=format_number,
            path=lambda text: quote(text, safe=""),
        )
        names = ("overview", "watch", "file", "log", "login", "refused")
        self._templates = {name: environment.get_template(f"{name}.html") for name in names}

    def build_routes(self) -> list[Route]:
        """All that is not the API, the metrics or the health."""
        return [
            Route("/", self._reading(self._overview)),
            Route("/watches/{watch}", self._reading(self._watch)),
            Route("/files", self._reading(self._file)),
            Route("/log", self._reading(self._log)),
            # It asks the server too, which has limits of its own.
            Route("/thumbnails/{sample_id:int}", self._reading(self._thumbnails.answer, limits_itself=True)),
            Route("/login", self._login_form, methods=["GET"]),
            Route("/login", self._posting(self._login), methods=["POST"]),
            Route("/logout", self._posting(self._logout), methods=["POST"]),
            Route("/do/{verb}", self._posting(self._change), methods=["POST"]),
            Route("/static/{name}", self._static),
        ]

    def _reading(self, handler: Handler, *, limits_itself: bool = False) -> Callable[[Request], Response]:
        def handle(request: Request) -> Response:
            login = self._find_login(request)
            if self._parts.read_needs_token and login is None:
                if request.url.path.startswith("/thumbnails/"):
                    return PlainTextResponse("log in first\n", status_code=401, headers=_HEADERS)
                return RedirectResponse("/login", status_code=303, headers=_HEADERS)
            try:
                if limits_itself:
                    return handler(request, login)
                return self._readings.run(partial(handler, request, login))
            except StoreError as error:
                text = f"The store cannot be read: {error}"
                return self._render("refused", login, status=503, text=text, passes=True)
            except WatcherError as error:
                return self._render("refused", login, status=404, text=str(error), passes=False)

        return handle

    def _find_login(self, request: Request) -> Login | None:
        return self._sessions.find(request.cookies.get(COOKIE, ""), request.cookies.get(NOTICE_COOKIE, ""))

    def _render(self, template: str, login: Login | None, *, status: int = 200, **values: Any) -> Response:
        notice = None if login is None else login.notice
        page = self._templates[template].render(
            login=login,
            notice=notice,
            version=__version__,
            has_probes=self._has_probes,
            now_s=self._parts.clock.now_s(),
            **values,
        )
        answer = HTMLResponse(page, status_code=status, headers=_HEADERS)
        if notice is not None:
            answer.delete_cookie(NOTICE_COOKIE, httponly=True, samesite="strict")
        return answer

    def _overview(self, _request: Request, login: Login | None) -> Response:
        now_ms = int(self._parts.clock.now_s() * 1000)
        next_polls = self._parts.next_polls()
        summary = load_summary(self._parts.database, self._arrivals, now_ms=now_ms, next_polls=next_polls)
        in_full = len(summary.watches) <= _SHOWN_IN_FULL
        detailed = (
            load_overview(self._parts.database, now_ms=now_ms, next_polls=next_polls).watches
            if in_full
            else []
        )
        return self._render(
            "overview",
            login,
            summary=summary,
            detailed=detailed,
            now_ms=now_ms,
            stalled=self._parts.heartbeats.find_stalled(),
            access=self._parts.access.get(),
            stands_by=self._tell_standby(),
        )

    def _tell_standby(self) -> str | None:
        """What a replica that does not lead says of itself; None for the leader."""
        if self._parts.role() == "leader":
            return None
        with self._parts.database.read() as session:
            leader = load_leader(session)
        leads = f"{leader.holder} leads and polls" if leader.is_in_office else "nobody leads at present"
        return f"This replica stands by; {leads}."

    def _watch(self, request: Request, login: Login | None) -> Response:
        name = request.path_params["watch"]
        with self._parts.database.read() as session:
            find_watch(session, name)
        now_ms = int(self._parts.clock.now_s() * 1000)
        found = load_overview(
            self._parts.database, now_ms=now_ms, next_polls=self._parts.next_polls(), only=name
        )
        return self._render("watch", login, watch=found.watches[0], now_ms=now_ms)

    def _file(self, request: Request, login: Login | None) -> Response:
        name = request.query_params.get("name", "")
        watch = request.query_params.get("watch") or None
        usable = bool(name) and "\x00" not in name + (watch or "") and len(name) <= _MOST_NAME_CHARACTERS
        lives = load_lives(self._parts.database, file_name=name, watch=watch, whole=True) if usable else []
        return self._render(
            "file", login, status=200 if lives or not name else 404, name=name, watch=watch, lives=lives
        )

    def _log(self, request: Request, login: Login | None) -> Response:
        name = request.query_params.get("watch") or None
        with self._parts.database.read() as session:
            watch = None if name is None else find_watch(session, name)
            entries = control.load_audit_log(session, watch=watch, limit=_LOG_ENTRIES)
        return self._render("log", login, watch=name, entries=entries)

    def _login_form(self, request: Request) -> Response:
        return self._render("login", self._find_login(request), wrong=False)

    def _posting(self, handler: Callable[[Request, dict[str, str]], Response]) -> Any:
        async def handle(request: Request) -> Response:
            # Browsers tell where a form was sent from; one of another site changes nothing here.
            if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
                return PlainTextResponse("sent from another site\n", status_code=403, headers=_HEADERS)
            try:
                body = await read_body(request)
            except Fault as fault:
                return PlainTextResponse(f"{fault}\n", status_code=fault.status, headers=_HEADERS)
            form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
            return await run_in_threadpool(handler, request, form)

        return handle

    def _login(self, request: Request, form: dict[str, str]) -> Response:
        cookie = self._sessions.open(form.get("token", "").strip())
        if cookie is None:
            return self._render("login", None, status=401, wrong=True)
        answer = RedirectResponse("/", status_code=303, headers=_HEADERS)
        _set_cookie(answer, request, COOKIE, cookie, life_s=LIFE_S)
        return answer

    def _logout(self, request: Request, form: dict[str, str]) -> Response:
        login = self._find_login(request)
        if login is None or not _is_own(form, login):
            return PlainTextResponse("the form is out of date: load the page again\n", 403, headers=_HEADERS)
        answer = RedirectResponse("/", status_code=303, headers=_HEADERS)
        for cookie in (COOKIE, NOTICE_COOKIE):
            answer.delete_cookie(cookie, httponly=True, samesite="strict")
        return answer

    def _change(self, request: Request, form: dict[str, str]) -> Response:
        login = self._find_login(request)
        if login is None:
            return RedirectResponse("/login", status_code=303, headers=_HEADERS)
        if not _is_own(form, login):
            return PlainTextResponse("the form is out of date: load the page again\n", 403, headers=_HEADERS)
        verb = request.path_params["verb"]
        if verb not in _VERBS:
            return PlainTextResponse("there is no such change\n", status_code=404, headers=_HEADERS)
        delivery = form.get("delivery") or None
        change = ChangeRequest()
        if verb == "replay":
            change = ReplayRequest(delivery=delivery)
        elif verb == "drop":
            change = DropRequest(delivery=delivery)
        watch = form.get("watch", "")
        try:
            done = self._api.change(self._operations[verb], watch=watch, request=change, caller=login.caller)
        except (WatcherError, Fault) as error:
            notice = str(error)
        else:
            notice = f"{done.watch}: {done.status}"
        answer = RedirectResponse(_own_path(form.get("back", "/")), status_code=303, headers=_HEADERS)
        _set_cookie(answer, request, NOTICE_COOKIE, login.seal_notice(notice), life_s=NOTICE_LIFE_S)
        return answer

    def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("there is no such file\n", status_code=404)
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(
            (_HERE / "static" / name).read_bytes(), headers={**headers, "Content-Type": _STATIC[name]}
        )


def _set_cookie(answer: Response, request: Request, name: str, value: str, *, life_s: int) -> None:
    is_https = request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=life_s, httponly=True, samesite="strict", secure=is_https)


def _is_own(form: dict[str, str], login: Login) -> bool:
    return secrets.compare_digest(form.get("form_token", "").encode(), login.form_token.encode())


def _own_path(back: str) -> str:
    """Where to return to: a path of this page, never another site."""
    parts = urlsplit(back)
    is_own = not parts.scheme and not parts.netloc and back.startswith("/") and "\\" not in back
    return quote(parts.path, safe="/%") if is_own and not back.startswith("//") else "/"
