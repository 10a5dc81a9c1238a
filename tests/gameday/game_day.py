"""The game day: six things break one after another under a real daemon, platform and Prometheus with the alert rules.

Each time the right alert fires, and it clears after the cure that its section of the runbook gives. The rules are
those that `watcher alerts --render` prints for an objective of seconds. Run by `make test-gameday`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.daemon_process import DaemonProcess
from tests.faults.load import draw, put_whole
from tests.faults.platform_process import PlatformProcess
from tests.gameday.gate import Gate
from tests.postgres import free_port
from tests.prometheus import Prometheus
from tests.waiting import wait_for
from watcher.lightly import datasets, datasources
from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import DatasetCreateRequest
from watcher.lightly.wire.datasources import DatasourceLocal

OBJECTIVE_S = 15
# The daemon has a user of its own, whose folders lie here.
USER = "cam-daemon"
FOLDER = f"users/{USER}/cams"
SILENT_AFTER_S = 12
DISK_BYTES = 64_000_000
WATCH = "WATCHER_WATCHES__CAMS__"
# Beyond every time of the rules, for a loaded machine.
LIMIT_S = 90.0


class Cameras:
    """A picture a second, until they are switched off."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._off = threading.Event()
        self._thread: threading.Thread | None = None

    def switch_on(self) -> None:
        self._off.clear()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def switch_off(self) -> None:
        self._off.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while not self._off.wait(1.0):
            put_whole(self._folder, f"{self._number:06d}.jpg", draw(self._number))
            self._number += 1


class Scene:
    """Everything that runs on the day."""

    def __init__(self, root: Path, prometheus_bin: Path, disk: Path, stack: ExitStack) -> None:
        self.disk = disk
        self.platform = PlatformProcess(root / "server")
        self.platform.start()
        stack.callback(self.platform.kill)
        self.gate = Gate(self.platform.config.port)
        stack.callback(self.gate.close)
        self.token_file = root / "token"
        self.renew_token("add")
        pictures = self.platform.config.datasource_root / FOLDER
        pictures.mkdir(parents=True)
        self._make_dataset()
        self.cameras = Cameras(pictures)
        stack.callback(self.cameras.switch_off)
        self.daemon = DaemonProcess(
            disk / "data",
            WATCHER_HTTP__PORT=str(free_port()),
            LIGHTLY_TOKEN_FILE=str(self.token_file),
            LIGHTLY_SERVER_LOCATION=self.gate.url,
            WATCHER_ALERTS__FRESHNESS_OBJECTIVE_S=str(OBJECTIVE_S),
            WATCHER_HEALTH__RUN_LIMIT_S="8",
            WATCHER_RUNS__RETRY_BASE_S="0.5",
            WATCHER_RUNS__RETRY_CAP_S="2",
            WATCHER_RUNS__LEASE_S="5",
            **{
                f"{WATCH}DATASET": "cams",
                f"{WATCH}SILENT_AFTER_S": str(SILENT_AFTER_S),
                f"{WATCH}SCHEDULE__INTERVAL_S": "1",
                f"{WATCH}SCHEDULE__JITTER_S": "0",
                f"{WATCH}POLL__HOLD_BACK_S": "1",
                f"{WATCH}BATCH__MIN_SAMPLES": "4",
                f"{WATCH}BATCH__MAX_WAIT_S": "3",
                f"{WATCH}STEPS": "upload",
            },
        )
        self.daemon.log_path = root / "daemon.log"
        stack.callback(self.daemon.stop_if_running)
        self.prometheus = Prometheus(
            prometheus_bin, root / "prometheus", rules=self.daemon.run_command("alerts", "--render")
        )
        stack.callback(self.prometheus.stop)

    def renew_token(self, verb: str) -> None:
        """Has the platform give the daemon's user a token; an older one ends."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "watcher", "platform", "--data-dir"),
                *(str(self.platform.config.data_dir), "users", verb, USER),
            ],
            env={k: v for k, v in os.environ.items() if not k.startswith(("WATCHER_", "LIGHTLY_"))}
            | {"WATCHER_PLATFORM__TOKEN": self.platform.config.token},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.new_token = done.stdout.strip()
        if verb == "add":
            self.token_file.write_text(self.new_token)

    def _make_dataset(self) -> None:
        transport = Transport(server=self.platform.url, token=self.new_token)
        dataset_id = datasets.create_dataset(transport, request=DatasetCreateRequest(name="cams"))
        datasources.update_datasource(
            transport,
            dataset_id=dataset_id,
            datasource=DatasourceLocal(full_path=FOLDER, purpose="INPUT_OUTPUT"),
        )
        transport.close()

    def start_daemon(self) -> None:
        self.daemon.start()
        self.prometheus.aim(self.daemon.http)

    def restart_daemon(self) -> None:
        """What `docker compose restart watcher` does."""
        self.daemon.terminate()
        self.start_daemon()

    def explain(self) -> str:
        return f"firing: {self.prometheus.find_firing()}\n{self.daemon.read_log()[-3000:]}"

    def expect(self, alert: str, *, fires: bool) -> None:
        wait_for(
            lambda: (alert in self.prometheus.find_firing()) == fires,
            limit_s=LIMIT_S,
            what=f"{alert} {'fires' if fires else 'clears'}",
            explain=self.explain,
        )

    def expect_calm(self) -> None:
        wait_for(
            lambda: not self.prometheus.find_firing(),
            limit_s=LIMIT_S,
            what="no alert fires",
            explain=self.explain,
        )


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of its own for the daemon's data."""
    folder = tmp_path_factory.mktemp("small-disk")
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"a small disk cannot be mounted here (root with CAP_SYS_ADMIN can): {done.stderr.strip()}"
        )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, prometheus_bin: Path, small_disk: Path
) -> Iterator[Scene]:
    with ExitStack() as stack:
        made = Scene(tmp_path_factory.mktemp("gameday"), prometheus_bin, small_disk, stack)
        made.start_daemon()
        made.prometheus.start()
        made.cameras.switch_on()
        wait_for(
            lambda: bool(made.prometheus.query('watcher_samples{state="done"} > 0')),
            limit_s=LIMIT_S,
            what="the first samples are done",
            explain=made.daemon.read_log,
        )
        made.expect_calm()
        yield made
        assert made.daemon.terminate() == 0


