"""A server between client and platform that may answer itself, lose answers, or change them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LOSE_ANSWER = "lose the answer"


@dataclass
class Asked:
    method: str
    target: str
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {k: v[-1] for k, v in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Middleman:
    """`rules` are asked in turn about each request; the first answer that is not None counts.

    A rule gives `(status, object or bytes)` to answer itself, `LOSE_ANSWER` to pass the request on and cut the
    connection, or a function of `(status, body)` to pass it on and change the answer.
    """

    upstream: str
    rules: list[Callable[[Asked], Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def paths(self, method: str | None = None) -> list[str]:
        """Last parts of the paths asked for."""
        return [a.path for a in self.asked if method in (None, a.method)]

    def count(self, method: str, ending: str) -> int:
        return sum(path.endswith(ending) for path in self.paths(method))

    def when(self, method: str, ending: str, answer: Any, *, times: int = 1) -> None:
        """Applies `answer` to the next `times` requests of this method whose path ends so."""
        left = [times]

        def rule(asked: Asked) -> Any:
            if asked.method == method and asked.path.endswith(ending) and left[0] > 0:
                left[0] -= 1
                return answer
            return None

        self.rules.append(rule)


@contextmanager
def stand_between(upstream: str) -> Iterator[Middleman]:
    man = Middleman(upstream)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_all(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, body)
            man.asked.append(asked)
            rule = next((found for found in (r(asked) for r in list(man.rules)) if found is not None), None)
            headers = {"Content-Type": "application/json"}
            if isinstance(rule, tuple):
                status, content = rule
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
            else:
                status, content, headers = self.pass_on(body)
            if rule is LOSE_ANSWER:
                self.close_connection = True
                return
            if callable(rule):
                status, content = rule(status, content)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def pass_on(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            request = urllib.request.Request(
                man.upstream + self.path,
                data=body if self.command in ("PUT", "POST") else None,
                method=self.command,
                headers={"Content-Type": self.headers.get("Content-Type") or "application/octet-stream"},
            )
            try:
                with opener.open(request, timeout=20) as answer:
                    status, content, received = answer.status, answer.read(), answer.headers
            except urllib.error.HTTPError as error:
                with error:
                    status, content, received = error.code, error.read(), error.headers
            # Signed URLs must lead through here as well.
            content = content.replace(man.upstream.encode(), man.url.encode())
            return status, content, {"Content-Type": received.get("Content-Type") or ""}

        do_GET = do_PUT = do_POST = do_DELETE = handle_all  # noqa: N815 - called by name

        def log_message(self, *_args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_args: Any) -> None:
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    man.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield man
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
