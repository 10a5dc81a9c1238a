"""A small server that lists objects as it is told to: in either unit, with either kind of end, or wrongly."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

DATASET_ID = "0123456789abcdef01234567"
TOKEN = "double-token"
PAGE = 2


@dataclass
class ListingDouble:
    """What the server has and how it lists.

    Attributes:
        objects: time of the last change by name, in milliseconds.
        offset_s: so much later than that the listing dates them.
        mark: what it was told last.
    """

    unit_ms: int = 1000
    from_inclusive: bool = True
    to_inclusive: bool = True
    ignores_windows: bool = False
    offset_s: int = 0
    tells_time: bool = True
    objects: dict[str, int] = field(default_factory=dict)
    mark: int = 0
    url: str = ""
    n_requests: int = 0
    writes: list[str] = field(default_factory=list)

    def list(self, first: int, last: int) -> list[str]:
        """Names in the window, in order of time."""
        found = []
        for name, at_ms in sorted(self.objects.items(), key=lambda item: (item[1], item[0])):
            at = (at_ms + 1000 * self.offset_s) // self.unit_ms
            after = first <= at if self.from_inclusive else first < at
            before = at <= last if self.to_inclusive else at < last
            if self.ignores_windows or (after and before):
                found.append(name)
        return found

    def put(self, name: str, *, ago_s: float) -> None:
        """An object that was last written so long ago."""
        self.objects[name] = int((time.time() - ago_s) * 1000)


@contextmanager
def serve(double: ListingDouble) -> Iterator[ListingDouble]:
    """Serves it on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            double.n_requests += 1
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            if address.path.startswith("/objects/"):
                at_ms = double.objects[unquote(address.path.removeprefix("/objects/"))]
                modified = formatdate(at_ms // 1000, usegmt=True)
                self._answer(b"content", {"Last-Modified": modified} if double.tells_time else {})
            elif address.path.endswith("/datasource/list"):
                self._list(query)
            elif address.path.endswith("/mappings"):
                self._answer_json([])
            else:
                self._answer_json({"processedUntilTimestamp": double.mark})

        def _list(self, query: dict[str, str]) -> None:
            if "cursor" in query:
                first, last, start = map(int, query["cursor"].split("."))
            else:
                first, last, start = int(query["from"]), int(query["to"]), 0
            names = double.list(first, last)
            rows = [
                {"fileName": name, "readUrl": f"{double.url}/objects/{quote(name)}"}
                for name in names[start : start + PAGE]
            ]
            end = start + PAGE
            self._answer_json({"hasMore": end < len(names), "cursor": f"{first}.{last}.{end}", "data": rows})

        def do_PUT(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            double.writes.append(re.sub("[0-9a-f]{24}", "{id}", self.path))
            double.mark = body["processedUntilTimestamp"]
            self._answer_json({})

        def do_POST(self) -> None:
            self.do_PUT()

        def _answer_json(self, value: Any) -> None:
            self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _answer(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
