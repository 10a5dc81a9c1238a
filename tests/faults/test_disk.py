"""Disks that are full or read-only, a store that is locked or replaced: told clearly, nothing lost, mended by itself."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon_process import DaemonProcess
from tests.faults.load import draw, put_whole
from tests.postgres import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.deep

SMALL_BYTES = 4_000_000
WATCH = "WATCHER_WATCHES__INCOMING__"
QUICK = {
    f"{WATCH}SCHEDULE__INTERVAL_S": "1",
    f"{WATCH}SCHEDULE__JITTER_S": "0",
    f"{WATCH}POLL__HOLD_BACK_S": "0",
    f"{WATCH}BATCH__MIN_SAMPLES": "1",
    f"{WATCH}BATCH__MAX_WAIT_S": "1",
    "WATCHER_RUNS__RETRY_BASE_S": "0.2",
    "WATCHER_RUNS__RETRY_CAP_S": "2",
}
_LIMIT_S = 90.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as large as a small store and not much more."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"a small file system cannot be mounted here (root with CAP_SYS_ADMIN can): {done.stderr.strip()}"
        )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    started: list[DaemonProcess] = []

    def make(store: Path) -> DaemonProcess:
        # A port that stays, since one of the tests sees the daemon start anew by itself.
        port = str(free_port())
        daemon = DaemonProcess(
            tmp_path / "data", **QUICK, WATCHER_STORE__URL=f"sqlite:///{store}", WATCHER_HTTP__PORT=port
        )
        started.append(daemon)
        return daemon

    yield make
    for daemon in started:
        daemon.stop_if_running()


def _put(daemon: DaemonProcess, number: int) -> None:
    put_whole(daemon.data_dir / "incoming", f"{number}.jpg", draw(number))


def _fill(path: Path) -> None:
    """Writes until the disk is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    return
                raise


def _count_done(daemon: DaemonProcess) -> int:
    answer = daemon.get("/api/v1/status")
    if answer.status_code != 200:
        return -1
    watches = answer.json()["watches"]
    return watches[0]["samples"]["done"] if watches else 0


def _wait_until_done(daemon: DaemonProcess, n: int) -> None:
    wait_for(
        lambda: _count_done(daemon) == n,
        limit_s=_LIMIT_S,
        what=f"{n} done",
        explain=lambda: daemon.get("/api/v1/status").text + daemon.read_log()[-3000:],
    )


def _wait_until_not_ready(daemon: DaemonProcess, told: str) -> None:
    def is_told() -> bool:
        answer = daemon.get("/health/ready")
        return answer.status_code == 503 and told in answer.json()["problems"].get("store", "")

    wait_for(is_told, limit_s=_LIMIT_S, what=told, explain=lambda: daemon.get("/health/ready").text)
    assert daemon.get("/health/live").status_code == 200, "a new start would help nobody"


def _wait_until_ready(daemon: DaemonProcess) -> None:
    wait_for(lambda: daemon.get("/health/ready").status_code == 200, limit_s=_LIMIT_S, what="ready again")


def _check_each_once(daemon: DaemonProcess, n: int) -> None:
    """The audit compares datasource, ledger and dataset, and a batch's picks are delivered."""
    (report,) = daemon.run_json("audit")
    assert report["n_remote"] == n
    assert "run.crashed" not in daemon.read_log()
    assert "task.crashed" not in daemon.read_log()
    assert "worker.crashed" not in daemon.read_log()


def test_full_disk_under_the_store_is_told_and_what_arrived_meanwhile_is_done_afterwards(
    start, small_disk: Path
) -> None:
    daemon = start(small_disk / "store.sqlite")
    daemon.start()
    _put(daemon, 0)
    _wait_until_done(daemon, 1)
    ballast = small_disk / "ballast"
    _fill(ballast)
    for number in range(1, 4):
        _put(daemon, number)
    _wait_until_not_ready(daemon, "is full or failing")
    assert _count_done(daemon) == 1
    ballast.unlink()
    _wait_until_done(daemon, 4)
    _wait_until_ready(daemon)
    _check_each_once(daemon, 4)


def test_read_only_disk_refuses_the_start_by_name_and_the_next_one_goes_on(start, small_disk: Path) -> None:
    daemon = start(small_disk / "store.sqlite")
    daemon.start()
    _put(daemon, 0)
    _wait_until_done(daemon, 1)
    daemon.kill()
    _put(daemon, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    told = daemon.run_command("run", expect=1)
    assert "store.sqlite" in told
    assert "read" in told.lower()
    assert "Traceback" not in told
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    daemon.start()
    _wait_until_done(daemon, 2)
    _check_each_once(daemon, 2)


def test_store_locked_by_another_process_for_longer_than_the_busy_time_out_is_told_and_waited_for(
    start, tmp_path: Path
) -> None:
    daemon = start(tmp_path / "store.sqlite")
    daemon.start()
    _put(daemon, 0)
    _wait_until_done(daemon, 1)
    # Holds SQLite's write lock until its input ends.
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-uc", code, str(tmp_path / "store.sqlite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder:
        holder.stdout.readline()
        _put(daemon, 1)
        _wait_until_not_ready(daemon, "was locked for over")
        assert _count_done(daemon) == 1
        holder.stdin.close()
    _wait_until_done(daemon, 2)
    _wait_until_ready(daemon)
    _check_each_once(daemon, 2)


def test_store_that_is_taken_away_is_told_and_goes_on_once_it_is_back(start, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    daemon = start(store)
    daemon.start()
    _put(daemon, 0)
    _wait_until_done(daemon, 1)
    away = tmp_path / "away.sqlite"
    store.rename(away)
    _put(daemon, 1)
    _wait_until_not_ready(daemon, "is gone")
    assert not store.exists(), "no second store was begun in its place"
    away.rename(store)
    _wait_until_done(daemon, 2)
    _check_each_once(daemon, 2)


def test_store_replaced_by_its_backup_is_noticed_and_the_daemon_starts_anew_with_it(
    start, tmp_path: Path
) -> None:
    store, backup = tmp_path / "store.sqlite", tmp_path / "backup.sqlite"
    daemon = start(store)
    daemon.start()
    _put(daemon, 0)
    _wait_until_done(daemon, 1)
    with sqlite3.connect(store) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()
    _put(daemon, 1)
    _wait_until_done(daemon, 2)
    for end in ("-wal", "-shm"):
        store.with_name(store.name + end).unlink(missing_ok=True)
    backup.replace(store)
    _put(daemon, 2)
    wait_for(lambda: _is_up_with(daemon, 3), limit_s=_LIMIT_S, what="all done", explain=daemon.read_log)
    assert daemon.read_log().count('"daemon.started"') == 2
    _check_each_once(daemon, 3)


def _is_up_with(daemon: DaemonProcess, n: int) -> bool:
    try:
        return _count_done(daemon) == n
    except OSError:  # between the two starts nobody listens
        return False
