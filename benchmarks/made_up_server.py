"""A server that makes up its answers, so that a benchmark measures one side alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
TOKEN = "benchmark-token"
DATASET_ID = "0123456789abcdef01234567"


@contextmanager
def made_up_server(n_rows: int, *, n_remote: int = 0) -> Iterator[str]:
    """Serves on a free port; lists `n_rows` objects in pages, whatever the window."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if address.path.endswith("/datasource/list"):
                start = int(parse_qs(address.query).get("cursor", ["0"])[0])
                end = min(n_rows, start + PAGE)
                rows = [
                    {
                        "fileName": f"camera/frame-{n:09d}.jpg",
                        "readUrl": f"http://127.0.0.1/{n:09d}?signature={n:032d}",
                    }
                    for n in range(start, end)
                ]
                self._answer({"hasMore": end < n_rows, "cursor": str(end), "data": rows})
            elif address.path.endswith("/mappings"):
                self._answer([f"camera/frame-{n:09d}.jpg" for n in range(n_remote)])
            else:
                self._answer({"processedUntilTimestamp": 0})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer({})

        def _answer(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
