"""The image's HEALTHCHECK, inside containers that run the daemon, a worker or the platform: real first processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.postgres import free_port
from tests.waiting import wait_for

pytestmark = pytest.mark.deep

ROOT = Path(__file__).parents[2]
DOCKERFILE = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text())
HEALTHCHECK = json.loads(re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
PYTHON = [sys.executable, "-m"]  # then `watcher` and its arguments, as in the image
APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
Health = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start_first(tmp_path: Path) -> Iterator[Callable[..., Health]]:
    """Starts a command as the first process of a namespace; gives what runs the HEALTHCHECK beside it."""
    problem = find_problem()
    if problem is not None:
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    running: list[subprocess.Popen[bytes]] = []

    def start(command: Sequence[str], **variables: str) -> Health:
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("WATCHER_", "LIGHTLY_"))
        }
        environ |= {"WATCHER_DATA_DIR": str(tmp_path / "data"), **variables}
        with (tmp_path / f"{command[0]}.log").open("wb") as log:
            outside = subprocess.Popen(
                [*APART, *PYTHON, "watcher", *command], env=environ, stdout=log, stderr=log
            )
        running.append(outside)
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        wait_for(lambda: bool(children.read_text().split()), what="the namespace has a process")
        first = children.read_text().split()[0]

        def ask(*more: str) -> subprocess.CompletedProcess[str]:
            inside = ["nsenter", "--target", first, "--pid", "--mount", "--wdns=/"]
            return subprocess.run(
                [*inside, *PYTHON, *HEALTHCHECK, *more],
                env={**environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        return ask

    yield start
    for outside in running:
        # Its one child is the first process inside, and with that all of them end.
        outside.send_signal(signal.SIGKILL)
        outside.wait(timeout=20)


def find_problem() -> str | None:
    for program in ("unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install util-linux"
    tried = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False, timeout=60)
    return f"this user may make no process namespace: {tried.stderr.strip()}" if tried.returncode else None


def wait_until_well(ask: Health, log: Path) -> str:
    wait_for(lambda: ask().returncode == 0, limit_s=90, what="the container is well", explain=log.read_text)
    return ask().stdout


def test_container_of_a_platform_is_well_by_its_own_address(start_first, tmp_path: Path):
    port = free_port()
    ask = start_first(["platform", "--host", "0.0.0.0", "--port", str(port)], WATCHER_LOG__FORMAT="json")
    assert wait_until_well(ask, tmp_path / "platform.log")
    assert "no answer" in ask("--of", "run").stderr


def test_container_of_a_daemon_is_well_by_its_own_address(start_first, tmp_path: Path):
    groups = ("HTTP", "PLATFORM", "WORKER")
    ports = {f"WATCHER_{group}__PORT": str(free_port()) for group in groups}
    ask = start_first(["run"], WATCHER_HTTP__HOST="0.0.0.0", **ports)
    assert '"ok"' in wait_until_well(ask, tmp_path / "run.log")
    assert "no answer" in ask("--of", "worker").stderr


def test_container_of_a_worker_is_well_by_its_own_address(start_first, tmp_path: Path, postgres_url: str):
    variables = {
        "WATCHER_STORE__URL": postgres_url,
        "WATCHER_DISPATCH": "procrastinate",
        "LIGHTLY_TOKEN": "the-t0ken-of-nobody",
        "LIGHTLY_SERVER_LOCATION": f"http://127.0.0.1:{free_port()}",
        "WATCHER_WATCHES__INCOMING__DATASET": "incoming",
        "WATCHER_WORKER__PORT": str(free_port()),
        "WATCHER_HTTP__PORT": str(free_port()),
    }
    ask = start_first(["worker"], **variables)
    assert '"ok"' in wait_until_well(ask, tmp_path / "worker.log")
    assert "no answer" in ask("--of", "run").stderr
