"""Two platforms, each a process of its own, over one Postgres and one bucket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import requests
from sqlalchemy import select

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_buckets import bucket, s3, s3_url
from tests.integration.platform.test_datasources import list_all
from tests.integration.platform.test_samples import WEBP
from watcher.database.engine import build_database
from watcher.platform.secrets import KEY_FILE
from watcher.platform.store.tables import jobs

__all__ = ["bucket", "s3_url"]

_SERVE = """
import sys, threading
from pathlib import Path
from watcher.logs import configure_logging
from watcher.platform import samplings, worker
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
configure_logging(level="ERROR")
folder, token, database, s3, slow = sys.argv[1:]
if slow:
    def hang(_platform, _job, *, progress, cancelled):
        progress(1, 2)
        print("computing", flush=True)
        threading.Event().wait(120)
    worker._KINDS["SAMPLING"] = (hang, samplings.store_result)
server = PlatformServer(
    PlatformConfig(
        token=token, datasource_root=Path(folder), data_dir=Path(folder), port=0, database_url=database,
        blob_url="s3://pictures/uploads", s3_endpoint=s3, page_size=2, isolate_jobs=False, job_lease_s=2.0,
    )
)
server.start()
print("at", server.url, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def start(tmp_path, postgres_url, s3_url, bucket):
    """Starts a replica in a folder of its own that holds the key of the others; gives its URL and process."""
    running: list[subprocess.Popen[str]] = []
    environ = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT": s3_url,
        "AWS_ALLOW_HTTP": "true",
    }

    def begin(name: str, *, slow: bool = False) -> tuple[str, subprocess.Popen[str]]:
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        (folder / KEY_FILE).write_text("ab" * 32)
        (folder / KEY_FILE).chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(folder), TOKEN, postgres_url, s3_url, "slow" if slow else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        running.append(process)
        for line in process.stdout:
            if line.startswith("at "):
                return line.split()[1], process
        raise AssertionError("the replica did not start")

    yield begin
    for process in running:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def test_what_one_replica_took_the_other_gives(start, bucket):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        bucket(f"incoming/{name}")
    with Caller(start("one")[0], TOKEN) as one, Caller(start("two")[0], TOKEN) as two:
        dataset = one.create_dataset()
        two("PUT", f"{dataset}/datasource", json=s3())
        page = one("GET", f"{dataset}/datasource/list")
        rest = two("GET", f"{dataset}/datasource/list", params={"cursor": page["cursor"]})
        assert [row["fileName"] for row in page["data"] + rest["data"]] == list_all(two, dataset)
        ids = one.create_samples(dataset, ["a.jpg", "b.jpg"])
        assert two.create_samples(dataset, ["b.jpg", "a.jpg"]) == ids[::-1]
        # A URL that one replica signed is good at the other.
        path = f"{dataset}/samples/{ids[0]}"
        url = one("GET", f"{path}/writeurl", params={"isThumbnail": "true"}).replace(one.url, two.url)
        assert requests.put(url, data=WEBP, timeout=10).status_code == 200
        read = two("GET", f"{path}/readurl", params={"type": "thumbnail"}).replace(two.url, one.url)
        assert requests.get(read, timeout=10).content == WEBP


def prepare_sampling(api: Caller) -> tuple[str, str]:
    dataset = api.create_dataset()
    names = [f"{index}.jpg" for index in range(4)]
    api.create_samples(dataset, names)
    api.create_initial_tag(dataset)
    return dataset, api.upload_embedding(dataset, names, [[float(i), 1.0] for i in range(4)])


def ask(api: Caller, dataset: str, embedding: str, name: str) -> str:
    config = {"stoppingCondition": {"nSamples": 2, "minDistance": -1}}
    body = {"newTagName": name, "method": "CORESET", "config": config, "rowCount": 4}
    return api("POST", f"{dataset}/embeddings/{embedding}/sampling", json=body)["jobId"]


def count_attempts(url: str) -> list[int]:
    database = build_database(url)
    try:
        with database.read() as session:
            return list(session.execute(select(jobs.c.attempts)).scalars())
    finally:
        database.close()


def test_jobs_of_two_replicas_are_each_carried_out_once(start, postgres_url):
    with Caller(start("one")[0], TOKEN) as one, Caller(start("two")[0], TOKEN) as two:
        dataset, embedding = prepare_sampling(one)
        asked = [ask((one, two)[n % 2], dataset, embedding, f"pick-{n}") for n in range(10)]
        assert {one.wait(job)["status"] for job in asked} == {"FINISHED"}
        names = sorted(tag["name"] for tag in two("GET", f"{dataset}/tags"))
        assert names == sorted(["initial-tag", *(f"pick-{n}" for n in range(10))])
    assert set(count_attempts(postgres_url)) == {1}


def test_job_of_a_killed_replica_is_carried_out_by_the_other_and_appears_once(start):
    url, process = start("one", slow=True)
    with Caller(url, TOKEN) as one:
        dataset, embedding = prepare_sampling(one)
        job = ask(one, dataset, embedding, "pick")
        assert next(line for line in process.stdout if line.startswith("computing"))
        end = time.monotonic() + 60
        while one("GET", f"/v1/jobs/{job}")["meta"] != {"total": 2, "processed": 1}:
            assert time.monotonic() < end, "no progress was told"
            time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    with Caller(start("two")[0], TOKEN) as two:
        assert two.wait(job)["status"] == "FINISHED"
        assert [tag["name"] for tag in two("GET", f"{dataset}/tags")].count("pick") == 1
