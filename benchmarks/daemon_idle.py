"""The daemon on the embedded default: how soon it is ready, and what it takes when nothing happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

IDLE_S = 20
READY_LIMIT_S = 30.0


def main() -> int:
    """Prints start time, resident memory and CPU share; there is no limit yet, so it returns 0 once it ran."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "LIGHTLY_"))},
            "WATCHER_DATA_DIR": folder,
            "WATCHER_HTTP__PORT": "0",
            "WATCHER_PLATFORM__PORT": "0",
        }
        subprocess.run(
            [sys.executable, "-m", "watcher", "migrate"], env=environ, check=True, capture_output=True
        )
        begun_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "watcher", "run"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            url = _read_url(process)
            _wait_until_ready(url, begun_s + READY_LIMIT_S)
            ready_s = time.monotonic() - begun_s
            cpu_before_s = _read_cpu_s(process.pid)
            time.sleep(IDLE_S)
            share = (_read_cpu_s(process.pid) - cpu_before_s) / IDLE_S
            resident_mb = _read_resident_mb(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    print(
        f"   ready after {ready_s:.2f} s; idle: {resident_mb:.0f} MB resident, {share:.1%} of a core (platform inside)"
    )
    return 0


def _read_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"status page\s+(\S+)/", line):
            return found.group(1)
    raise AssertionError("the daemon did not start")


def _wait_until_ready(url: str, limit_s: float) -> None:
    with requests.Session() as session:
        session.trust_env = False
        while session.get(f"{url}/health/ready", timeout=5).status_code != 200:
            assert time.monotonic() < limit_s, "not ready in time"
            time.sleep(0.02)


def _read_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read_resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024
