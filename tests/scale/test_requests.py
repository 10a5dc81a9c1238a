"""Polls and comparisons that people ask for on replicas that stand by, and while nobody leads."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import requests
from sqlalchemy import select

from tests.waiting import wait_for
from watcher.store import duty_requests, tables
from watcher.store.duty_problems import Duty

pytestmark = pytest.mark.deep

# Nothing comes by itself while these tests run.
TOKEN = "a-control-token-of-replicas"
RARELY = {"WATCHER_WATCHES__CAMS__SCHEDULE__INTERVAL_S": "3600", "WATCHER_CONTROL__TOKEN": TOKEN}


def ask(member, verb):
    return requests.post(
        f"{member.url}/api/v1/watches/cams/{verb}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        json={"actor": "a test"},
        timeout=20,
    )


def run(member, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "watcher", *arguments],
        env=member._environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def count(scene, table):
    database = scene.open_store()
    try:
        with database.read() as session:
            return len(session.execute(select(table.c.id)).all())
    finally:
        database.close()


def test_what_is_asked_on_a_standby_the_leader_does_and_the_next_one_if_it_died(build_scene):
    scene = build_scene(**RARELY)
    leader = scene.add_replica()
    leader.start()
    wait_for(lambda: count(scene, tables.polls) == 1, what="the first poll", explain=scene.explain)
    standby = scene.add_replica()
    standby.start()
    assert scene.find_leader([leader, standby]) is leader

    told = ask(standby, "audit")
    assert told.status_code == 202, told.text
    assert "leads and begins within seconds" in told.json()["status"]
    wait_for(lambda: count(scene, tables.reconciles) == 1, what="the comparison", explain=scene.explain)
    done = run(standby, "poll")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 listed, 0 new" in done.stdout
    assert count(scene, tables.polls) == 2

    leader.signal(signal.SIGSTOP)  # nobody does anything until its lease is over
    told = ask(standby, "audit")
    assert told.status_code == 202, told.text
    leader.kill()
    wait_for(
        lambda: count(scene, tables.reconciles) == 2, what="the next leader did it", explain=scene.explain
    )
    assert standby.read_metric("watcher_leader") == 1


def test_request_outlives_who_took_it_and_one_that_nobody_can_do_goes(build_scene):
    scene = build_scene(**RARELY)
    leader = scene.add_replica()
    leader.start()
    wait_for(lambda: count(scene, tables.polls) == 1, what="the first poll", explain=scene.explain)
    standby = scene.add_replica(CRASH_AT="control.requested")
    standby.start()
    with pytest.raises(requests.ConnectionError):
        ask(standby, "audit")
    wait_for(lambda: count(scene, tables.reconciles) == 1, what="the comparison", explain=scene.explain)

    leader.kill()
    database = scene.open_store()
    try:
        with database.write() as session:
            duty_requests.record_request(session, watch="gone", duty=Duty.POLL, now_ms=1)
        dies = scene.add_replica(CRASH_AT="duties.request_refused")
        dies.start()
        code = scene.forge.wait(dies.pid, limit_s=60)
        assert code == -signal.SIGKILL
        dies.pid = None
        with database.read() as session:
            assert duty_requests.load_open_requests(session) == []
    finally:
        database.close()
