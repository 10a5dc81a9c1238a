"""The few requests to Label Studio that its sink makes, with either kind of token.

A legacy token goes along as it is. A personal access token is exchanged for one of five minutes, which is renewed
when the server refuses it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from watcher import __version__
from watcher.domain.delivery import LabelStudioRules
from watcher.domain.errors import ProtocolError, UnauthorizedException
from watcher.lightly.answers import Answer
from watcher.lightly.trust import build_trust
from watcher.sinks.base import SinkParts
from watcher.sinks.http import Receiver
from watcher.sinks.place import describe_place

T = TypeVar("T")
_MOST_PAGES = 10_000
_TITLES_A_PAGE = 100


class Project(msgspec.Struct, frozen=True):
    """A project."""

    id: int
    title: str


class Task(msgspec.Struct, frozen=True):
    """A task; `data` is what it was imported with."""

    id: int
    data: dict[str, Any]


class _Projects(msgspec.Struct, frozen=True):
    results: list[Project]
    next: str | None = None


class _Tasks(msgspec.Struct, frozen=True):
    tasks: list[Task]
    total: int


class _Imported(msgspec.Struct, frozen=True):
    task_ids: list[int]


class _Access(msgspec.Struct, frozen=True):
    access: str


class LabelStudioApi:
    """Requests to one server with one token; sharable between threads."""

    def __init__(self, rules: LabelStudioRules, parts: SinkParts) -> None:
        self._base = rules.url.rstrip("/")
        self._place = describe_place(self._base)
        self._token = rules.token
        # A JSON web token has three parts, a legacy token one.
        self._is_personal = rules.token.count(".") == 2
        self._access: str | None = None
        self._lock = threading.Lock()
        self._receiver = Receiver(
            connect_timeout_s=parts.connect_timeout_s,
            timeout_s=rules.timeout_s,
            trust=build_trust(only=rules.ca_certs, besides=parts.ca_certs),
            clock=parts.clock,
            secrets=(rules.token,),
        )

    def fetch_project(self, project_id: int) -> Project:
        """The project of that number; NotFoundException if there is none for this token."""
        return self._call("GET", f"/api/projects/{project_id}", type=Project)

    def find_project(self, title: str) -> Project | None:
        """The oldest project of exactly that title."""
        found: list[Project] = []
        for page in range(1, _MOST_PAGES):
            # The server looks for titles that contain it.
            query = {"title": title, "page": page, "page_size": _TITLES_A_PAGE}
            answer = self._call("GET", "/api/projects", query=query, type=_Projects)
            found += [project for project in answer.results if project.title == title]
            if answer.next is None or not answer.results:
                break
        return min(found, key=lambda project: project.id, default=None)

    def post_project(self, title: str, label_config: str) -> Project:
        """Makes a project."""
        body = {"title": title, "label_config": label_config}
        return self._call("POST", "/api/projects", body=body, type=Project)

    def iter_tasks(self, project: Project, *, field: str, value: str, page_size: int) -> Iterator[Task]:
        """The tasks whose data hold that value, page by page."""
        wanted = {
            "filter": f"filter:tasks:data.{field}",
            "operator": "equal",
            "type": "String",
            "value": value,
        }
        view = msgspec.json.encode({"filters": {"conjunction": "and", "items": [wanted]}}).decode()
        n_seen = 0
        for page in range(1, _MOST_PAGES):
            query = {
                "project": project.id,
                "page": page,
                "page_size": page_size,
                "fields": "task_only",
                "query": view,
            }
            answer = self._call("GET", "/api/tasks", query=query, type=_Tasks)
            yield from answer.tasks
            n_seen += len(answer.tasks)
            # The page behind the last one is an error.
            if n_seen >= answer.total or not answer.tasks:
                return
        raise ProtocolError(f"{self._place}: a listing of tasks does not end")

    def post_tasks(self, project: Project, tasks: list[dict[str, Any]]) -> list[int]:
        """Imports tasks.

        Returns:
            Their ids, in the order given.
        """
        imported = self._call(
            "POST",
            f"/api/projects/{project.id}/import",
            query={"return_task_ids": "true"},
            body=tasks,
            type=_Imported,
        )
        if len(imported.task_ids) != len(tasks):
            raise ProtocolError(
                f"{self._place}: {len(tasks)} tasks were imported, but {len(imported.task_ids)} ids came back"
            )
        return imported.task_ids

    def _call(
        self,
        method: str,
        path: str,
        *,
        type: type[T],  # noqa: A002 - reads as what it is
        query: dict[str, Any] | None = None,
        body: object = None,
    ) -> T:
        url = self._base + path + (f"?{urlencode(query)}" if query else "")
        what = f"{self._place}: {method} {path}"
        encoded = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._send(method, url, encoded, what, self._get_authorization())
        except UnauthorizedException:
            if not self._is_personal:
                raise
            with self._lock:
                self._access = None
            answer = self._send(method, url, encoded, what, self._get_authorization())
        return _decode(answer, type, what)

    def _send(self, method: str, url: str, body: bytes | None, what: str, authorization: str) -> Answer:
        headers = {
            "Authorization": authorization,
            "Accept": "application/json",
            "User-Agent": f"datasource-watcher/{__version__}",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._receiver.send(method, url, headers=headers, body=body, what=what)

    def _get_authorization(self) -> str:
        if not self._is_personal:
            return f"Token {self._token}"
        with self._lock:
            if self._access is None:
                what = f"{self._place}: POST /api/token/refresh"
                answer = self._receiver.send(
                    "POST",
                    f"{self._base}/api/token/refresh/",
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    body=msgspec.json.encode({"refresh": self._token}),
                    what=what,
                )
                self._access = _decode(answer, _Access, what).access
            return f"Bearer {self._access}"


def _decode(answer: Answer, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.MsgspecError as error:
        reason = str(error)
    raise ProtocolError(
        f"{what}: the answer ({answer.status}, {len(answer.body)} bytes) is not Label Studio's: {reason[:200]}"
    )
