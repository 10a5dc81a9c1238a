"""What all commands have in common: an answer or one clear line, and an exit code that tells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.builders import add_batch, add_watch, deliver, open_store
from tests.stores import empty_store
from watcher.cli.app import list_places
from watcher.domain.delivery import DeliverRules, DeliveryState, ManifestRules, SinkConfig, WebhookRules
from watcher.domain.models import Step, WatchConfig
from watcher.store import control
from watcher.store.duty_requests import load_open_requests
from watcher.store.leadership import load_leader, take_lead

ROOT = Path(__file__).parents[3]
MISSING = """
import importlib.machinery

find = importlib.machinery.PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name == "{name}" else find(name, path, target)

importlib.machinery.PathFinder.find_spec = find_spec
"""


def test_command_of_the_installed_package_runs_in_its_own_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "check-config"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "WATCHER_HTTP__PROT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "watcher: WATCHER_HTTP__PROT is not a setting: did you mean WATCHER_HTTP__PORT?\n"


@pytest.mark.parametrize("missing", ["obstore", pytest.param("cryptography", marks=pytest.mark.deep)])
def test_daemon_without_the_platforms_libraries_names_the_way_out_and_serves_another_server(
    tmp_path, missing
):
    (tmp_path / "sitecustomize.py").write_text(MISSING.format(name=missing))
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "WATCHER_DATA_DIR": str(tmp_path / "data"),
    }

    def run(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "watcher", command],
            cwd=tmp_path,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    refused = run("run", WATCHER_HTTP__PORT="0", WATCHER_PLATFORM__PORT="0")
    assert refused.returncode == 2
    assert f"the package {missing} is missing" in refused.stderr
    assert "LIGHTLY_TOKEN" in refused.stderr
    elsewhere = run(
        "poll",
        LIGHTLY_TOKEN="a-token-of-a-server-that-is-not-there",
        LIGHTLY_SERVER_LOCATION="http://127.0.0.1:9",
        WATCHER_WATCHES__A__DATASET="a",
        WATCHER_API__CONNECT_TIMEOUT_S="0.2",
    )
    assert "missing" not in elsewhere.stderr
    assert "could not connect" in elsewhere.stderr


def test_command_without_the_daemons_libraries_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no typer', name='typer')")
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "status"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'datasource-watcher[daemon,platform]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", ["run", "poll", "status", "why", "migrate", "check-config", "platform", "demo", "drop"]
)
def test_command_explains_itself(command, name):
    done = command(name, "--help")
    assert done.exit_code == 0
    assert "Usage: " in done.stdout


@pytest.mark.deep
def test_change_whose_command_is_killed_behind_it_is_whole_and_made_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'watcher.sqlite'}"
    with open_store(url) as database:
        batch = add_batch(database, add_watch(database), ["a"])
        deliver(database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")

    def drop(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "watcher", "drop", "gate", "--sink", "gone"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "WATCHER_DATA_DIR": str(tmp_path)}
            | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    killed = drop(CRASH_AT="control.changed")
    assert (killed.returncode, killed.stdout) == (-9, "")
    again = drop()
    assert (again.returncode, again.stdout) == (0, "gate: dropped already\n"), again.stderr
    with open_store(url) as database, database.read() as session:
        assert [entry.verb for entry in control.load_audit_log(session, limit=9)] == ["drop"]


def test_command_that_does_not_exist_is_refused(command):
    assert command("pol").exit_code == 2


def test_migrate_makes_the_stores_and_can_be_repeated(command, data_dir):
    for _time in range(2):
        done = command("migrate")
        assert (done.exit_code, done.stderr) == (0, "")
        newest = max(path.stem[:4] for path in (ROOT / "migrations" / "watcher" / "versions").glob("0*.py"))
        assert f"store: version {newest}" in done.stdout
        assert "platform: version " in done.stdout
    assert (data_dir / "watcher.sqlite").exists()
    assert (data_dir / "platform" / "token").stat().st_mode & 0o777 == 0o600


def test_migrate_where_the_data_directory_cannot_be_made_names_the_setting(command, data_dir):
    data_dir.write_text("a file")
    done = command("migrate")
    assert done.exit_code == 2
    assert f"the folder {data_dir} cannot be made" in done.stderr
    assert "set WATCHER_DATA_DIR" in done.stderr


def test_migrate_of_a_file_that_is_no_database_is_told(command, data_dir):
    data_dir.mkdir()
    (data_dir / "watcher.sqlite").write_text("no database " * 100)
    done = command("migrate")
    assert done.exit_code == 1
    assert "is damaged or no SQLite database" in done.stderr


def test_poll_of_an_unknown_watch_names_the_known_ones(command):
    done = command(
        "poll", "door", WATCHER_WATCHES__GATE__DATASET="gate", WATCHER_WATCHES__ROOF__DATASET="roof"
    )
    assert done.exit_code == 2
    assert "there is no watch 'door'; configured are: gate, roof" in done.stderr


def test_poll_of_an_unreachable_server_is_told_and_fails(command, free_port):
    done = command(
        "poll",
        LIGHTLY_TOKEN="5ecr3t",
        LIGHTLY_SERVER_LOCATION=f"http://127.0.0.1:{free_port}",
        WATCHER_WATCHES__GATE__DATASET="gate",
    )
    assert done.exit_code == 1
    assert "gate: " in done.stderr
    assert "5ecr3t" not in done.output


def test_log_tells_who_changed_what(stored_command, database):
    add_watch(database)
    stored_command("pause", "gate")
    stored_command("pause", "gate")
    stored_command("resume", "gate")
    entries = msgspec.json.decode(stored_command("log", "gate", "--json").stdout)
    assert [entry["verb"] for entry in entries] == ["resume", "pause"]
    assert all(entry["actor"].startswith("local (") for entry in entries)
    assert "resume" in stored_command("log").stdout
    unknown = stored_command("log", "door")
    assert unknown.exit_code == 2
    assert "there is no watch 'door'; known are: gate" in unknown.stderr


def test_daemon_whose_platform_finds_its_port_taken_names_the_variable(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environ = {
            "PATH": os.environ["PATH"],
            "WATCHER_DATA_DIR": str(tmp_path),
            "WATCHER_PLATFORM__PORT": port,
        }
        done = subprocess.run(
            [sys.executable, "-m", "watcher", "run"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert f"127.0.0.1:{port}" in done.stderr
    assert "set WATCHER_PLATFORM__PORT" in done.stderr


def test_poll_beside_a_leader_that_died_ends_when_its_lease_is_over_and_nobody_follows(
    command, migrated_url, monkeypatch
):
    monkeypatch.setattr("watcher.cli.beside._LEADERLESS_S", 0.5)
    empty_store(migrated_url)
    with open_store(migrated_url) as database, database.write() as session:
        take_lead(session, holder="watcher pod-b:1:0f", lease_ms=60_000, work_version=1)
        over = replace(load_leader(session), left_ms=-1)
    monkeypatch.setattr("watcher.cli.beside.load_leader", lambda _session: over)
    found = command(
        "poll",
        WATCHER_STORE__URL=migrated_url,
        LIGHTLY_TOKEN="t0ken",
        LIGHTLY_SERVER_LOCATION="http://127.0.0.1:9",
        WATCHER_WATCHES__CAMS__DATASET="cams",
    )
    assert found.exit_code == 1
    assert "nobody leads any more, so the poll of cams waits for the next leader" in found.stderr


@pytest.mark.parametrize("verb", ["poll", "audit"])
def test_poll_and_audit_beside_a_leader_elsewhere_stay_asked_for(command, migrated_url, monkeypatch, verb):
    """On Postgres no control token and no address of the leader is needed; this one does nothing."""
    monkeypatch.setattr("watcher.cli.control._POLL_WAIT_S", 0.3)
    monkeypatch.setattr("watcher.cli.control._AUDIT_WAIT_S", 0.3)
    empty_store(migrated_url)
    with open_store(migrated_url) as database:
        with database.write() as session:
            take_lead(session, holder="watcher pod-b:1:0f", lease_ms=60_000, work_version=1)
        found = command(
            verb,
            WATCHER_STORE__URL=migrated_url,
            LIGHTLY_TOKEN="t0ken",
            LIGHTLY_SERVER_LOCATION="http://127.0.0.1:9",
            WATCHER_WATCHES__CAMS__DATASET="cams",
        )
        with database.read() as session:
            (request,) = load_open_requests(session)
    assert found.exit_code == 1
    assert f"no {verb} of cams ended within 0 s; it stays asked for (watcher pod-b:1:0f leads" in found.stderr
    assert (request.watch, request.duty) == ("cams", verb)


def test_places_of_the_picks_are_those_of_the_sinks(tmp_path):
    def build(*rules, steps=(Step.UPLOAD, Step.DELIVER)):
        sinks = tuple(SinkConfig(name=f"s{number}", rules=each) for number, each in enumerate(rules))
        return WatchConfig(name="w", dataset="w", steps=steps, deliver=DeliverRules(sinks=sinks))

    hook = WebhookRules(url="https://qa.example.com/secret-path", secret="s" * 32)
    configs = [
        WatchConfig(name="w", dataset="w"),
        build(ManifestRules(location="s3://lake/picked"), hook),
        build(ManifestRules(location="/mnt/picks"), ManifestRules()),
        build(ManifestRules(location="never"), steps=(Step.UPLOAD,)),
    ]
    assert list_places(tmp_path, configs) == [
        str(tmp_path / "selected"),
        "s3://lake/picked",
        "https://qa.example.com",
        "/mnt/picks",
    ]