def test_token_revoked(scene: Scene) -> None:
    scene.renew_token("token")
    scene.expect("WatcherCredentialsRefused", fires=True)
    scene.token_file.write_text(scene.new_token)
    scene.restart_daemon()
    scene.expect("WatcherCredentialsRefused", fires=False)
    scene.expect_calm()


def test_server_down(scene: Scene) -> None:
    scene.platform.kill()
    scene.expect("WatcherPollStale", fires=True)
    assert "WatcherCredentialsRefused" not in scene.prometheus.find_firing()
    assert scene.daemon.get("/health/live").status_code == 200, "a failing server is no reason to end"
    scene.platform.start()
    scene.expect("WatcherPollStale", fires=False)
    scene.expect_calm()


def test_disk_full(scene: Scene) -> None:
    filler = scene.disk / "filler"
    free = os.statvfs(scene.disk)
    with filler.open("wb") as file:
        file.write(b"\0" * (free.f_bavail * free.f_frsize - 3_000_000))
    scene.expect("WatcherDiskNearlyFull", fires=True)
    filler.unlink()
    scene.expect("WatcherDiskNearlyFull", fires=False)
    scene.expect_calm()


def test_clock_skewed(scene: Scene) -> None:
    scene.gate.date_shift_s = -30
    scene.expect("WatcherClockSkew", fires=True)
    scene.gate.date_shift_s = 0
    scene.expect("WatcherClockSkew", fires=False)
    scene.expect_calm()


def test_source_silent(scene: Scene) -> None:
    scene.cameras.switch_off()
    scene.expect("WatcherSourceSilent", fires=True)
    assert "WatcherPollStale" not in scene.prometheus.find_firing()
    scene.cameras.switch_on()
    scene.expect("WatcherSourceSilent", fires=False)
    scene.expect_calm()


def test_worker_hung(scene: Scene) -> None:
    scene.gate.hang("POST /v1/datasets/")
    scene.expect("WatcherLoopStalled", fires=True)
    stalled = scene.daemon.get("/health/live")
    assert stalled.status_code == 503
    assert {loop.partition("-")[0] for loop in stalled.json()["loops"]} == {"worker"}
    scene.gate.let_go()
    scene.expect("WatcherLoopStalled", fires=False)
    scene.expect_calm()
    assert scene.daemon.get("/health/live").status_code == 200
