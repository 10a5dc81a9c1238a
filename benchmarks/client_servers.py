"""Peers and servers of the client's benchmarks."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "benchmark-token"
DATASET_ID = "0123456789abcdef01234567"
SAMPLE_ID = "fedcba9876543210fedcba98"
TAG = {
    "id": SAMPLE_ID, "datasetId": DATASET_ID, "prevTagId": None, "name": "initial-tag", "bitMaskData": "0x1",
    "totSize": 1, "createdAt": 1,
}  # fmt: skip


def find_peer(version: str) -> str:
    """The Python of an environment with that version of `lightly`; made when it is missing."""
    python = ROOT / f".official-{version}" / "bin" / "python"
    if not (python.parent.parent / ".built").exists():
        print(f"   building the environment of lightly {version}; this may take minutes", flush=True)
        subprocess.run(
            ["sh", str(ROOT / "tests" / "official" / "build_environments.sh"), version], check=True
        )
    return str(python)


def run_program(python: str, program: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Runs a program and gives the JSON of its last line."""
    import os

    done = subprocess.run(
        [python, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def compute_median(values: list[float]) -> float:
    """The middle of the values."""
    return statistics.median(values)


def report(text: str, value: float, limit: float, *, at_least: bool) -> bool:
    """Prints a value beside its limit and tells whether it holds."""
    holds = value >= limit if at_least else value <= limit
    print(
        f"   {text}: {value:.2f} (limit {'>=' if at_least else '<='} {limit:g}) {'ok' if holds else 'MISSED'}"
    )
    return holds


@contextmanager
def serve(kind: str, *arguments: str) -> Iterator[str]:
    """A server in a process of its own: `listing N_ROWS PAGE` or `upload`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client_servers", kind, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=30)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def answer_json(self, value: object, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status)

    def log_message(self, *_arguments: object) -> None:
        pass


def _build_listing(n_rows: int, page: int) -> type[_Handler]:
    pages: dict[str, bytes] = {}

    def make(cursor: str) -> bytes:
        start = int(cursor)
        end = min(n_rows, start + page)
        rows = [
            {
                "fileName": f"camera-{n // 1000:03d}/frame-{n:09d}.jpg",
                "readUrl": f"http://127.0.0.1:9/objects/frame-{n:09d}.jpg?expires=1700000000&signature={n:064x}",
            }
            for n in range(start, end)
        ]
        return json.dumps({"hasMore": end < n_rows, "cursor": str(end), "data": rows}).encode()

    if n_rows <= 100_000:
        pages = {str(start): make(str(start)) for start in range(0, n_rows, page)}

    class Listing(_Handler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            path = address.path.replace("//", "/")
            if path.endswith("/datasource/list"):
                cursor = parse_qs(address.query).get("cursor", ["0"])[0]
                self.answer(pages.get(cursor) or make(cursor))
            elif path.endswith("/list/dnc"):
                self.answer_json({"cursors": ["0"]})
            elif "/versions/" in path:
                self.answer_json("1.0.0")
            else:
                self.answer_json({"processedUntilTimestamp": 0})

    return Listing


def _build_upload(address: list[str]) -> type[_Handler]:
    class Upload(_Handler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path.replace("//", "/")
            write_url = f"{address[0]}/blob?signature=1"
            known: dict[str, object] = {
                "/v1/quota": "1000000",
                "/tags": [],
                "/samples": [],
                "/mappings": [],
                "/datasource": {"type": "LIGHTLY", "fullPath": "x"},
                "/writeurl": write_url,
                "/writeurls": {"full": write_url, "thumb": write_url},
            }
            if "/versions/" in path:
                self.answer_json("1.0.0")
            elif "/tags/" in path:
                self.answer_json(TAG)
            else:
                ending = next((ending for ending in known if path.endswith(ending)), None)
                self.answer_json(known[ending] if ending else {}, 200 if ending else 404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            write_url = f"{address[0]}/blob?signature=1"
            created: dict[str, object] = {"id": SAMPLE_ID}
            if self.path.split("?")[0].endswith("withWriteUrls"):
                created["sampleWriteUrls"] = {"full": write_url, "thumb": write_url}
            self.answer_json(created, 201)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            self.answer(b"")

    return Upload


def _main(kind: str, arguments: list[str]) -> None:
    address: list[str] = []
    handler = _build_listing(*map(int, arguments)) if kind == "listing" else _build_upload(address)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), handler)
    address.append(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(address[0], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
