"""Creating samples over HTTP, durable, on SQLite and on Postgres."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from benchmarks.platform_server import TOKEN, run_platform
from tests import postgres

N_SAMPLES = 4000
N_CONNECTIONS = 16
LEAST_PER_S = 500

_LOAD = """
import http.client, json, sys, threading, time
host, path, n, n_threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
body = {"thumbName": "x_thumb.webp", "exif": {}, "metaData": {"mean": [0.1, 0.2, 0.3], "std": [0.1, 0.2, 0.3],
    "sizeInBytes": 237000, "shape": [1200, 1600, 3], "snr": 1.5, "sharpness": 20.5}}
def work(k):
    connection = http.client.HTTPConnection(host, timeout=60)
    for i in range(n // n_threads):
        content = json.dumps({**body, "fileName": f"{k}/{i}.jpg"}).encode()
        connection.request("POST", path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
threads = [threading.Thread(target=work, args=(k,)) for k in range(n_threads)]
begun = time.perf_counter()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(n / (time.perf_counter() - begun))
"""


def _measure(database_url: str) -> float:
    with tempfile.TemporaryDirectory() as name, run_platform(Path(name), database_url) as server:
        dataset = server.call("POST", "/v1/datasets", {"name": "bench"})["id"]
        path = f"/v1/datasets/{dataset}/samples?token={TOKEN}"
        command = [sys.executable, "-c", _LOAD, server.url.removeprefix("http://"), path]
        command += [str(N_SAMPLES), str(N_CONNECTIONS)]
        rate = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert server.call("GET", f"/v1/datasets/{dataset}")["nSamples"] == N_SAMPLES
    return rate


def main() -> int:
    print(f"SQLite: {_measure(''):.0f} samples a second")
    client = postgres.Client(str(os.getpid()))
    try:
        with psycopg.connect(client.server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE bench_samples")
        rate = _measure(client.server.url("bench_samples"))
    finally:
        client.close()
    print(f"Postgres: {rate:.0f} samples a second (at least {LEAST_PER_S})")
    return int(rate < LEAST_PER_S)
