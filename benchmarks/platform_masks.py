"""Mappings, masks and tags of a dataset of a million samples: each answer within a second."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.platform_server import run_platform

N = 1_000_000
MOST_S = 1.0
MOST_GROWTH_MB = 150


def _fill(path: Path, dataset_id: str) -> None:
    connection = sqlite3.connect(path, timeout=60)
    rows = ((f"{i:024x}", dataset_id, i, f"camera/{i // 1000:04}/image_{i:07}.jpg") for i in range(N))
    with connection:
        connection.executemany(
            "INSERT INTO platform_samples (id, dataset_id, position, file_name, type, size_in_bytes, created_at,"
            " modified_at) VALUES (?, ?, ?, ?, 'IMAGE', 0, 0, 0)",
            rows,
        )
        connection.execute("UPDATE platform_datasets SET n_samples = ? WHERE id = ?", (N, dataset_id))
    connection.close()


def main() -> int:
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name, run_platform(Path(name)) as server:
        dataset = server.call("POST", "/v1/datasets", {"name": "bench"})["id"]
        _fill(Path(name) / "data" / "platform.sqlite", dataset)
        path = f"/v1/datasets/{dataset}"
        before_mb = server.read_peak_mb()

        def measure(what: str, method: str, tail: str, body: Any = None) -> Any:
            nonlocal slowest
            begun_s = time.perf_counter()
            reply = server.call(method, path + tail, body)
            took_s = time.perf_counter() - begun_s
            slowest = max(slowest, took_s)
            print(f"{what}: {took_s:.2f} s")
            return reply

        _measure_all(measure)
        growth_mb = server.read_peak_mb() - before_mb
    print(
        f"slowest: {slowest:.2f} s (at most {MOST_S}); growth of memory {growth_mb} MB (at most {MOST_GROWTH_MB})"
    )
    return int(slowest > MOST_S or growth_mb > MOST_GROWTH_MB)


def _measure_all(measure: Any) -> None:
    initial = measure("initial tag", "POST", "/tags/initial", {"imgType": "meta"})["id"]
    half = {"name": "half", "prevTagId": initial, "bitMaskData": "0x" + "5" * (N // 4), "totSize": N}
    half_id = measure("tag by its mask", "POST", "/tags", half)["id"]
    assert len(measure("all tags", "GET", "/tags")) == 2
    body = {"tagId1": initial, "tagId2": half_id, "operation": "DIFFERENCE"}
    measure("difference of two masks", "POST", "/tags/arithmetics/bitmask", body)
    assert len(measure("mapping of names", "GET", "/mappings?field=fileName")) == N
    assert len(measure("mapping of ids", "GET", "/mappings?field=_id")) == N
    page = "/mappings?field=fileName&pageSize=25000&pageOffset=975000"
    assert len(measure("last page of the mapping", "GET", page)) == 25_000
