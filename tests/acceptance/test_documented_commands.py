"""Every `watcher` command in a block of the documentation, run as it stands there over a real daemon that has worked."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.acceptance.daemon_process import DaemonProcess
from tests.photographs import write_photographs
from tests.unit.test_docs_site import list_commands
from tests.waiting import wait_for

pytestmark = pytest.mark.deep

FILE = "frame-000012.jpg"
# The daemon itself, and what wants it stopped.
NOT_BESIDE = {"run", "restore"}


def count_done(daemon: DaemonProcess) -> int:
    watches = daemon.status()["watches"]
    return int(watches[0]["samples"]["done"]) if watches else 0


def fit(command: str, folder: Path) -> list[str]:
    """The arguments, with the placeholders and places of the documentation replaced by those of the test."""
    return [
        FILE if word == "FILE" else str(folder / "backup") if "backups/" in word else word
        for word in shlex.split(command)[1:]
    ]


def test_commands_of_the_documentation_do_what_they_say(tmp_path):
    commands = sorted({command for _page, command in list_commands()})
    assert {shlex.split(command)[1] for command in commands} >= {
        "status",
        "why",
        "audit",
        "dead",
        "plan",
        "poll",
    }
    daemon = DaemonProcess(
        tmp_path / "data",
        WATCHER_WATCHES__INCOMING__BATCH__MIN_SAMPLES="1",
        WATCHER_WATCHES__INCOMING__POLL__HOLD_BACK_S="0",
    )
    write_photographs(tmp_path / "data" / "incoming", 1, seed=1)
    (made,) = (tmp_path / "data" / "incoming").iterdir()
    made.rename(made.with_name(FILE))
    try:
        daemon.start()
        wait_for(
            lambda: count_done(daemon) == 1, limit_s=90, what="the picture is done", explain=daemon.read_log
        )
        for command in commands:
            arguments = fit(command, tmp_path)
            if arguments[0] in NOT_BESIDE:
                continue
            if arguments[0] == "backup" and (tmp_path / "backup").exists():
                continue  # under another name on another page
            daemon.run_command(*arguments)
        assert daemon.terminate() == 0
        (tmp_path / "data").rename(tmp_path / "lost")
        daemon.run_command(*fit(next(c for c in commands if c.startswith("watcher restore")), tmp_path))
        assert "it went through all steps" in daemon.run_command("why", FILE)
    finally:
        daemon.stop_if_running()
