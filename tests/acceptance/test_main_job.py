"""The main job, as a stranger would see it: real processes, real photographs, `kill -9` at random moments."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.acceptance.daemon_process import DaemonProcess
from tests.photographs import write_photographs
from tests.waiting import wait_for
from watcher.lightly import datasets, samples, tags
from watcher.lightly.transport import Transport

N_PHOTOGRAPHS = 200
N_WAVES = 3
N_KILLS = 6

QUICK = {
    "WATCHER_WATCHES__INCOMING__SCHEDULE__INTERVAL_S": "1",
    "WATCHER_WATCHES__INCOMING__SCHEDULE__JITTER_S": "0",
    "WATCHER_WATCHES__INCOMING__POLL__HOLD_BACK_S": "1",
    "WATCHER_WATCHES__INCOMING__BATCH__MIN_SAMPLES": "60",
    "WATCHER_WATCHES__INCOMING__BATCH__MAX_WAIT_S": "4",
    "WATCHER_WATCHES__INCOMING__SAMPLING__BUDGET": "7",
    "WATCHER_RUNS__RETRY_BASE_S": "0.2",
}


@pytest.mark.scenario(number=15)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.deep)])
def test_main_job_killed_at_random_moments_loses_and_doubles_nothing(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    photographs = write_photographs(tmp_path / "photographs", N_PHOTOGRAPHS, seed=7)
    seed = int(os.environ.get("WATCHER_TEST_SEED", random.SystemRandom().randrange(10**6)))
    sys.stdout.write(f"WATCHER_TEST_SEED={seed}\n")
    rng = random.Random(seed)
    variables = dict(QUICK)
    if store == "postgres":
        variables["WATCHER_STORE__URL"] = request.getfixturevalue("postgres_url")
    daemon = DaemonProcess(tmp_path / "data", **variables)
    try:
        daemon.start()
        waves = [photographs[number::N_WAVES] for number in range(N_WAVES)]
        for number, wave in enumerate(waves):
            _drop(wave, daemon.data_dir / "incoming" / f"wave {number}+%")
            for _ in range(N_KILLS // N_WAVES):
                time.sleep(rng.uniform(0.2, 4.0))
                daemon.kill()
                daemon.start()
        wait_for(lambda: _is_finished(daemon), limit_s=150, what="all done", explain=lambda: _explain(daemon))
        names = {f"wave {n}+%/{path.name}" for n, wave in enumerate(waves) for path in wave}
        assert len(names) == N_PHOTOGRAPHS
        _check_ledger(daemon)
        keys = _check_manifests(daemon, names)
        _check_platform(daemon.build_transport(), names, keys)
        _check_lives(daemon, sorted(names)[:: N_PHOTOGRAPHS // 4])
        _check_thumbnails_on_page(daemon)
        assert daemon.terminate() == 0
        assert "token=" not in daemon.read_log()
    finally:
        daemon.stop_if_running()


def _drop(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        hidden = folder / f".{path.name}.part"
        shutil.copyfile(path, hidden)
        hidden.rename(folder / path.name)


def _is_finished(daemon: DaemonProcess) -> bool:
    (watch,) = daemon.status()["watches"] or [None]
    if watch is None:
        return False
    return (
        watch["samples"]["done"] == N_PHOTOGRAPHS
        and watch["samples"]["waiting"] == watch["samples"]["processing"] == 0
        and all(batch["state"] == "done" for batch in watch["batches"])
    )


def _explain(daemon: DaemonProcess) -> str:
    return json.dumps(daemon.status(), indent=1) + daemon.read_log()[-6000:]


def _check_ledger(daemon: DaemonProcess) -> None:
    (watch,) = daemon.run_json("status")["watches"]
    assert watch["samples"] == {
        "waiting": 0,
        "processing": 0,
        "done": N_PHOTOGRAPHS,
        "quarantined": 0,
        "gone": 0,
    }
    assert sum(batch["n_samples"] for batch in watch["batches"]) == N_PHOTOGRAPHS
    assert watch["remote_mark_s"] <= watch["mark_s"]


def _check_manifests(daemon: DaemonProcess, names: set[str]) -> list[str]:
    (watch,) = daemon.status()["watches"]
    keys = [batch["key"] for batch in watch["batches"]]
    manifests = sorted((daemon.data_dir / "selected").iterdir())
    assert [path.name for path in manifests] == sorted(f"{key}.jsonl" for key in keys)
    picked: list[str] = []
    for path in manifests:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert [line["rank"] for line in lines] == list(range(1, len(lines) + 1))
        assert {line["batch"] for line in lines} == {line["tag"] for line in lines} == {path.stem}
        for line in lines:
            # The platform takes another free port at each start of the daemon; the signature holds wherever it is.
            url = urlsplit(line["read_url"])._replace(netloc=urlsplit(daemon.server).netloc).geturl()
            body = Transport(server="http://127.0.0.1:9", token="unused").read_url_bytes(url, max_bytes=10**8)
            Image.open(io.BytesIO(body.body)).verify()
        picked += [line["file_name"] for line in lines]
    expected = sum(min(7, batch["n_samples"]) for batch in watch["batches"])
    assert len(picked) == expected, (len(picked), watch["batches"])
    assert len(set(picked)) == len(picked), "a file was picked twice"
    assert set(picked) <= names
    return keys


def _check_platform(transport: Transport, names: set[str], keys: list[str]) -> None:
    (dataset,) = datasets.fetch_datasets(transport)
    rows = samples.fetch_samples(transport, dataset_id=dataset.id)
    assert len(rows) == N_PHOTOGRAPHS
    assert {row.file_name for row in rows} == names
    for row in rows:
        url = samples.fetch_read_url(transport, dataset_id=dataset.id, sample_id=row.id, kind="thumbnail")
        image = Image.open(io.BytesIO(transport.read_url_bytes(url, max_bytes=10**6).body))
        image.load()
        assert image.format == "WEBP"
        assert max(image.size) <= 128
    present = [tag.name for tag in tags.fetch_tags(transport, dataset_id=dataset.id)]
    first = min(keys)
    assert sorted(present) == sorted(["initial-tag", *keys, *(f"{key}-new" for key in keys if key != first)])


def _check_lives(daemon: DaemonProcess, names: list[str]) -> None:
    for name in names:
        (life,) = daemon.run_json("why", name)
        told = [event["what"] for event in life["events"]]
        assert life["state"] == "done"
        assert told[0] == "listed for the first time"
        assert told[1] == "put into a batch"
        assert {"step upload", "step embed", "step sampling", "step deliver"} <= set(told)


def _check_thumbnails_on_page(daemon: DaemonProcess) -> None:
    page = daemon.get("/").text
    assert "signature" not in page
    (watch,) = daemon.status()["watches"]
    assert watch["picks"]
    answer = daemon.get(f"/thumbnails/{watch['picks'][0]['sample_id']}")
    assert answer.headers["content-type"] == "image/webp"
    metrics = daemon.get("/metrics").text
    assert f'watcher_samples{{state="done",watch="incoming"}} {float(N_PHOTOGRAPHS)}' in metrics
