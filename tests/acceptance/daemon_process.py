"""A real daemon in a process of its own, started, killed and asked as a person would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from tests.leaks import OUTPUTS
from watcher.lightly.transport import Transport

_START_LIMIT_S = 90.0


class DaemonProcess:
    """`watcher run` over a folder, on free ports."""

    def __init__(self, data_dir: Path, **variables: str) -> None:
        self.data_dir = data_dir
        self.environ = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("WATCHER_", "LIGHTLY_"))
            },
            "WATCHER_DATA_DIR": str(data_dir),
            "WATCHER_HTTP__PORT": "0",
            "WATCHER_PLATFORM__PORT": "0",
            "WATCHER_LOG__FORMAT": "json",
            "WATCHER_LEADER__LEASE_S": "2",
            **variables,
        }
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self.http = ""
        self.server = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it and waits until it tells where it is."""
        OUTPUTS.watch(self.log_path, environ=self.environ)
        with self.log_path.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "watcher", "run"],
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        ends_s = time.monotonic() + _START_LIMIT_S
        told = ""
        assert self._process.stdout is not None
        while "Ctrl-C" not in told:
            assert time.monotonic() < ends_s, self.read_log()
            line = self._process.stdout.readline()
            assert line, f"the daemon ended: {told}{self.read_log()}"
            told += line
        OUTPUTS.search(told, "watcher run")
        self.http = _find(r"status page\s+(http\S+?)/\s", told)
        self.server = _find(r"(?:platform|server)\s+(http\S+)", told)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._close()

    def wait_for_end(self, *, limit_s: float = 90.0) -> int:
        """Waits until it ends by itself; returns its exit code, negative for a signal."""
        assert self._process is not None
        self._process.wait(timeout=limit_s)
        return self._close()

    def terminate(self, number: int = signal.SIGTERM, *, limit_s: float = 90.0) -> int:
        """Asks it to end; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self._close()

    def _close(self) -> int:
        assert self._process is not None
        code = self._process.wait(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def stop_if_running(self) -> None:
        if self._process is not None:
            self.kill()

    def read_log(self) -> str:
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    def get(self, path: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(self.http + path, timeout=10)

    def status(self) -> dict[str, Any]:
        answer = self.get("/api/v1/status")
        assert answer.status_code == 200, answer.text
        overview: dict[str, Any] = answer.json()
        return overview

    def run_command(self, *arguments: str, expect: int = 0) -> str:
        """Runs another `watcher` command with the same variables."""
        done = subprocess.run(
            [sys.executable, "-m", "watcher", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        OUTPUTS.search(done.stdout + done.stderr, f"watcher {arguments[0]}")
        return done.stdout if expect == 0 else done.stdout + done.stderr

    def run_json(self, *arguments: str) -> Any:
        return json.loads(self.run_command(*arguments, "--json"))

    def build_transport(self) -> Transport:
        token = (self.data_dir / "platform" / "token").read_text().strip()
        return Transport(server=self.server, token=token)


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match.group(1)
