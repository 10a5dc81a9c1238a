"""A real daemon with control on an address of its own, whose control token changes while it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from tests.acceptance.daemon_process import DaemonProcess

TOKEN, NEW_TOKEN = "the-first-token", "the-second-token"


@pytest.fixture
def daemon(tmp_path: Path):
    (tmp_path / "token").write_text(TOKEN)
    running = DaemonProcess(
        tmp_path / "data",
        WATCHER_CONTROL__TOKEN_FILE=str(tmp_path / "token"),
        WATCHER_CONTROL__PORT="0",
        WATCHER_WATCHES__INCOMING__SCHEDULE__INTERVAL_S="0.5",
    )
    running.start()
    yield running
    running.stop_if_running()


def _pause(daemon: DaemonProcess, token: str) -> int:
    with requests.Session() as session:
        session.trust_env = False
        return session.post(
            f"{daemon.http}/api/v1/watches/incoming/pause",
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
        ).status_code


def test_control_apart_from_metrics_serves_no_metrics_and_knows_both_tokens_and_a_new_one(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    assert daemon.get("/metrics").status_code == 404
    assert daemon.get("/").status_code == 200
    assert _pause(daemon, "wrong-token-wrong") == 401
    daemon.run_command("poll", "incoming")
    assert _pause(daemon, TOKEN) == 200
    assert [entry["actor"].split()[0] for entry in daemon.run_json("log")] == ["control", "local"]
    assert TOKEN not in daemon.read_log()
    probes = re.search(r'"probes": "(http[^"]+)"', daemon.read_log())
    assert probes is not None
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(f"{probes.group(1)}/health/live", timeout=10).status_code == 200
        assert session.get(f"{probes.group(1)}/api/v1/status", timeout=10).status_code == 404
        assert session.get(f"{probes.group(1)}/", timeout=10).status_code == 404
    (tmp_path / "token").write_text(NEW_TOKEN)
    assert _pause(daemon, NEW_TOKEN) == 200  # a token that is not known yet makes the daemon look at its file
    assert _pause(daemon, TOKEN) == 401
