"""Workers hand picks over without any leader, one delivery after the other's death, and each to its receiver once."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from tests.receivers import Answer, open_receiver
from tests.waiting import wait_for
from watcher.store import tables

_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"


def load_states(scene) -> dict[str, str]:
    database = scene.open_store()
    try:
        with database.read() as session:
            rows = session.execute(select(tables.handovers.c.sink, tables.handovers.c.state))
            return {row.sink: row.state for row in rows}
    finally:
        database.close()


@pytest.mark.deep
def test_worker_that_died_in_a_delivery_is_followed_by_another_and_the_receiver_counts_it_once(build_scene):
    hangs = threading.Event()
    with open_receiver() as receiver:
        receiver.answers.append(Answer(wait=lambda: hangs.wait(60)))
        watch = "WATCHER_WATCHES__CAMS__"
        scene = build_scene(
            **{
                f"{watch}STEPS": "upload,embed,sampling,deliver",
                f"{watch}UPLOAD__MODE": "thumbnails",
                f"{watch}SAMPLING__BUDGET": "2",
                f"{watch}DELIVER__WEBHOOK__HOOK__URL": receiver.url,
                f"{watch}DELIVER__WEBHOOK__HOOK__SECRET": _SECRET,
                f"{watch}DELIVER__MANIFEST__FILES__LOCATION": "selected",
            }
        )
        try:
            scene.put_pictures(4)
            replica = scene.add_replica()
            replica.start()
            wait_for(lambda: sum(scene.count_states().values()) == 4, what="all are listed")
            replica.terminate()  # from here on nobody leads
            other = scene.add_worker("--steps", "upload,embed,sampling")
            other.start()
            first = scene.add_worker("--steps", "deliver")
            first.start()
            wait_for(lambda: receiver.got, limit_s=90, what="it is delivering", explain=scene.explain)
            first.kill()
            assert load_states(scene) == {"hook": "running", "files": "ready"}
            second = scene.add_worker("--steps", "deliver")
            second.start()
            wait_for(
                lambda: load_states(scene)["hook"] == "done",
                what="it was taken up again",
                explain=scene.explain,
            )
        finally:
            hangs.set()
        assert len(receiver.got) == 2
        assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
        names = [[pick["file_name"] for pick in got.json["picks"]] for got in receiver.got]
        assert len(names[0]) == 2
        assert names[0] == names[1]
        assert not other.read_metric("watcher_delivery_attempts_total")
        # A folder belongs to the machine of the leader.
        assert load_states(scene)["files"] == "ready"
        replica.start()
        wait_for(
            lambda: load_states(scene)["files"] == "done",
            what="the leader wrote it",
            explain=scene.explain,
        )
