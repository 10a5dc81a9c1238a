"""`watcher plan` and `watcher export` on the embedded default, without a daemon; progress only on a terminal."""

from __future__ import annotations

import io
import json
import time

import pytest
from PIL import Image
from rich.console import Console

from tests.builders import run_command
from watcher.cli.progress import showing


@pytest.fixture
def command(tmp_path):
    def run(*arguments: str):
        return run_command(
            *arguments,
            WATCHER_DATA_DIR=str(tmp_path),
            WATCHER_PLATFORM__PORT="0",
            WATCHER_WATCHES__CAMS__POLL__HOLD_BACK_S="0",
            WATCHER_WATCHES__CAMS__BATCH__MIN_SAMPLES="1",
        )

    (tmp_path / "cams").mkdir()
    for number in range(3):
        Image.effect_noise((64, 48), 20 + 50 * number).convert("RGB").save(
            tmp_path / "cams" / f"{number}.jpg"
        )
    return run


def test_plan_before_the_first_run_tells_no_zeros_and_makes_nothing(command, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    first = command("plan")
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines() == [
        "cams",
        "  next poll: new files unknown: there is no platform yet: the first `watcher run` or `watcher poll` makes it",
        "  waiting in the ledger: 0; open batches: 0",
        "  batches: unknown",
        "  step upload: requests unknown",
        "  step embed: requests unknown",
        "  step sampling: requests unknown",
        "  step deliver: requests unknown",
        "  picks: unknown (budget 10 a batch)",
        "  to manifest (manifest): unknown",
    ]
    (made,) = json.loads(command("plan", "--json").stdout)
    unknown = ("n_new", "n_pages", "batch_sizes", "n_left", "is_due", "n_bytes", "n_picks")
    assert {name: made[name] for name in unknown} == dict.fromkeys(unknown)
    assert {step["n_requests"] for step in made["steps"]} == {None}
    assert made["deliveries"] == [
        {"sink": "manifest", "kind": "manifest", "n_deliveries": None, "n_picks": None, "n_requests": None}
    ]
    assert command("plan", "nobody").exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_before_the_first_run_asks_another_server_and_makes_nothing(tmp_path, free_port):
    folder = tmp_path / "own"
    environ = {
        "WATCHER_DATA_DIR": str(folder),
        "LIGHTLY_TOKEN": "a-token",
        "LIGHTLY_SERVER_LOCATION": f"http://127.0.0.1:{free_port}",
        "WATCHER_WATCHES__GATE__DATASET": "gate",
    }
    done = run_command("plan", **environ)
    assert done.exit_code == 0, done.output
    assert "next poll: new files unknown: " in done.stdout
    assert "could not connect" in done.stdout
    assert not folder.exists()


def test_plan_then_poll_then_export(command, tmp_path):
    done = command("poll")
    assert done.exit_code == 0, done.output
    assert "cams: 3 listed, 3 new" in done.stdout
    Image.effect_noise((64, 48), 99).convert("RGB").save(tmp_path / "cams" / "later.jpg")
    time.sleep(1.1)  # times of objects are whole seconds
    (made,) = json.loads(command("plan", "cams", "--json").stdout)
    assert (made["n_new"], made["batch_sizes"], made["n_picks"]) == (1, [1], 1)
    shown = command("plan").stdout
    assert "next poll: 1 new files, 1 requests" in shown
    assert "to manifest (manifest): 1 deliveries, at most 1 picks" in shown
    assert sorted(command("export", "initial-tag").stdout.splitlines()) == ["0.jpg", "1.jpg", "2.jpg"]
    to = tmp_path / "out.json"
    done = command("export", "cams-000001", "--format", "filenames-and-read-urls", "--to", str(to))
    assert done.exit_code == 0, done.output
    assert {row["fileName"] for row in json.loads(to.read_text())} == {"0.jpg", "1.jpg", "2.jpg"}
    nowhere = command("export", "initial-tag", "--to", str(tmp_path / "no" / "folder.txt"))
    assert (nowhere.exit_code, nowhere.stderr.count("folder.txt cannot be written (No such file")) == (2, 1)
    refused = command("export", "absent")
    assert refused.exit_code == 2
    assert "has no tag 'absent'" in refused.stderr
    assert command("plan", "nobody").exit_code == 2


def test_progress_is_shown_on_a_terminal_alone():
    plain, terminal = io.StringIO(), io.StringIO()
    for stream, is_terminal in ((plain, False), (terminal, True)):
        console = Console(file=stream, force_terminal=is_terminal, width=80)
        with showing("samples", console=console, count=lambda: (3, 7)):
            time.sleep(1.2)
    assert plain.getvalue() == ""
    assert "samples" in terminal.getvalue()
    assert "3/7" in terminal.getvalue()
