"""Faults between a real daemon and a real platform: the end is that of a run without them."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.conftest import MakeScene
from tests.faults.load import N_PICTURES, Producer, check_end
from tests.faults.platform_process import PlatformProcess
from tests.faults.proxy import FAULTS, stand_in_the_way

pytestmark = [pytest.mark.deep, pytest.mark.timeout(400)]


@pytest.mark.parametrize(("seed", "rate"), [(1, 0.1), (2, 0.3)])
def test_daemon_behind_a_bad_network_ends_as_behind_a_good_one(
    seed: int, rate: float, platform: PlatformProcess, make_scene: MakeScene
) -> None:
    scene = make_scene(platform)
    with stand_in_the_way(("127.0.0.1", platform.config.port), seed=seed, rate=rate) as proxy:
        scene.environ["LIGHTLY_SERVER_LOCATION"] = proxy.url
        scene.start()
        with Producer(scene.folder) as producer:
            time.sleep(8)
        proxy.rate = rate / 2
        scene.kill()
        state = scene.run_to_rest(limit_s=240, n_files=N_PICTURES + 1)
        assert sum(proxy.counts[fault] for fault in FAULTS) > 10, proxy.counts
    check_end(state, producer.names)


def test_platform_killed_and_restarted_under_load_changes_nothing(
    platform: PlatformProcess, make_scene: MakeScene
) -> None:
    scene = make_scene(platform)
    rng = random.Random(3)
    scene.start()
    with Producer(scene.folder, pause_s=0.5) as producer:
        for _ in range(4):
            time.sleep(rng.uniform(1.0, 3.0))
            platform.kill()
            time.sleep(rng.uniform(0.0, 1.0))
            platform.start()
        time.sleep(1)
    scene.kill()
    check_end(scene.run_to_rest(limit_s=240, n_files=N_PICTURES + 1), producer.names)
