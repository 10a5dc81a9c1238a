"""What a person meets when something is wrong: one clear text, only what must stop stops, nothing is lost."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.daemon_process import DaemonProcess
from tests.waiting import wait_for
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig

WATCH = "WATCHER_WATCHES__INCOMING__"
QUICK = {
    f"{WATCH}SCHEDULE__INTERVAL_S": "0.5",
    f"{WATCH}SCHEDULE__JITTER_S": "0",
    f"{WATCH}POLL__HOLD_BACK_S": "0",
    f"{WATCH}BATCH__MIN_SAMPLES": "1",
    f"{WATCH}UPLOAD__SETTLE_S": "0.5",
    f"{WATCH}UPLOAD__SETTLE_ATTEMPTS": "1",
    "WATCHER_RUNS__RETRY_BASE_S": "0.2",
}
TOKEN = "the-right-token"
WRONG_TOKEN = "a-wrong-token-nobody-may-see"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    started: list[DaemonProcess] = []

    def _start(**variables: str) -> DaemonProcess:
        daemon = DaemonProcess(tmp_path / "data", **QUICK, **variables)
        started.append(daemon)
        daemon.start()
        return daemon

    yield _start
    for daemon in started:
        daemon.stop_if_running()


def _picture(seed: int = 0, size: int = 64) -> bytes:
    image = Image.effect_noise((size, size), 40 + seed).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def _sample_states(daemon: DaemonProcess) -> dict[str, int]:
    watches = daemon.status()["watches"]
    return {state: n for state, n in watches[0]["samples"].items() if n} if watches else {}


@pytest.mark.scenario(number=11)
def test_files_that_are_no_good_pictures_are_set_aside_each_with_its_reason(
    start: Callable[..., DaemonProcess],
) -> None:
    daemon = start()
    incoming = daemon.data_dir / "incoming"
    good = [
        "plain.jpg",
        "with space.jpg",
        "a+b%20c.jpg",
        "münchen-東京.jpg",
        ".leading-dot.jpg",
        "deep/er/x.jpg",
    ]
    for number, name in enumerate(good):
        (incoming / name).parent.mkdir(parents=True, exist_ok=True)
        (incoming / name).write_bytes(_picture(number))
    (incoming / "half.jpg").write_bytes(_picture(9, 300)[:-2000])
    (incoming / "text.jpg").write_text("I am no picture")
    (incoming / "empty.png").touch()
    wait_for(
        lambda: _sample_states(daemon) == {"done": len(good), "quarantined": 3},
        what="good ones done, bad ones set aside",
        explain=lambda: str(_sample_states(daemon)) + daemon.read_log()[-3000:],
    )
    reasons = {s["file_name"]: s["reason"] for s in daemon.status()["watches"][0]["troubled"]}
    assert set(reasons) == {"half.jpg", "text.jpg", "empty.png"}
    assert len(set(reasons.values())) == 3, reasons
    assert daemon.run_json("why", "text.jpg")[0]["explanation"].endswith(reasons["text.jpg"])
    assert daemon.get("/health/live").status_code == 200


@pytest.mark.scenario(number=18)
def test_folder_that_vanishes_stops_only_its_watch_and_comes_back(
    start: Callable[..., DaemonProcess],
) -> None:
    other = {
        name.replace("INCOMING", "OTHER"): value for name, value in QUICK.items() if name.startswith(WATCH)
    }
    daemon = start(**other)
    names = {watch["name"] for watch in _wait_for_watches(daemon, 2)}
    assert names == {"incoming", "other"}
    shutil.rmtree(daemon.data_dir / "incoming")
    (daemon.data_dir / "other" / "a.jpg").write_bytes(_picture())
    wait_for(lambda: "incoming" in _failed_polls(daemon), what="the failure is told")
    wait_for(lambda: _watch(daemon, "other")["samples"]["done"] == 1, what="the other watch goes on")
    (daemon.data_dir / "incoming").mkdir()
    (daemon.data_dir / "incoming" / "b.jpg").write_bytes(_picture(1))
    wait_for(lambda: _watch(daemon, "incoming")["samples"]["done"] == 1, what="the watch recovers")


def _wait_for_watches(daemon: DaemonProcess, n: int) -> list[dict[str, str]]:
    wait_for(lambda: len(daemon.status()["watches"]) == n, what=f"{n} watches")
    watches: list[dict[str, str]] = daemon.status()["watches"]
    return watches


def _watch(daemon: DaemonProcess, name: str) -> dict[str, dict[str, int]]:
    return next(watch for watch in daemon.status()["watches"] if watch["name"] == name)


def _failed_polls(daemon: DaemonProcess) -> str:
    return "\n".join(line for line in daemon.read_log().splitlines() if "task.failed" in line)


@pytest.fixture
def lone_platform(tmp_path: Path) -> Iterator[PlatformServer]:
    (tmp_path / "objects" / "incoming").mkdir(parents=True)
    server = PlatformServer(
        PlatformConfig(
            token=TOKEN, datasource_root=tmp_path / "objects", data_dir=tmp_path / "platform", port=0
        )
    )
    server.start()
    yield server
    server.stop()


def test_wrong_token_is_told_without_showing_it_and_nothing_ends(
    start: Callable[..., DaemonProcess], lone_platform: PlatformServer
) -> None:
    daemon = start(
        LIGHTLY_TOKEN=WRONG_TOKEN,
        LIGHTLY_SERVER_LOCATION=lone_platform.url,
        **{f"{WATCH}DATASET": "incoming"},
    )
    wait_for(lambda: "credentials" in daemon.get("/health/ready").text, what="readiness tells")
    assert daemon.get("/health/ready").status_code == 503
    assert daemon.get("/health/live").status_code == 200
    wait_for(lambda: "401" in _failed_polls(daemon), what="the log tells")
    assert WRONG_TOKEN not in daemon.read_log() + daemon.get("/").text + daemon.get("/metrics").text


def test_unknown_dataset_and_unreachable_server_are_told_and_waited_for(
    start: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    daemon = start(
        LIGHTLY_TOKEN=TOKEN,
        LIGHTLY_SERVER_LOCATION=f"http://127.0.0.1:{port}",
        **{f"{WATCH}DATASET": "never-made"},
    )
    wait_for(lambda: "NotSentError" in _failed_polls(daemon), what="the log tells")
    assert daemon.get("/health/ready").json()["problems"]["server"]
    assert daemon.get("/health/live").status_code == 200
    server = PlatformServer(
        PlatformConfig(token=TOKEN, datasource_root=tmp_path, data_dir=tmp_path / "platform", port=port)
    )
    server.start()
    try:
        wait_for(lambda: "never-made" in _failed_polls(daemon), what="the dataset is named")
        wait_for(lambda: daemon.get("/health/ready").status_code == 200, what="ready")
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_is_told_and_nothing_is_lost(start: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip(
            "a small disk cannot be mounted: it needs root, and the program mount of the package mount"
        )
    try:
        daemon = start(WATCHER_STORE__URL=f"sqlite:///{disk / 'store.sqlite'}")
        _wait_for_watches(daemon, 1)
        _fill(disk / "filler")
        (daemon.data_dir / "incoming" / "a.jpg").write_bytes(_picture())
        wait_for(lambda: "is full" in _failed_polls(daemon), what="the full disk is told")
        assert daemon.get("/health/live").status_code == 200
        (disk / "filler").unlink()
        wait_for(lambda: _sample_states(daemon) == {"done": 1}, what="it goes on by itself")
        assert daemon.terminate() == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                return


def _run_to_its_end(data_dir: Path, **variables: str) -> tuple[int, str]:
    daemon = DaemonProcess(data_dir, **variables)
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "run"],
        env=daemon.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({f"{WATCH}SCHEDULE__CRON": "0 0 31 2 *"}, "'0 0 31 2 *' never fires"),
        ({"WATCHER_HTP__PORT": "1"}, "did you mean WATCHER_HTTP__PORT?"),
        ({"WATCHER_STORE__URL": "mysql://u:hush@h/d"}, "'mysql'"),
        ({"LIGHTLY_TOKEN": "hush-hush"}, "LIGHTLY_SERVER_LOCATION"),
        ({"WATCHER_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
        ({"WATCHER_PLATFORM__TOKEN": "short"}, "token"),
    ],
)
def test_start_with_a_wrong_setting_ends_at_once_and_names_it(
    tmp_path: Path, variables: dict[str, str], told: str
) -> None:
    code, text = _run_to_its_end(tmp_path / "data", **variables)
    assert code == 2, text
    assert told in text
    assert "hush" not in text
    assert "Traceback" not in text


def test_start_on_a_taken_port_names_the_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = _run_to_its_end(tmp_path / "data", WATCHER_HTTP__PORT=str(port))
    assert code == 2, text
    assert f"{port}" in text
    assert "WATCHER_HTTP__PORT" in text


@pytest.mark.scenario(number=31)
@pytest.mark.scenario(number=14)
def test_second_daemon_on_one_store_is_refused_by_name(
    start: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = start()
    code, text = _run_to_its_end(tmp_path / "data")
    assert code == 1, text
    assert f"process {daemon.pid}" in text


def test_start_on_an_older_schema_names_the_command(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with sqlite3.connect(data_dir / "watcher.sqlite") as connection:
        connection.execute("CREATE TABLE watcher_schema_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO watcher_schema_version VALUES ('9999')")
    connection.close()
    code, text = _run_to_its_end(data_dir)
    assert code == 1, text
    assert "newer release" in text


@pytest.mark.scenario(number=13)
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.deep), signal.SIGTERM])
def test_signal_drains_and_exits_with_0(start: Callable[..., DaemonProcess], number: int) -> None:
    daemon = start()
    for name in range(20):
        (daemon.data_dir / "incoming" / f"{name}.jpg").write_bytes(_picture(name, 200))
    wait_for(lambda: "batches" in daemon.read_log(), what="work is under way")
    assert daemon.terminate(number) == 0
    assert "Traceback" not in daemon.read_log()
    daemon.start()
    wait_for(lambda: _sample_states(daemon) == {"done": 20}, what="the rest is done")


def test_second_signal_ends_at_once(start: Callable[..., DaemonProcess]) -> None:
    daemon = start()
    os.kill(daemon.pid, signal.SIGSTOP)
    os.kill(daemon.pid, signal.SIGTERM)
    os.kill(daemon.pid, signal.SIGINT)
    os.kill(daemon.pid, signal.SIGCONT)
    assert daemon.wait_for_end() in {128 + signal.SIGTERM, 128 + signal.SIGINT}


def test_poll_and_audit_beside_a_daemon_that_reaches_no_server_end_with_its_reason(start):
    """The runbook sends people there; nothing may wait for a listing that never begins."""
    daemon = start(
        LIGHTLY_TOKEN=TOKEN,
        LIGHTLY_SERVER_LOCATION="http://127.0.0.1:9",
        WATCHER_API__CONNECT_TIMEOUT_S="1",
        **{f"{WATCH}DATASET": "gate"},
    )
    for command in ("poll", "audit"):
        told = daemon.run_command(command, expect=1)
        assert "incoming: " in told
        assert "could not connect" in told
    assert "has not reached its server yet:" in daemon.run_command("status")
