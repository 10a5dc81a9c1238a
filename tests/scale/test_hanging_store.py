"""A Postgres that hangs is nobody's fault but its own: every process stays alive, and goes on when it answers."""

from __future__ import annotations

import time

import pytest
import requests
from sqlalchemy import make_url

from tests.scale.partition import Way, replace_port
from tests.waiting import wait_for

# Longer than the limit of every loop that waits for the store, and what a cluster then waits before it kills.
_AWAY_S = 70.0


@pytest.mark.deep
@pytest.mark.timeout(300)
def test_store_that_hangs_over_a_minute_kills_nobody_and_all_go_on_afterwards(build_scene, postgres_url):
    url = make_url(postgres_url)
    way = Way(url.host, url.port)
    scene = build_scene(WATCHER_STORE__URL=replace_port(postgres_url, way.port))
    staying = [scene.add_replica(), scene.add_replica(), scene.add_worker()]
    leaving = [scene.add_replica(), scene.add_worker()]
    staying[0].start()
    for member in (*staying[1:], *leaving):
        member.begin()
    for member in (*staying[1:], *leaving):
        member.wait_until_up()
    scene.put_pictures(3)
    scene.wait_until_done(3, limit_s=60)
    way.cut()
    try:
        ends_s = time.monotonic() + _AWAY_S
        time.sleep(5)  # in the middle of whatever they ask
        # Whoever is told to end meanwhile ends: within its drain (10 s here) and what a cluster grants besides.
        for member in leaving:
            begun_s = time.monotonic()
            assert member.terminate(limit_s=40) is not None, member.read_log()
            assert time.monotonic() - begun_s < 10 + 15
        while time.monotonic() < ends_s:
            for member in staying:
                live = requests.get(f"{member.url}/health/live", timeout=10)
                assert (live.status_code, live.json()) == (200, {"status": "ok"})
            time.sleep(2)
        ready = requests.get(f"{staying[2].url}/health/ready", timeout=10)
        assert ready.status_code == 503
        assert "did not answer" in ready.json()["problems"]["store"]
    finally:
        way.mend()
    scene.put_pictures(3, start=3)
    scene.wait_until_done(6, limit_s=60)
    wait_for(lambda: scene.find_leader(staying[:2]) is not None, what="one leads", explain=scene.explain)
    scene.check_exactly_once(6)
    way.close()
