"""A trivial API server with a datasource, for benchmarks of the whole daemon: it keeps names and positions, no pixels.

`python -m benchmarks.daemon_server FOLDER N` lists `N` objects; object `i` is the `i`-th file of the folder, counted
round and round. A sampling picks the first samples of the dataset that no tag holds yet.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from benchmarks.client_servers import DATASET_ID, ROOT, TAG, _Handler

_PAGE = 1000
_DATASET = {
    "id": DATASET_ID, "name": "bench", "type": "Images", "nSamples": 0, "sizeInBytes": 0,
    "createdAt": 1, "lastModifiedAt": 1,
}  # fmt: skip


@contextmanager
def serve_daemon(folder: Path, n_objects: int) -> Iterator[str]:
    """The server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.daemon_server", str(folder), str(n_objects)],
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


class _State:
    """What the server remembers: names in the order of their registration, and how many the tags cover."""

    def __init__(self, folder: Path, n_objects: int) -> None:
        self.files = [path.read_bytes() for path in sorted(folder.iterdir())]
        self.n_objects = n_objects
        self.names: list[str] = []
        self.n_covered = 0
        self.n_picked = 0
        self.tags: list[dict[str, Any]] = []
        self.embeddings: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.ids = (f"{number:024x}" for number in itertools.count(1))

    def add_tag(self, name: str, mask: int) -> dict[str, Any]:
        parent = self.tags[0]["id"] if self.tags else None
        tag = {**TAG, "id": next(self.ids), "name": name, "bitMaskData": hex(mask), "prevTagId": parent}
        self.tags.append(tag)
        for known in self.tags:
            known["totSize"] = len(self.names)
        return tag

    def cover(self, name: str) -> str:
        with self.lock:
            mask = (1 << len(self.names)) - (1 << self.n_covered)
            self.n_covered = len(self.names)
            return str(self.add_tag(name, mask)["id"])

    def sample(self, name: str, n_samples: int) -> str:
        with self.lock:
            self.n_picked = max(self.n_picked, min(n_samples, len(self.names)))
            return str(self.add_tag(name, (1 << self.n_picked) - 1)["id"])


def _build(state: _State, address: list[str]) -> type[_Handler]:
    class Daemon(_Handler):
        def do_GET(self) -> None:  # noqa: N802 - called by name
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            last = parts.path.rpartition("/")[2]
            if parts.path.startswith("/objects/"):
                self.answer(state.files[int(last) % len(state.files)])
            elif parts.path.endswith("/datasource/list"):
                self._list(int(query.get("cursor", "0")))
            elif last == "processedUntilTimestamp":
                self.answer_json({"processedUntilTimestamp": 0})
            elif "/query/name/" in parts.path:
                self.answer_json([_DATASET] if query.get("pageOffset", "0") == "0" else [])
            elif last == "mappings":
                start = int(query.get("pageOffset", "0"))
                self.answer_json(state.names[start : start + int(query.get("pageSize", "25000"))])
            elif last == "tags":
                self.answer_json(state.tags)
            elif "/tags/" in parts.path:
                self.answer_json(next(tag for tag in state.tags if tag["id"] == last))
            elif last == "embeddings":
                self.answer_json(state.embeddings)
            elif last == "writeCSVUrl":
                made = next(state.ids)
                state.embeddings.append(
                    {"id": made, "name": query["name"], "isProcessed": True, "createdAt": 1, "is2d": False}
                )
                self.answer_json({"signedWriteUrl": f"{address[0]}/blob?signature=1", "embeddingId": made})
            elif "/jobs/" in parts.path:
                result = {"type": "SAMPLING", "data": last}
                self.answer_json({
                    "id": last, "jobId": last, "jobType": "SAMPLING", "datasetId": DATASET_ID,
                    "status": "FINISHED", "createdAt": 1, "lastModifiedAt": 1,
                    "waitTimeTillNextPoll": 1, "result": result,
                })  # fmt: skip
            else:
                self.answer_json({}, 404)

        def _list(self, start: int) -> None:
            end = min(state.n_objects, start + _PAGE)
            rows = [
                {"fileName": f"camera/frame-{n:08d}.jpg", "readUrl": f"{address[0]}/objects/{n}"}
                for n in range(start, end)
            ]
            self.answer_json({"hasMore": end < state.n_objects, "cursor": str(end), "data": rows})

        def do_POST(self) -> None:  # noqa: N802 - called by name
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = json.loads(body) if body else {}
            path = unquote(urlsplit(self.path).path)
            if path.endswith("/tags/initial"):
                made = state.cover("initial-tag")
            elif path.endswith("/tags/upsize"):
                made = state.cover(asked["upsizeTagName"])
            elif path.endswith("/sampling"):
                n_samples = int(asked["config"]["stoppingCondition"]["nSamples"])
                self.answer_json({"jobId": state.sample(asked["newTagName"], n_samples)}, 201)
                return
            else:
                with state.lock:
                    state.names.append(asked["fileName"])
                    made = next(state.ids)
            created: dict[str, object] = {"id": made}
            if path.endswith("withWriteUrls"):
                url = f"{address[0]}/blob?signature=1"
                created["sampleWriteUrls"] = {"full": url, "thumb": url}
            self.answer_json(created, 201)

        def do_PUT(self) -> None:  # noqa: N802 - called by name
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0 and (chunk := self.rfile.read(min(left, 1 << 20))):
                left -= len(chunk)
            self.answer(b"")

        def do_DELETE(self) -> None:  # noqa: N802 - called by name
            self.answer(b"")

    return Daemon


def _main(folder: str, n_objects: str) -> None:
    address: list[str] = []

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), _build(_State(Path(folder), int(n_objects)), address))
    address.append(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(address[0], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main(*sys.argv[1:])
