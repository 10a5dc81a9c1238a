"""From one machine to many: a real daemon's store moves to Postgres, and replica and worker go on where it was."""

from __future__ import annotations

import signal

import pytest
from sqlalchemy import select

from tests.scale.scene import Scene
from tests.waiting import wait_for
from watcher.database.engine import build_database
from watcher.store import tables


def run(scene: Scene, name: str, arguments: list[str], **variables: str) -> tuple[int | None, str]:
    """A command to its end: exit code, and what it said."""
    out, log = scene.root / f"{name}.out", scene.root / f"{name}.log"
    pid = scene.forge.start(arguments, environ={**scene.environ, **variables}, out=out, log=log)
    code = scene.forge.wait(pid, limit_s=120)
    return code, out.read_text() + log.read_text()


def load_ledger(url: str) -> list[tuple[object, ...]]:
    columns = ("id", "file_name", "state", "remote_id", "poll_id", "batch_id", "discovered_ms")
    database = build_database(url)
    try:
        with database.read() as session:
            table = tables.samples.c
            rows = session.execute(select(*(table[name] for name in columns)).order_by(table.id))
            return [tuple(row) for row in rows]
    finally:
        database.close()


@pytest.mark.deep
def test_daemon_goes_on_over_the_moved_store_and_ingests_nothing_again(build_scene, postgres_url):
    scene = build_scene()
    old_url = f"sqlite:///{scene.root / 'old.sqlite'}"
    old = {
        "WATCHER_STORE__URL": old_url,
        "WATCHER_DISPATCH": "local",
        "WATCHER_DATA_DIR": str(scene.root / "old-data"),
    }
    scene.store_url = old_url
    scene.put_pictures(12)
    daemon = scene.add_replica(**old)
    daemon.start()
    scene.wait_until_done(12, limit_s=60)
    assert daemon.terminate() == 0
    before = load_ledger(old_url)

    move = ["move-store", "--to", postgres_url]
    code, told = run(scene, "killed", move, **old, CRASH_AT="moving.part_copied:4")
    assert code == -signal.SIGKILL, told
    code, told = run(scene, "too-early", ["run"], WATCHER_DATA_DIR=str(scene.root / "early-data"))
    assert code == 2
    assert "a move of another store into this database was interrupted" in told
    code, told = run(scene, "killed-late", move, **old, CRASH_AT="moving.source_marked")
    assert code == -signal.SIGKILL, told
    code, told = run(scene, "on-neither", ["run"], **old)
    assert code == 2
    assert "the store was moved to postgresql://" in told
    code, told = run(scene, "moved", move, **old)
    assert code == 0, told
    assert "counts and sums are equal" in told
    code, told = run(scene, "migrated", ["migrate"], WATCHER_DATA_DIR=old["WATCHER_DATA_DIR"])
    assert code == 0, told

    scene.store_url = postgres_url
    assert load_ledger(postgres_url) == before
    replica, worker = scene.add_replica(), scene.add_worker()
    replica.start()
    worker.start()
    wait_for(lambda: replica.read_metric("watcher_polls_total"), what="it polls", explain=scene.explain)
    assert replica.read_metric("watcher_samples_discovered_total") == 0
    assert load_ledger(postgres_url) == before
    scene.put_pictures(6, start=12)
    scene.wait_until_done(18, limit_s=60)
    assert replica.read_metric("watcher_samples_discovered_total") == 6
    assert load_ledger(postgres_url)[:12] == before
    scene.check_exactly_once(18)
