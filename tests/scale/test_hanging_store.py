"""A Postgres that hangs is nobody's fault but its own: every process stays alive, and goes on when it answers."""

from __future__ import annotations

import time

import pytest
import requests
from sqlalchemy import make_url

from tests.scale.partition import Way, replace_port
from tests.waiting import wait_for

# Longer than the limit of every loop that waits for the store, and what a cluster then waits before it kills.
_AWAY_S = 80.0


@pytest.mark.deep
def test_store_that_hangs_over_a_minute_kills_nobody_and_all_go_on_afterwards(build_scene, postgres_url):
    url = make_url(postgres_url)
    way = Way(url.host, url.port)
    scene = build_scene(WATCHER_STORE__URL=replace_port(postgres_url, way.port))
    members = [scene.add_replica(), scene.add_replica(), scene.add_worker()]
    for member in members:
        member.start()
    scene.put_pictures(3)
    scene.wait_until_done(3, limit_s=60)
    way.cut()
    try:
        ends_s = time.monotonic() + _AWAY_S
        while time.monotonic() < ends_s:
            for member in members:
                live = requests.get(f"{member.url}/health/live", timeout=10)
                assert (live.status_code, live.json()) == (200, {"status": "ok"})
            time.sleep(2)
        ready = requests.get(f"{members[2].url}/health/ready", timeout=10)
        assert ready.status_code == 503
        assert "did not answer" in ready.json()["problems"]["store"]
    finally:
        way.mend()
    scene.put_pictures(3, start=3)
    scene.wait_until_done(6, limit_s=60)
    wait_for(lambda: scene.find_leader(members[:2]) is not None, what="one leads", explain=scene.explain)
    scene.check_exactly_once(6)
    way.close()
