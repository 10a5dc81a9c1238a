"""The test run's own Postgres: a fresh database a test, and nothing left when the run is over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests import postgres

ROOT = Path(__file__).parents[3]
USER_PROGRAM = """
import sys, time
from tests import postgres
client = postgres.Client(sys.argv[1])
print(client.server.port, client.server.pid, flush=True)
time.sleep(60)
"""


class User:
    """A process that uses the server of the run `run_id`."""

    def __init__(self, run_id: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER_PROGRAM, run_id],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def joined(self) -> tuple[int, int]:
        """Port and process id of the server, once it is there."""
        port, pid = self._process.stdout.readline().split()
        return int(port), int(pid)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def run_id(tmp_path):
    return f"{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def users(run_id):
    started = [User(run_id), User(run_id)]
    yield started
    for user in started:
        user.kill()


def _wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _run_pytest(folder: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_inner.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra -p tests.conftest -p no:cacheprovider\n")
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST", "TESTS_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", folder / "pytest.ini", folder],
        cwd=ROOT,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("_time", ["first", "second"])
def test_postgres_url_after_a_test_that_wrote_is_empty(postgres_url, _time):
    with psycopg.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        connection.execute("CREATE TABLE left_behind (id int)")
    assert tables == (0,)


def test_server_run_by_root_runs_as_somebody_else(postgres_server):
    assert Path(f"/proc/{postgres_server.pid}").stat().st_uid != 0


def test_server_asked_with_a_wrong_password_refuses(postgres_server):
    wrong = postgres_server.url("postgres").replace(postgres_server.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


@pytest.mark.parametrize("source", ["system", "pip"])
def test_server_of_two_users_both_killed_stops_with_the_last(source, monkeypatch, run_id, request):
    monkeypatch.setenv(postgres.SOURCE_VARIABLE, source)
    try:
        postgres.find_binaries()
    except postgres.PostgresMissingError as missing:
        pytest.skip(str(missing))
    first, second = request.getfixturevalue("users")
    port, pid = first.joined()
    assert second.joined() == (port, pid)
    folder = next(Path(path) for path in postgres.shared_folder().glob(f"tests-postgres-*-{run_id}"))

    first.kill()
    time.sleep(0.3)
    assert _is_running(pid)

    second.kill()
    assert _wait_until(lambda: not _is_running(pid) and not folder.exists())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2)


def test_server_with_its_supervisor_killed_dies_too(users, run_id):
    _port, pid = users[0].joined()
    os.kill(_parent_of(pid), signal.SIGKILL)
    assert _wait_until(lambda: not _is_running(pid))
    for folder in postgres.shared_folder().glob(f"tests-postgres-*-{run_id}"):
        # Processes of the dead server may still be taking files away.
        shutil.rmtree(folder, ignore_errors=True)


def test_server_after_the_last_user_left_a_late_user_gets_a_new_one(users, run_id):
    _port, pid = users[0].joined()
    for user in users:
        user.kill()
    late = User(run_id)
    try:
        _port, late_pid = late.joined()
        assert late_pid != pid
        assert _is_running(late_pid)
    finally:
        late.kill()


def test_binaries_below_a_closed_folder_are_copied_with_their_libraries(monkeypatch, tmp_path):
    monkeypatch.setenv(postgres.SOURCE_VARIABLE, "pip")
    package = postgres.find_binaries().parents[1]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(package, closed / package.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs", symlinks=True)
    monkeypatch.setattr(sys, "path", [str(closed), *sys.path])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = postgres.find_binaries()
    assert closed in found.parents

    copied = postgres.readable_binaries(found, tmp_path / "run")
    shutil.rmtree(closed)
    done = subprocess.run([copied / "postgres", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "postgres"), done.stderr


def test_test_without_any_postgres_is_skipped_naming_what_is_missing(tmp_path):
    code = """
import pytest
from tests import postgres

@pytest.fixture(autouse=True, scope="session")
def nothing_installed():
    patch = pytest.MonkeyPatch()
    patch.setattr(postgres, "_find_system_binaries", lambda: None)
    patch.setattr(postgres, "_find_pip_binaries", lambda: None)
    yield
    patch.undo()

def test_wants_it(nothing_installed, postgres_url):
    pass
"""
    allowed = _run_pytest(tmp_path, code)
    assert allowed.returncode == 0, allowed.stdout
    assert "1 skipped" in allowed.stdout
    assert "no Postgres to test on; looked for `initdb`" in allowed.stdout


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "true", "TESTS_ALLOW_SKIPS": "1"}, False),
        ({"TESTS_ALLOW_SKIPS": "0"}, True),
    ],
)
def test_skips_in_continuous_integration_are_failures_that_tell_the_reason(tmp_path, variables, refused):
    code = """
import pytest
def test_inside(): pytest.skip("no first thing")
@pytest.mark.skip(reason="no second thing")
def test_marked(): pass
@pytest.fixture
def absent(): pytest.skip("no third thing")
def test_fixture(absent): pass
@pytest.mark.xfail(strict=True, reason="known")
def test_known(): assert False
def test_passes(): pass
"""
    done = _run_pytest(tmp_path, code, **variables)
    counts = "1 passed, 1 xfailed"
    wanted = f"1 failed, {counts}, 2 errors" if refused else "1 passed, 3 skipped, 1 xfailed"
    assert wanted in done.stdout
    assert done.returncode == int(refused)
    for nth in ("first", "second", "third"):
        assert f"no {nth} thing" in done.stdout


@pytest.mark.parametrize(("variables", "code"), [({}, 0), ({"CI": "true"}, 2)])
def test_skipped_module_in_continuous_integration_is_a_failure(tmp_path, variables, code):
    (tmp_path / "test_other.py").write_text("def test_passes(): pass\n")
    body = "import pytest\npytest.skip('no such thing here', allow_module_level=True)\n"
    done = _run_pytest(tmp_path, body, **variables)
    assert done.returncode == code, done.stdout
    assert "no such thing here" in done.stdout
