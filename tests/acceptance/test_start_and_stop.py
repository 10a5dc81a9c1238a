"""A daemon before, during and at the end of a first listing that takes its time, as whoever watches over it sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.acceptance.daemon_process import DaemonProcess
from tests.gameday.gate import Gate
from tests.photographs import write_photographs
from tests.waiting import wait_for
from watcher.attach import make_dataset
from watcher.lightly.transport import Transport
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig

pytestmark = pytest.mark.deep

TOKEN = "token-of-the-tests"
WATCH = "WATCHER_WATCHES__CAMS__"
LISTING = "GET /v1/datasets/"
N_FILES = 12


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformServer]:
    """Twelve files, two a page."""
    write_photographs(tmp_path / "objects" / "cams", N_FILES, seed=1)
    server = PlatformServer(
        PlatformConfig(
            token=TOKEN,
            datasource_root=tmp_path / "objects",
            data_dir=tmp_path / "platform",
            port=0,
            page_size=2,
        )
    )
    server.start()
    transport = Transport(server=server.url, token=TOKEN)
    make_dataset(transport, name="cams", folder="cams")
    transport.close()
    yield server
    server.stop(5)


@pytest.fixture
def gate(platform: PlatformServer) -> Iterator[Gate]:
    made = Gate(int(platform.url.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture
def daemon(tmp_path: Path, gate: Gate) -> Iterator[DaemonProcess]:
    running = DaemonProcess(
        tmp_path / "data",
        **{
            "LIGHTLY_TOKEN": TOKEN,
            "LIGHTLY_SERVER_LOCATION": gate.url,
            "WATCHER_DRAIN_TIMEOUT_S": "4",
            "WATCHER_HEALTH__POLL_LIMIT_S": "6",
            f"{WATCH}DATASET": "cams",
            f"{WATCH}STEPS": "upload",
            f"{WATCH}SCHEDULE__INTERVAL_S": "1",
            f"{WATCH}POLL__HOLD_BACK_S": "0",
        },
    )
    yield running
    running.stop_if_running()


def count_listed(daemon: DaemonProcess) -> int:
    watches = daemon.status()["watches"]
    return sum(watches[0]["samples"].values()) if watches else 0


def test_daemon_whose_server_does_not_answer_yet_lives_and_says_why_it_is_not_ready(daemon, gate):
    gate.hang("/v1/")
    daemon.start()
    assert daemon.get("/health/live").status_code == 200
    ready = daemon.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["problems"] == {"server": "no answer of the server yet"}
    assert daemon.get("/").status_code == 200
    gate.let_go()
    wait_for(
        lambda: daemon.get("/health/ready").status_code == 200,
        limit_s=90,
        what="ready once the server answers",
        explain=daemon.read_log,
    )
    wait_for(
        lambda: count_listed(daemon) == N_FILES, limit_s=90, what="all are listed", explain=daemon.read_log
    )
    assert daemon.terminate() == 0


def test_first_listing_that_takes_longer_than_the_limit_of_a_page_is_no_stall(daemon, gate):
    # About twenty requests, one after another: thrice the limit between two signs of life.
    gate.delay(LISTING, seconds=1.0)
    daemon.start()
    answers: set[int] = set()

    def is_listed() -> bool:
        answers.add(daemon.get("/health/live").status_code)
        return count_listed(daemon) == N_FILES

    wait_for(is_listed, limit_s=110, what="all are listed", explain=daemon.read_log)
    assert answers == {200}
    assert daemon.get("/health/ready").status_code == 200


def test_first_listing_that_hangs_is_told_by_the_live_endpoint_and_a_stop_ends_it_in_time(daemon, gate):
    gate.hang(LISTING)
    daemon.start()
    wait_for(
        lambda: daemon.get("/health/live").status_code == 503,
        what="the listing counts as stalled",
        explain=daemon.read_log,
    )
    stalled = daemon.get("/health/live").json()
    assert stalled["status"] == "stalled"
    assert any(name.startswith("poll-cams") for name in stalled["loops"])
    assert "Stalled:" in daemon.get("/").text
    daemon.terminate(limit_s=30)  # raises if it takes longer; the drain is 4 s
    with pytest.raises(requests.ConnectionError):
        daemon.get("/health/live")


def test_stop_while_pages_of_a_listing_come_slowly_ends_in_time_and_the_next_start_goes_on(daemon, gate):
    gate.delay(LISTING, seconds=0.7)
    daemon.start()
    wait_for(lambda: 0 < count_listed(daemon) < N_FILES, what="half listed", explain=daemon.read_log)
    assert daemon.terminate(limit_s=30) == 0
    gate.let_go()
    daemon.start()
    wait_for(lambda: count_listed(daemon) == N_FILES, what="all are listed", explain=daemon.read_log)
    assert daemon.terminate() == 0
