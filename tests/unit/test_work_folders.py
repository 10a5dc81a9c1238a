"""Temporary folders: what the dead left goes at the next start, and nothing of the living."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import watcher.work_folders
from watcher.work_folders import clear_abandoned, open_work_folder

_HOLD = """
import sys, time
from pathlib import Path
from watcher.work_folders import open_work_folder
with open_work_folder(Path(sys.argv[1]), prefix="embed-") as folder:
    (folder / "embeddings.csv").write_text("x" * 1000)
    print(folder.name, flush=True)
    time.sleep(600)
"""


def _start_holder(work_dir: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(work_dir)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    killed, left = _start_holder(tmp_path)
    living, kept = _start_holder(tmp_path)
    try:
        assert clear_abandoned(tmp_path) == 0
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=30)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([left, kept])
        assert clear_abandoned(tmp_path) == 1
        assert [path.name for path in tmp_path.iterdir()] == [kept]
    finally:
        for process in (killed, living):
            process.kill()
            process.wait(timeout=30)
            assert process.stdout is not None
            process.stdout.close()


def test_folder_is_gone_at_its_end_also_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with open_work_folder(tmp_path, prefix="a-") as folder:
            (folder / "inner").mkdir()
            assert clear_abandoned(tmp_path) == 0
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_files_and_links_beside_the_folders_are_left_alone(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "notes").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (work / "link").symlink_to(tmp_path / "elsewhere")
    assert clear_abandoned(work) == 0
    assert (tmp_path / "elsewhere").is_dir()


def test_one_start_removes_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher.work_folders, "_MOST_REMOVED", 3)
    for number in range(5):
        (tmp_path / f"embed-{number}").mkdir()
    assert [clear_abandoned(tmp_path), clear_abandoned(tmp_path)] == [3, 2]


def test_folder_taken_for_a_dead_ones_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watcher.work_folders._try_lock
    n_cleared = []

    def lock_late(handle: int) -> bool | None:
        monkeypatch.setattr(watcher.work_folders, "_try_lock", real)
        n_cleared.append(clear_abandoned(tmp_path))
        return real(handle)

    monkeypatch.setattr(watcher.work_folders, "_try_lock", lock_late)
    with open_work_folder(tmp_path, prefix="a-") as folder:
        assert n_cleared == [1]
        (folder / "file").write_text("x")
        assert clear_abandoned(tmp_path) == 0


def test_where_the_file_system_has_no_locks_only_what_is_old_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with open_work_folder(tmp_path, prefix="young-") as young:
        old = tmp_path / "old"
        old.mkdir()
        week_ago_s = time.time() - 8 * 86_400
        os.utime(old, (week_ago_s, week_ago_s))
        assert clear_abandoned(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [young]
