"""Replicas and workers killed, frozen and cut off at random: every sample is done, and none twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from sqlalchemy import text

from tests.scale.scene import Member, Scene, wait_for

N_SAMPLES = int(os.environ.get("SOAK_SAMPLES", "1500"))
PLAN = ["kill worker", "freeze worker", "kill leader", "postgres restarted", "kill replica"]
N_PORTIONS = len(PLAN)
LIMIT_S = 300.0 + N_SAMPLES / 20


class Chaos:
    """Every few seconds something happens to somebody; whoever died is started again."""

    def __init__(self, scene: Scene, replicas: list[Member], workers: list[Member], *, seed: int) -> None:
        self.scene = scene
        self.replicas = replicas
        self.workers = workers
        self.rng = random.Random(seed)
        self.frozen: tuple[Member, float] | None = None
        self.done: list[str] = []
        self.n_put = 0
        self._next_s = time.monotonic() + 2.0

    def act(self) -> None:
        now_s = time.monotonic()
        if self.frozen is not None and now_s > self.frozen[1]:
            self.frozen[0].signal(signal.SIGCONT)
            self.frozen = None
        if now_s < self._next_s:
            return
        self._next_s = now_s + self.rng.uniform(2.0, 4.0)
        if len(self.done) < N_PORTIONS:
            self.put_portion()
        what = PLAN[len(self.done) % len(PLAN)]
        if what == "postgres restarted" and what in self.done:
            what = "kill worker"
        getattr(self, "_" + what.replace(" ", "_"))()
        self.done.append(what)

    def put_portion(self) -> None:
        """The next pictures, so that there is work at every act."""
        size = N_SAMPLES // (N_PORTIONS + 1)
        first = self.n_put
        self.n_put = N_SAMPLES if len(self.done) == N_PORTIONS - 1 else first + size
        self.scene.put_pictures(self.n_put - first, start=first)

    def _kill_worker(self) -> None:
        self._restart(
            self.rng.choice([w for w in self.workers if self.frozen is None or w is not self.frozen[0]])
        )

    def _kill_replica(self) -> None:
        self._restart(self.rng.choice(self.replicas))

    def _kill_leader(self) -> None:
        self._restart(self.scene.find_leader(self.replicas) or self.rng.choice(self.replicas))

    def _freeze_worker(self) -> None:
        """Cut off from Postgres and everything else for longer than its lease of 5 s."""
        if self.frozen is None:
            worker = self.rng.choice(self.workers)
            worker.signal(signal.SIGSTOP)
            self.frozen = (worker, time.monotonic() + 8.0)

    def _postgres_restarted(self) -> None:
        """All connections end at once, as when the server is restarted."""
        database = self.scene.open_store()
        with contextlib.suppress(Exception), database.read() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        database.close()

    @staticmethod
    def _restart(member: Member) -> None:
        member.kill()
        member.begin()

    def end(self) -> None:
        if self.frozen is not None:
            self.frozen[0].signal(signal.SIGCONT)


@pytest.mark.deep
@pytest.mark.timeout(LIMIT_S + 300)
def test_samples_are_done_once_while_processes_die_freeze_and_lose_postgres(build_scene):
    scene = build_scene()
    replicas = [scene.add_replica() for _ in range(3)]
    workers = [scene.add_worker() for _ in range(4)]
    replicas[0].start()  # it makes the tables and the queue, which the others want to find
    for member in (*replicas[1:], *workers):
        member.begin()
    for member in (*replicas[1:], *workers):
        member.wait_until_up()
    chaos = Chaos(scene, replicas, workers, seed=N_SAMPLES)
    try:
        wait_for(
            lambda: (chaos.act(), len(chaos.done) >= len(PLAN))[1],
            limit_s=120,
            what="chaos",
            explain=scene.explain,
        )
        scene.wait_until_done(N_SAMPLES, limit_s=LIMIT_S, meanwhile=chaos.act)
    finally:
        chaos.end()
    assert set(PLAN) <= set(chaos.done)
    scene.check_exactly_once(N_SAMPLES)
