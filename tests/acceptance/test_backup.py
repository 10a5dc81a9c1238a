"""A backup of a running daemon, put back elsewhere, goes on where it was; a bad one changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon_process import DaemonProcess
from tests.acceptance.test_bad_input import QUICK, _picture
from tests.waiting import wait_for


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[[str], DaemonProcess]]:
    built: list[DaemonProcess] = []

    def _build(name: str) -> DaemonProcess:
        built.append(DaemonProcess(tmp_path / name, **QUICK))
        return built[-1]

    yield _build
    for daemon in built:
        daemon.stop_if_running()


def states(daemon: DaemonProcess) -> dict[str, int]:
    seen = daemon.status()["watches"]
    return {state: n for state, n in seen[0]["samples"].items() if n} if seen else {}


def put(daemon: DaemonProcess, *names: str) -> None:
    for number, name in enumerate(names):
        (daemon.data_dir / "incoming" / name).write_bytes(_picture(number + len(name)))


def wait_for_done(daemon: DaemonProcess, n: int) -> None:
    wait_for(
        lambda: states(daemon) == {"done": n}, limit_s=90, what=f"{n} samples done", explain=daemon.read_log
    )


def list_samples(daemon: DaemonProcess) -> list[str]:
    """The names of the dataset on the platform, repeats included."""
    with sqlite3.connect(daemon.data_dir / "platform" / "platform.sqlite") as connection:
        return sorted(name for (name,) in connection.execute("SELECT file_name FROM platform_samples"))


@pytest.mark.deep
def test_backup_of_a_running_daemon_restored_elsewhere_goes_on_and_doubles_nothing(build, tmp_path):
    daemon = build("data")
    daemon.start()
    put(daemon, "a.jpg", "b.jpg")
    wait_for_done(daemon, 2)
    daemon.run_command("audit")
    told = daemon.run_command("backup", str(tmp_path / "backup"))
    assert "watcher.sqlite" in told
    assert "statement.key" in told
    assert "platform.key" in told
    put(daemon, "late.jpg")
    wait_for_done(daemon, 3)
    daemon.kill()

    other = build("other")
    other.run_command("restore", str(tmp_path / "backup"))
    assert (other.data_dir / "watcher.sqlite").stat().st_mode & 0o777 == 0o600
    shutil.copytree(daemon.data_dir / "incoming", other.data_dir / "incoming", dirs_exist_ok=True)
    other.start()
    # What arrived after the backup lies in the folder still, with its time: it is found again.
    wait_for_done(other, 3)
    other.run_command("audit")
    other.run_command("statement", "export", "incoming", "--file", str(tmp_path / "statements.jsonl"))
    other.run_command("statement", "verify", str(tmp_path / "statements.jsonl"))
    assert list_samples(other) == ["a.jpg", "b.jpg", "late.jpg"]
    tokens = [(d.data_dir / "platform" / "token").read_text() for d in (daemon, other)]
    assert tokens[0] == tokens[1]


def read_manifests(daemon: DaemonProcess) -> dict[str, list[str]]:
    """The files that each manifest names."""
    return {
        path.name: [json.loads(line)["file_name"] for line in path.read_text().splitlines()]
        for path in (daemon.data_dir / "selected").glob("*.jsonl")
    }


def find_manifests(daemon: DaemonProcess, file_name: str) -> list[str]:
    return [name for name, files in read_manifests(daemon).items() if file_name in files]


@pytest.mark.deep
def test_restore_over_an_installation_keeps_what_was_there_beside_it(build, tmp_path):
    daemon = build("data")
    daemon.start()
    put(daemon, "a.jpg")
    wait_for_done(daemon, 1)
    daemon.run_command("backup", str(tmp_path / "backup"))
    put(daemon, "b.jpg")
    wait_for_done(daemon, 2)
    wait_for(lambda: find_manifests(daemon, "b.jpg"), limit_s=60, what="a manifest of the second batch")

    refused = daemon.run_command("restore", str(tmp_path / "backup"), expect=1)
    assert "another daemon" in refused
    daemon.terminate()
    daemon.run_command("restore", str(tmp_path / "backup"))
    (kept,) = daemon.data_dir.glob("watcher.sqlite.before-*")
    with sqlite3.connect(kept) as connection:
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (2,)
    before = read_manifests(daemon)
    put(daemon, "cc.jpg")
    daemon.start()
    wait_for_done(daemon, 3)
    assert list_samples(daemon) == ["a.jpg", "b.jpg", "cc.jpg"]
    # The second batch's number is given out again: what went out under it stays, the new picks lie beside it.
    wait_for(lambda: find_manifests(daemon, "cc.jpg"), limit_s=60, what="a manifest of the new picks")
    assert len(before) == 2
    after = read_manifests(daemon)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("name", ["watcher.sqlite", pytest.param("platform.key", marks=pytest.mark.deep)])
def test_restore_of_a_damaged_backup_names_the_file_and_changes_nothing(build, tmp_path, name):
    daemon = build("data")
    daemon.start()
    daemon.run_command("backup", str(tmp_path / "backup"))
    daemon.terminate()
    before = (daemon.data_dir / "watcher.sqlite").read_bytes()
    damaged = bytearray((tmp_path / "backup" / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "backup" / name).write_bytes(damaged)
    refused = daemon.run_command("restore", str(tmp_path / "backup"), expect=2)
    assert f"{name} of the backup" in refused
    assert "damaged" in refused
    assert (daemon.data_dir / "watcher.sqlite").read_bytes() == before
    assert list(daemon.data_dir.glob("*before*")) == []


def test_backup_into_a_folder_that_is_there_is_refused_and_leaves_it_alone(build, tmp_path):
    daemon = build("data")
    daemon.run_command("migrate")
    (tmp_path / "backup").mkdir()
    assert "is there already" in daemon.run_command("backup", str(tmp_path / "backup"), expect=2)
    assert list((tmp_path / "backup").iterdir()) == []


def test_backup_of_a_broken_database_leaves_nothing_behind(build, tmp_path):
    daemon = build("data")
    daemon.run_command("migrate")
    broken = daemon.data_dir / "platform" / "platform.sqlite"
    broken.write_bytes(broken.read_bytes()[:4096] + b"\xff" * (broken.stat().st_size - 4096))
    assert "platform.sqlite" in daemon.run_command("backup", str(tmp_path / "backups" / "today"), expect=1)
    assert list((tmp_path / "backups").iterdir()) == []


def test_restore_from_a_folder_without_a_backup_names_what_is_missing(build, tmp_path):
    assert "holds no backup" in build("data").run_command("restore", str(tmp_path), expect=2)


def test_backup_of_a_store_in_postgres_names_its_own_tools(tmp_path):
    daemon = DaemonProcess(tmp_path / "data", WATCHER_STORE__URL="postgresql://u:secret@127.0.0.1:1/x")
    refused = daemon.run_command("backup", str(tmp_path / "backup"), expect=2)
    assert "pg_dump" in refused
    assert "secret" not in refused
