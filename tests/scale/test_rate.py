"""The limit of requests to a server holds over all processes, and they share it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from watcher.database.engine import build_database
from watcher.database.schema import upgrade_schema
from watcher.store import SCHEMA

RATE = 40.0
N_REQUESTS = 140  # two processes that knew nothing of each other would need half the time
THREADS = {"command": 1, "daemon": 20}  # a slice holds 10 places


class Counting:
    """A server that notes who asked when, and answers 204 once it had enough."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []
        self.everybody = threading.Barrier(len(THREADS), timeout=60)
        lock = threading.Lock()
        counting = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status = 200
                if self.path.startswith("/begin"):
                    counting.everybody.wait()
                else:
                    with lock:
                        counting.seen.append((time.monotonic(), self.path[1:].partition("?")[0]))
                        status = 200 if len(counting.seen) < N_REQUESTS else 204
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def test_requests_of_a_daemon_and_a_command_keep_to_the_rate_and_are_shared_between_them(
    database_url, tmp_path
):
    database = build_database(database_url)
    upgrade_schema(database, SCHEMA)
    database.close()
    counting = Counting()
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.scale.requesting",
                database_url,
                counting.url,
                str(RATE),
                str(n),
                name,
                str(tmp_path),
            ],
            cwd=Path(__file__).parents[2],
        )
        for name, n in THREADS.items()
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        counting.server.shutdown()
        counting.server.server_close()
    assert codes == [0, 0]
    n_late = sum(THREADS.values())
    took_s = counting.seen[-1][0] - counting.seen[0][0]
    assert len(counting.seen) <= RATE * (took_s + 1) + n_late
    by_process = Counter(name for _, name in counting.seen[:N_REQUESTS])
    # One thread gets as much as twenty.
    assert min(by_process[name] for name in THREADS) >= N_REQUESTS / len(THREADS) / 2, by_process
