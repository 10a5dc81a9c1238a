"""A real Prometheus with the shipped configuration scrapes a real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import yaml

from tests.postgres import free_port

ROOT = Path(__file__).parents[3]
LIMIT_S = 60


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not within {LIMIT_S} s: {what}")


@pytest.fixture
def daemon_port(tmp_path):
    port = free_port()
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("WATCHER_", "LIGHTLY_"))
    }
    variables = {
        "WATCHER_DATA_DIR": str(tmp_path / "data"),
        "WATCHER_HTTP__PORT": str(port),
        "WATCHER_PLATFORM__PORT": "0",
    }
    with (tmp_path / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [Path(sys.executable).with_name("watcher"), "run"],
            cwd=tmp_path,
            env=inherited | variables,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(
            lambda: requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).ok, "the daemon ready"
        )
        yield port
    finally:
        daemon.terminate()
        try:
            assert daemon.wait(40) == 0, (tmp_path / "daemon.log").read_text()[-3000:]
        finally:
            daemon.kill()
            daemon.wait()


@pytest.fixture
def prometheus_url(tmp_path, prometheus_bin, daemon_port):
    port = free_port()
    configuration = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    for job in configuration["scrape_configs"]:
        targets = {"watcher": f"127.0.0.1:{daemon_port}", "prometheus": f"127.0.0.1:{port}"}
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    options = [
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([prometheus_bin, *options], stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


def ask(url: str, query: str) -> dict[str, str]:
    """The value of each series, by its `job` or, without one, by its name."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=5)
    if not answer.ok:
        return {}
    return {series["metric"].get("job", ""): series["value"][1] for series in answer.json()["data"]["result"]}


def test_prometheus_scrapes_the_daemon_and_understands_every_line(prometheus_url):
    wait_until(lambda: ask(prometheus_url, "up") == {"watcher": "1", "prometheus": "1"}, "both targets up")
    assert ask(prometheus_url, "count by (job) (watcher_build_info)") == {"watcher": "1"}
    assert float(ask(prometheus_url, 'count by (job) ({__name__=~"watcher_.*"})')["watcher"]) > 10
