"""Two releases side by side on one store: the old one works, starts and stays ready until the schema is contracted."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.scale.releases import Release, find_head
from tests.scale.scene import Member, Scene
from tests.waiting import wait_for

_NEXT, _AFTER = "8001", "8002"
_ADD = 'op.add_column("runs", sa.Column("colour", sa.String(10), nullable=False, server_default="blue"))'


def ask_ready(member: Member) -> tuple[int, str]:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"{member.url}/health/ready", timeout=30)
    return answer.status_code, answer.text


def migrate(scene: Scene, release: Release, name: str) -> None:
    out, log = scene.root / f"migrate-{name}.out", scene.root / f"migrate-{name}.log"
    environ = {**scene.environ, "WATCHER_DATA_DIR": str(scene.root / f"migrate-{name}")}
    pid = release.start(["migrate"], environ=environ, out=out, log=log)
    assert release.wait(pid, limit_s=120) == 0, log.read_text()
    assert f"store: version {name}" in out.read_text()


@pytest.mark.deep
@pytest.mark.timeout(600)
def test_old_and_new_release_work_side_by_side_on_the_expanded_schema(build_scene, tmp_path: Path):
    new = Release(tmp_path / "new")
    new.add_migration(_NEXT, before=find_head(), body=_ADD)
    newer = Release(tmp_path / "newer", like=new.folder)
    # A column that the release of before does not need any more, by its own word.
    newer.add_migration(
        _AFTER,
        before=_NEXT,
        body='op.drop_column("runs", "colour")',
        more=f'oldest_compatible = "{_NEXT}"',
    )

    scene = build_scene()
    old_replica, old_worker = scene.add_replica(), scene.add_worker()
    old_replica.start()
    old_worker.start()
    scene.put_pictures(10)
    scene.wait_until_done(10, limit_s=90)

    migrate(scene, new, _NEXT)
    for member in (old_replica, old_worker):
        wait_for(lambda member=member: ask_ready(member)[0] == 200, what="the old release is ready")
    new_replica, new_worker = scene.add_replica(release=new), scene.add_worker(release=new)
    new_replica.start()
    new_worker.start()
    old_worker.kill()
    old_worker.start()  # it begins on the newer schema, too
    scene.put_pictures(60, start=10)
    scene.wait_until_done(70, limit_s=120)
    assert old_worker.read_metric("watcher_runs_total")
    assert new_worker.read_metric("watcher_runs_total")

    assert old_replica.terminate() == 0
    wait_for(
        lambda: new_replica.read_metric("watcher_leader") == 1,
        what="the new release leads",
        explain=scene.explain,
    )
    scene.put_pictures(10, start=70)
    scene.wait_until_done(80, limit_s=90)
    scene.check_exactly_once(80)

    migrate(scene, newer, _AFTER)
    wait_for(lambda: ask_ready(new_worker)[0] == 200, what="the new release is ready")
    status, text = ask_ready(old_worker)
    assert status == 503
    assert f"wants programs from version {_NEXT} on" in text
