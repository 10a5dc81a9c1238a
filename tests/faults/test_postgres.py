"""Postgres goes away under a daemon that works, and comes back: it goes on by itself, and nothing is lost or done twice."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.load import N_PICTURES, Producer, check_end
from tests.faults.platform_process import PlatformProcess
from tests.faults.postgres_process import PostgresProcess, open_postgres_process

pytestmark = [pytest.mark.deep, pytest.mark.timeout(400)]

WAYS = [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGQUIT]


@pytest.fixture
def server() -> Iterator[PostgresProcess]:
    with open_postgres_process() as started:
        yield started


def test_postgres_stopped_and_killed_under_load_comes_back_and_nothing_is_lost_or_done_twice(
    server: PostgresProcess, platform: PlatformProcess, make_scene: MakeScene
) -> None:
    scene = make_scene(platform, store_url=server.url)
    rng = random.Random(5)
    scene.start()
    with Producer(scene.folder, pause_s=0.5) as producer:
        for way in WAYS:
            time.sleep(rng.uniform(1.0, 3.0))
            server.stop(way)
            time.sleep(rng.uniform(0.0, 2.0))
            server.start()
        time.sleep(1)
    check_end(scene.wait_for_rest(limit_s=240, n_files=N_PICTURES + 1), producer.names)
    assert "crashed" not in scene.log_path.read_text()
