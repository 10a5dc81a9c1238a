"""One daemon a store: the second is refused, and a killed holder leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders import open_store
from watcher.database.engine import build_database
from watcher.domain.errors import StoreLockedError
from watcher.leadership import Leadership

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from watcher.database.engine import build_database
from watcher.leadership import Leadership

lock = Leadership(build_database(sys.argv[1]), lease_s=1.0)
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(url: str):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert any(line == "held\n" for line in process.stdout), "it does not hold it"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def acquire_within(lock: Leadership, seconds: float) -> None:
    ends_s = time.monotonic() + seconds
    while True:
        try:
            lock.acquire()
        except StoreLockedError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.02)
        else:
            return


@pytest.mark.scenario(number=14)
def test_lock_held_by_another_process_is_refused_and_free_after_its_kill(store_url):
    database = build_database(store_url)
    lock = Leadership(database, lease_s=1.0)
    with holder(store_url) as process:
        with pytest.raises(StoreLockedError) as caught:
            lock.acquire()
        text = str(caught.value)
        assert "another daemon" in text
        if database.is_sqlite:
            assert f"process {process.pid}" in text
            assert "WATCHER_DATA_DIR" in text
        lock.release()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        acquire_within(lock, 10)
    with pytest.raises(StoreLockedError):
        Leadership(database).acquire()
    lock.release()
    database.close()


def test_lock_given_back_can_be_taken_again(store_url):
    database = build_database(store_url)
    first, second = Leadership(database), Leadership(database)
    first.acquire()
    with pytest.raises(StoreLockedError):
        second.acquire()
    second.release()
    with pytest.raises(StoreLockedError):
        second.acquire()
    first.release()
    first.release()
    acquire_within(second, 5)
    second.release()
    database.close()


def test_locks_of_two_stores_do_not_meet(tmp_path):
    held = []
    for name in ("a", "b"):
        with open_store(f"sqlite:///{tmp_path / name}"):
            pass
        database = build_database(f"sqlite:///{tmp_path / name}")
        lock = Leadership(database, lease_s=1.0)
        lock.acquire()
        held.append((lock, database))
    for lock, database in held:
        lock.release()
        database.close()


def test_lock_file_is_for_its_owner_alone(sqlite_url, tmp_path):
    with open_store(sqlite_url):
        pass
    database = build_database(sqlite_url)
    lock = Leadership(database, lease_s=1.0)
    lock.acquire()
    (path,) = tmp_path.glob("*.lock")
    assert path.stat().st_mode & 0o777 == 0o600
    lock.release()
    database.close()


def test_each_daemon_of_a_file_begins_a_greater_epoch(sqlite_url):
    epochs = []
    for _ in range(2):
        with open_store(sqlite_url) as database:
            lock = Leadership(database)
            lock.acquire()
            epochs.append(lock.epoch)
            lock.release()
    assert epochs == [1, 2]
