"""A real Prometheus in a process of its own, with the shipped configuration in short times."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.postgres import free_port

ROOT = Path(__file__).parents[1]
_START_LIMIT_S = 60.0


class Prometheus:
    """Scrapes a daemon every second; `rules` are alert rules as text."""

    def __init__(self, program: Path, folder: Path, *, rules: str | None = None) -> None:
        self._program = program
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "targets.yml").write_text("[]")
        configuration = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] = {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        }
        configuration["rule_files"] = []
        if rules is not None:
            (folder / "alerts.yml").write_text(rules)
            configuration["rule_files"] = ["alerts.yml"]
        for job in configuration["scrape_configs"]:
            job.pop("static_configs")
            job["file_sd_configs"] = [{"files": ["targets.yml"], "refresh_interval": "1s"}]
        configuration["scrape_configs"] = [
            job for job in configuration["scrape_configs"] if job["job_name"] == "watcher"
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        self._process: subprocess.Popen[bytes] | None = None

    def aim(self, daemon_url: str) -> None:
        """Scrapes this daemon from now on."""
        target = daemon_url.removeprefix("http://")
        labels = {"instance": "daemon"}  # the same one after a restart on another port
        (self._folder / "targets.new").write_text(yaml.safe_dump([{"targets": [target], "labels": labels}]))
        (self._folder / "targets.new").rename(self._folder / "targets.yml")

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = [
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--enable-feature=exemplar-storage",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen([self._program, *options], stdout=log, stderr=log)
        ends_s = time.monotonic() + _START_LIMIT_S
        while True:
            assert time.monotonic() < ends_s, (self._folder / "prometheus.log").read_text()[-3000:]
            try:
                if requests.get(f"{self.url}/-/ready", timeout=5).ok:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends it; harmless if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The present series of an expression, as Prometheus tells them.

        Raises:
            AssertionError: Prometheus refuses the expression.
        """
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=10)
        assert answer.ok, f"{expr}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def find_firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {series["metric"]["alertname"] for series in self.query('ALERTS{alertstate="firing"}')}
