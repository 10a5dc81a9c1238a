"""Replicas and workers killed, frozen and cut off, Postgres killed: every sample is done, and none twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.faults.postgres_process import PostgresProcess, open_postgres_process
from tests.scale.partition import Way, replace_port
from tests.scale.scene import Member, Scene
from tests.waiting import wait_for

N_SAMPLES = int(os.environ.get("SOAK_SAMPLES", "1500"))
PLAN = [
    "kill worker",
    "freeze worker",
    "kill leader",
    "cut worker off",
    "kill postgres",
    "kill replica",
]
LIMIT_S = 300.0 + N_SAMPLES / 20
# A long run has shards as in practice; somebody who dies every few seconds would else keep most of them from ending.
IS_LONG = N_SAMPLES > 10_000
SHARD = 200 if IS_LONG else 20
PATIENCE_S = 30.0
PAUSES_S = (4.0, 8.0) if IS_LONG else (2.0, 4.0)
LEASE_S = 10.0 if IS_LONG else 5.0
AWAY_S = LEASE_S + 3.0


@pytest.fixture
def server() -> Iterator[PostgresProcess]:
    with open_postgres_process() as started:
        yield started


@pytest.fixture
def way(server: PostgresProcess) -> Iterator[Way]:
    """How one of the workers reaches Postgres."""
    made = Way("127.0.0.1", server.port)
    yield made
    made.close()


class Chaos:
    """Every few seconds something happens to somebody; whoever died is started again."""

    def __init__(
        self,
        scene: Scene,
        server: PostgresProcess,
        replicas: list[Member],
        workers: list[Member],
        *,
        remote: tuple[Member, Way],
        seed: int,
    ) -> None:
        self.scene = scene
        self.server = server
        self.replicas = replicas
        self.workers = workers
        self.remote, self.way = remote
        self.rng = random.Random(seed)
        self.frozen: tuple[Member, float] | None = None
        self.cut_until_s = 0.0
        self.done: list[str] = []
        self.n_put = 0
        self._n_done = 0
        self._next_s = time.monotonic() + 2.0

    def act(self) -> None:
        now_s = time.monotonic()
        if self.frozen is not None and now_s > self.frozen[1]:
            self.frozen[0].signal(signal.SIGCONT)
            self.frozen = None
        if self.way.is_cut and now_s > self.cut_until_s:
            self.way.mend()
        if now_s < self._next_s or not self._is_moving(now_s):
            return
        self._next_s = now_s + self.rng.uniform(*PAUSES_S)
        if len(self.done) < len(PLAN):
            self.put_portion()
        what = PLAN[len(self.done) % len(PLAN)]
        if what == "kill postgres" and what in self.done:
            what = "kill worker"
        getattr(self, "_" + what.replace(" ", "_"))()
        self.done.append(what)

    def _is_moving(self, now_s: float) -> bool:
        """On a slow machine whoever was hit comes back first, or nobody would ever end anything."""
        if not IS_LONG or now_s > self._next_s + PATIENCE_S:
            return True
        before, self._n_done = self._n_done, self.scene.count_states()["done"]
        return self._n_done > before

    def put_portion(self) -> None:
        """The next pictures, so that there is work at every act."""
        size = N_SAMPLES // (len(PLAN) + 1)
        first = self.n_put
        self.n_put = N_SAMPLES if len(self.done) == len(PLAN) - 1 else first + size
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
        """It does nothing for longer than its lease, and wakes up not knowing."""
        if self.frozen is None:
            worker = self.rng.choice(self.workers)
            worker.signal(signal.SIGSTOP)
            self.frozen = (worker, time.monotonic() + AWAY_S)

    def _cut_worker_off(self) -> None:
        """It works on for longer than its lease; what it tells Postgres meanwhile arrives afterwards."""
        if not self.way.is_cut:
            self.way.cut()
            self.cut_until_s = time.monotonic() + AWAY_S

    def _kill_postgres(self) -> None:
        """Without a word, in the middle of all transactions; started again on what it left."""
        self.server.stop(signal.SIGKILL)
        self.server.start()

    @staticmethod
    def _restart(member: Member) -> None:
        member.kill()
        member.begin()

    def end(self) -> None:
        self.way.mend()
        if self.frozen is not None:
            self.frozen[0].signal(signal.SIGCONT)


@pytest.mark.deep
@pytest.mark.timeout(LIMIT_S + 300)
def test_samples_are_done_once_while_processes_die_freeze_and_lose_postgres(build_scene, server, way):
    scene = build_scene(
        server.url,
        WATCHER_RUNS__LEASE_S=str(LEASE_S),
        WATCHER_WATCHES__CAMS__BATCH__SHARD_SAMPLES=str(SHARD),
    )
    replicas = [scene.add_replica() for _ in range(3)]
    workers = [scene.add_worker() for _ in range(3)]
    remote = scene.add_worker(WATCHER_STORE__URL=replace_port(server.url, way.port))
    replicas[0].start()  # it makes the tables and the queue, which the others want to find
    for member in (*replicas[1:], *workers, remote):
        member.begin()
    for member in (*replicas[1:], *workers, remote):
        member.wait_until_up()
    chaos = Chaos(scene, server, replicas, workers, remote=(remote, way), seed=N_SAMPLES)
    try:
        wait_for(
            lambda: (chaos.act(), len(chaos.done) >= len(PLAN))[1],
            limit_s=LIMIT_S,
            what="everything has happened once",
            explain=scene.explain,
        )
        # To look is to count them, which takes a while where there are many.
        every_s = 2.0 if IS_LONG else 0.2
        scene.wait_until_done(N_SAMPLES, limit_s=LIMIT_S, meanwhile=chaos.act, every_s=every_s)
    finally:
        chaos.end()
    assert set(PLAN) <= set(chaos.done)
    # It was in the middle of something, came back by itself, and has worked.
    assert way.n_kept > 0
    assert remote.read_metric("watcher_runs_total")
    scene.check_exactly_once(N_SAMPLES)
