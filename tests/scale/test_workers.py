"""Workers and replicas as real processes: work spread, lost, taken over and ended, and nothing done twice."""

from __future__ import annotations

import signal
import time

import pytest
import requests
from sqlalchemy import text

from tests.waiting import wait_for


def test_samples_are_done_once_by_workers_and_the_queue_may_vanish(build_scene):
    scene = build_scene()
    scene.put_pictures(120)
    replica, workers = scene.add_replica(), [scene.add_worker(), scene.add_worker()]
    replica.start()
    wait_for(lambda: sum(scene.count_states().values()) == 120, what="all are listed")
    # Nobody works yet; all hints are taken away.
    database = scene.open_store()
    with database.write() as session:
        session.execute(text("TRUNCATE watcher_queue.procrastinate_jobs CASCADE"))
    database.close()
    # What a worker that was killed left in the folder that the next one starts with.
    left = workers[0].data_dir / "work" / "embed-left"
    left.mkdir(parents=True)
    (left / "embeddings.csv").write_text("half a file")
    for worker in workers:
        worker.start()
    assert not left.exists()
    scene.wait_until_done(120, limit_s=120)
    scene.check_exactly_once(120)
    # Alerts sum these over all processes: who cannot lead or poll has none of them.
    for name in ("watcher_leader", "watcher_fenced_writes_total", "watcher_polls_total"):
        assert (replica.read_metric(name), workers[0].read_metric(name)) != (None, None)
        assert workers[0].read_metric(name) is None, name
    assert workers[0].read_metric("watcher_scrape_store_up") == 1
    assert workers[0].read_metric("watcher_store_commit_duration_seconds_count") > 0
    for member, role in ((replica, "leader"), (workers[0], "worker")):
        assert requests.get(f"{member.url}/health/ready", timeout=10).json() == {"status": "ok", "role": role}
    assert replica.read_metric("watcher_runs_waiting") == 0
    assert workers[0].terminate() == 0
    assert replica.terminate() == 0


@pytest.mark.scenario(number=32)
def test_leader_that_was_frozen_writes_nothing_when_it_wakes(build_scene):
    scene = build_scene()
    replicas = [scene.add_replica(), scene.add_replica()]
    for replica in replicas:
        replica.start()
    wait_for(lambda: scene.find_leader(replicas), what="one leads", explain=scene.explain)
    old = scene.find_leader(replicas)
    new = next(replica for replica in replicas if replica is not old)
    assert new.read_metric("watcher_leader") == 0
    # It is frozen in the middle of a poll: what the server answers then, it would write when it wakes.
    n_polls = old.read_metric("watcher_polls_total")
    wait_for(lambda: old.read_metric("watcher_polls_total") > n_polls, what="it polls")
    scene.platform.signal(signal.SIGSTOP)
    time.sleep(2)  # four times the interval of its polls
    old.signal(signal.SIGSTOP)
    scene.platform.signal(signal.SIGCONT)
    try:
        wait_for(
            lambda: new.read_metric("watcher_leader") == 1,
            what="the other one leads",
            explain=scene.explain,
        )
        scene.put_pictures(5)
        worker = scene.add_worker()
        worker.start()
        scene.wait_until_done(5, limit_s=60)
    finally:
        old.signal(signal.SIGCONT)
    wait_for(lambda: old.read_metric("watcher_leader") == 0, what="it knows", explain=scene.explain)
    assert old.read_metric("watcher_fenced_writes_total") >= 1
    scene.put_pictures(5, start=5)
    scene.wait_until_done(10, limit_s=60)
    scene.check_exactly_once(10)
    assert new.read_metric("watcher_leader") == 1
