"""The first set-up of `docs/pipeline.md`, cameras to Label Studio, as a stranger would see it: real processes, `kill -9`.

Also the crash points that only a Label Studio leads to.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.acceptance.daemon_process import DaemonProcess
from tests.acceptance.test_crash_matrix import POINTS_OF_LABEL_STUDIO
from tests.label_studio.server import LabelStudio
from tests.leaks import OUTPUTS
from tests.postgres import free_port
from tests.waiting import wait_for
from watcher.domain.crash_points import VARIABLE

WATCH = "WATCHER_WATCHES__CAMERAS__"
STUDIO = f"{WATCH}DELIVER__LABEL_STUDIO__TEAM__"
BUDGET = 6
# The first test waits for the server to start.
pytestmark = pytest.mark.timeout(400)


def build_daemon(folder: Path, server: LabelStudio, title: str, token: str, **more: str) -> DaemonProcess:
    return DaemonProcess(
        folder / "data",
        **{
            # Tasks keep the platform's address, so it must be the same after a restart.
            "WATCHER_PLATFORM__PORT": str(free_port()),
            f"{WATCH}SCHEDULE__INTERVAL_S": "1",
            f"{WATCH}SCHEDULE__JITTER_S": "0",
            f"{WATCH}POLL__HOLD_BACK_S": "1",
            f"{WATCH}BATCH__MIN_SAMPLES": "25",
            f"{WATCH}BATCH__MAX_WAIT_S": "4",
            f"{WATCH}SAMPLING__BUDGET": str(BUDGET),
            f"{WATCH}DELIVER__RETRY_CAP_S": "1",
            f"{WATCH}DELIVER__MANIFEST__COPY__LOCATION": "selected",
            f"{STUDIO}URL": server.url,
            f"{STUDIO}TOKEN": token,
            f"{STUDIO}PROJECT": title,
            "WATCHER_RUNS__RETRY_BASE_S": "0.2",
            "WATCHER_RUNS__LEASE_S": "5",
            **more,
        },
    )


def test_cameras_fill_a_project_of_label_studio_each_pick_once(
    label_studio: LabelStudio, tmp_path: Path
) -> None:
    daemon = build_daemon(tmp_path, label_studio, "Cameras", label_studio.personal_token)
    try:
        daemon.start()
        daemon.run_command("demo", "--seconds", "12", "--rate", "6")
        daemon.kill()
        daemon.start()
        wait_for(lambda: is_delivered(daemon), limit_s=120, what="delivered", explain=lambda: explain(daemon))
        (project,) = label_studio.find_projects("Cameras")
        tasks = label_studio.load_tasks(project["id"])
        expected = read_manifests(daemon)
        found = {(t["data"]["batch"], t["data"]["rank"]): t["data"]["file_name"] for t in tasks}
        assert len(tasks) == len(found) == len(expected) >= BUDGET
        assert found == expected
        check_images(tasks)
        check_life(daemon, tasks[0], project["id"])
        assert label_studio.legacy_token not in daemon.read_log()
        assert daemon.terminate() == 0
    finally:
        daemon.stop_if_running()


@pytest.mark.parametrize("point", sorted(POINTS_OF_LABEL_STUDIO))
def test_daemon_killed_at_a_point_of_label_studio_adds_each_task_once(
    label_studio: LabelStudio, tmp_path: Path, point: str
) -> None:
    title = f"Killed at {point}"
    daemon = build_daemon(tmp_path, label_studio, title, label_studio.legacy_token)
    try:
        daemon.environ[VARIABLE] = point
        put_pictures(daemon)
        daemon.start()
        assert daemon.wait_for_end() == -9, daemon.read_log()
        del daemon.environ[VARIABLE]
        daemon.start()
        wait_for(lambda: is_delivered(daemon), limit_s=120, what="delivered", explain=lambda: explain(daemon))
        (project,) = label_studio.find_projects(title)
        names = [task["data"]["file_name"] for task in label_studio.load_tasks(project["id"])]
        assert sorted(names) == ["0.jpg", "1.jpg", "2.jpg"]
        for name in names:
            (event,) = delivery_events(daemon, name, "team")
            assert event["task"]
    finally:
        daemon.stop_if_running()


def test_label_studio_that_is_away_holds_up_neither_batches_nor_manifests(
    label_studio: LabelStudio, tmp_path: Path
) -> None:
    daemon = build_daemon(tmp_path, label_studio, "Away", "0" * 40)
    try:
        put_pictures(daemon)
        daemon.start()
        wait_for(
            lambda: states(daemon) == {"copy": {"done"}, "team": {"ready"}} and bool(errors(daemon)),
            what="the manifest alone",
            explain=lambda: explain(daemon),
        )
        assert all("401" in error for error in errors(daemon))
        daemon.kill()
        daemon.environ[f"{STUDIO}TOKEN"] = label_studio.legacy_token
        daemon.start()
        wait_for(lambda: is_delivered(daemon), what="delivered", explain=lambda: explain(daemon))
        (project,) = label_studio.find_projects("Away")
        assert len(label_studio.load_tasks(project["id"])) == 3
    finally:
        daemon.stop_if_running()


def test_token_that_is_reset_in_label_studio_is_taken_up_from_its_file_without_a_restart(
    label_studio: LabelStudio, tmp_path: Path
) -> None:
    secret, title = tmp_path / "token", "Rotated"
    secret.write_text(old := label_studio.legacy_token)
    files = {f"{STUDIO}TOKEN": "", f"{STUDIO}TOKEN_FILE": str(secret)}
    daemon = build_daemon(tmp_path, label_studio, title, "", **files)
    try:
        put_pictures(daemon)
        daemon.start()
        wait_for(lambda: is_delivered(daemon), limit_s=120, what="delivered", explain=lambda: explain(daemon))
        new = label_studio.reset_legacy_token()
        assert new != old
        OUTPUTS.know(old, new)
        put_pictures(daemon, first=3)
        wait_for(
            lambda: any("401" in error for error in errors(daemon)),
            limit_s=120,
            what="Label Studio refuses the old token",
            explain=lambda: explain(daemon),
        )
        secret.with_suffix(".new").write_text(new)
        secret.with_suffix(".new").replace(secret)
        wait_for(
            lambda: is_delivered(daemon) and len(read_manifests(daemon)) == 6,
            limit_s=120,
            what="delivered with the new token",
            explain=lambda: explain(daemon),
        )
        (project,) = label_studio.find_projects(title)
        names = [task["data"]["file_name"] for task in label_studio.load_tasks(project["id"])]
        assert sorted(names) == [f"{number}.jpg" for number in range(6)]
        assert daemon.terminate() == 0
    finally:
        daemon.stop_if_running()
    log = daemon.read_log()
    assert (log.count('"secret.changed"'), log.count("daemon.started")) == (1, 1)


def put_pictures(daemon: DaemonProcess, *, first: int = 0) -> None:
    folder = daemon.data_dir / "cameras"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + 3):
        image = Image.effect_noise((160, 120), 30 + 40 * number).convert("RGB")
        image.save(folder / f"{number}.jpg")


def states(daemon: DaemonProcess) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for watch in daemon.status()["watches"]:
        for batch in watch["batches"]:
            for delivery in batch["deliveries"]:
                found.setdefault(delivery["sink"], set()).add(delivery["state"])
    return found


def errors(daemon: DaemonProcess) -> list[str]:
    return [
        delivery["error"]
        for watch in daemon.status()["watches"]
        for batch in watch["batches"]
        for delivery in batch["deliveries"]
        if delivery["error"]
    ]


def is_delivered(daemon: DaemonProcess) -> bool:
    watches = daemon.status()["watches"]
    if not watches:
        return False
    (watch,) = watches
    counts = watch["samples"]
    return (
        counts["done"] > 0
        and counts["waiting"] == counts["processing"] == 0
        and states(daemon) == {"copy": {"done"}, "team": {"done"}}
        and all(batch["state"] == "done" for batch in watch["batches"])
    )


def explain(daemon: DaemonProcess) -> str:
    return json.dumps(daemon.status(), indent=1) + daemon.read_log()[-5000:]


def read_manifests(daemon: DaemonProcess) -> dict[tuple[str, int], str]:
    lines = [
        json.loads(line)
        for path in (daemon.data_dir / "selected").glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return {(line["batch"], line["rank"]): line["file_name"] for line in lines}


def check_images(tasks: list[dict[str, Any]]) -> None:
    """The addresses lead to the pictures without a token."""
    with requests.Session() as session:
        session.trust_env = False
        for task in tasks:
            answer = session.get(task["data"]["image"], timeout=30)
            assert answer.status_code == 200, task["data"]["image"]
            Image.open(io.BytesIO(answer.content)).verify()


def delivery_events(daemon: DaemonProcess, name: str, sink: str) -> list[dict[str, Any]]:
    (life,) = daemon.run_json("why", name)
    return [event["facts"] for event in life["events"] if event["facts"].get("sink") == sink]


def check_life(daemon: DaemonProcess, task: dict[str, Any], project_id: int) -> None:
    (facts,) = delivery_events(daemon, task["data"]["file_name"], "team")
    assert facts["state"] == "done"
    assert facts["task"] == str(task["id"])
    assert facts["location"].endswith(f"/projects/{project_id}/data")
