"""Listing a folder through the platform: the first page of 200,000 files, and pages a second from warm state."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.platform_server import TOKEN, run_platform

N_FILES = 200_000
MOST_FIRST_PAGE_S = 1.5
LEAST_PAGES_PER_S = 250
MOST_GROWTH_MB = 60
N_PAGES = 600

_LOAD = """
import http.client, sys, time
host, path, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = http.client.HTTPConnection(host, timeout=60)
cursor, first, begun = "", "", time.perf_counter()
for _ in range(n):
    connection.request("GET", path + (f"&cursor={cursor}" if cursor else ""))
    body = connection.getresponse().read()
    start = body.index(b'"cursor":"') + 10
    following = body[start : body.index(b'"', start)].decode()
    first = first or following
    cursor = following if b'"hasMore":true' in body[:20] else first
print(n / (time.perf_counter() - begun))
"""


def _make_files(folder: Path) -> None:
    for index in range(N_FILES):
        inner = folder / f"{index // 1000:04}"
        if index % 1000 == 0:
            inner.mkdir(parents=True)
        os.close(os.open(inner / f"image_{index:07}.jpg", os.O_CREAT | os.O_WRONLY))


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_files(folder / "root" / "in")
        with run_platform(folder) as server:
            dataset = server.call("POST", "/v1/datasets", {"name": "bench"})["id"]
            path = f"/v1/datasets/{dataset}/datasource"
            server.call("PUT", path, {"type": "LOCAL", "fullPath": "in"})
            before_mb = server.read_peak_mb()
            begun_s = time.perf_counter()
            page = server.call("GET", f"{path}/list")
            first_s = time.perf_counter() - begun_s
            assert len(page["data"]) == 1000
            command = [sys.executable, "-c", _LOAD, server.url.removeprefix("http://")]
            command += [f"{path}/list?token={TOKEN}", str(N_PAGES)]
            rate = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            growth_mb = server.read_peak_mb() - before_mb
    print(f"first page of {N_FILES:,} files: {first_s:.2f} s (at most {MOST_FIRST_PAGE_S})")
    print(f"pages of 1,000 signed rows: {rate:.0f} a second (at least {LEAST_PAGES_PER_S})")
    print(f"growth of the server's memory: {growth_mb} MB (at most {MOST_GROWTH_MB})")
    return int(first_s > MOST_FIRST_PAGE_S or rate < LEAST_PAGES_PER_S or growth_mb > MOST_GROWTH_MB)
