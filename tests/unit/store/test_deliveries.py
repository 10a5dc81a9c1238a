"""Deliveries: promised once, claimed by one, ended by their owner alone, and made again when asked."""

from __future__ import annotations

import threading

import pytest

from tests.builders import NOW_MS, add_batch, add_delivery, add_watch, claim_delivery, deliver, load
from watcher.database.engine import Database
from watcher.domain.delivery import DeliveryState, SinkKind, compute_delivery_id, compute_picks_digest
from watcher.store import claims, control, deliveries, watches


@pytest.fixture
def batch(database, watch):
    return add_batch(database, watch, ["a"])


def load_all(database, batch):
    with database.read() as session:
        return {d.sink: d for d in deliveries.load_deliveries(session, batch_id=batch.id)}


def end(database, delivery, state=DeliveryState.DONE, owner="me", **values):
    with database.write() as session:
        return deliveries.end_delivery(
            session, delivery_id=delivery.id, owner=owner, state=state, now_ms=NOW_MS, **values
        )


def test_promise_repeated_is_the_same_one_and_takes_in_a_new_sink(database, watch, batch):
    sinks = [("a", SinkKind.MANIFEST), ("b", SinkKind.WEBHOOK)]
    made = []
    for wanted in (sinks[:1], sinks, sinks):
        with database.write() as session:
            made.append(
                deliveries.promise_deliveries(
                    session,
                    batch_id=batch.id,
                    watch_id=watch.id,
                    sinks=wanted,
                    n_picks=3,
                    picks_digest="0" * 64,
                    now_ms=NOW_MS,
                )
            )
    assert made == [1, 1, 0]
    found = load_all(database, batch)
    assert [(d.sink, d.kind, d.state, d.n_picks, d.attempt) for d in found.values()] == [
        ("a", SinkKind.MANIFEST, DeliveryState.READY, 3, 0),
        ("b", SinkKind.WEBHOOK, DeliveryState.READY, 3, 0),
    ]


def test_claim_takes_the_longest_ready_one_and_counts(database, batch):
    add_delivery(database, batch, sink="late", now_ms=NOW_MS + 5)
    add_delivery(database, batch, sink="early")
    claimed = claim_delivery(database, now_ms=NOW_MS + 5)
    assert (claimed.sink, claimed.state, claimed.attempt) == ("early", DeliveryState.RUNNING, 1)
    assert claim_delivery(database, now_ms=NOW_MS + 4) is None, "its time has not come"
    assert claim_delivery(database, now_ms=NOW_MS + 5).sink == "late"


def test_look_before_a_claim_sees_what_is_due_and_what_lost_its_holder(database, batch):
    assert not sees_claimable(database, now_ms=NOW_MS + 1_000_000), "there is none"
    add_delivery(database, batch, now_ms=NOW_MS + 5)
    assert not sees_claimable(database, now_ms=NOW_MS + 4)
    assert sees_claimable(database, now_ms=NOW_MS + 5)
    claimed = claim_delivery(database, now_ms=NOW_MS + 5)
    assert not sees_claimable(database, now_ms=NOW_MS + 60_005), "it is held"
    assert sees_claimable(database, now_ms=NOW_MS + 60_006)
    assert end(database, claimed)
    assert not sees_claimable(database, now_ms=NOW_MS + 1_000_000)


def sees_claimable(database: Database, *, now_ms: int) -> bool:
    with database.read() as session:
        return claims.has_claimable_delivery(session, now_ms=now_ms)


def test_sink_gets_one_delivery_at_a_time_and_others_are_not_held_up(database, watch, batch):
    second = add_batch(database, watch, ["b"])
    add_delivery(database, batch, sink="slow")
    add_delivery(database, second, sink="slow", now_ms=NOW_MS + 1)
    add_delivery(database, second, sink="quick", now_ms=NOW_MS + 2)
    first = claim_delivery(database, now_ms=NOW_MS + 9)
    assert first.sink == "slow"
    assert claim_delivery(database, now_ms=NOW_MS + 9).sink == "quick"
    assert claim_delivery(database, now_ms=NOW_MS + 9) is None
    assert end(database, first)
    assert claim_delivery(database, now_ms=NOW_MS + 9).batch_id == second.id


def test_two_claims_at_one_moment_give_a_sink_one_delivery(database, watch, batch):
    add_delivery(database, batch, sink="slow")
    add_delivery(database, add_batch(database, watch, ["b"]), sink="slow")
    taken = []
    other = threading.Thread(target=lambda: taken.append(claim_delivery(database, owner="other")))
    with database.write() as session:
        first = deliveries.claim_delivery(
            session, owner="me", now_ms=NOW_MS, lease_ms=60_000, watch_names=["gate"]
        )
        other.start()
        other.join(timeout=0.3)  # it waits for this one, which it cannot see yet
    other.join(timeout=30)
    assert first.sink == "slow"
    assert taken == [None]


def test_claim_for_some_sinks_leaves_the_others_alone(database, watch, batch):
    add_delivery(database, batch, sink="folder")
    add_delivery(database, batch, sink="hook", now_ms=NOW_MS + 1)
    with database.write() as session:
        found = deliveries.claim_delivery(
            session,
            owner="me",
            now_ms=NOW_MS + 1,
            lease_ms=60_000,
            watch_names=["gate"],
            sinks=[("gate", "hook"), ("roof", "folder")],
        )
        none = deliveries.claim_delivery(
            session, owner="me", now_ms=NOW_MS + 1, lease_ms=60_000, watch_names=["gate"], sinks=[]
        )
    assert found.sink == "hook"
    assert none is None


def test_same_name_in_another_watch_is_another_sink(database, watch, batch):
    other = add_watch(database, "roof")
    add_delivery(database, batch)
    add_delivery(database, add_batch(database, other, ["x"]))
    both = ("gate", "roof")
    assert claim_delivery(database, watches=both).watch_id == watch.id
    assert claim_delivery(database, watches=both).watch_id == other.id


def test_claim_leaves_paused_and_foreign_watches_alone(database, watch, batch):
    add_delivery(database, batch)
    assert claim_delivery(database, watches=["another"]) is None
    with database.write() as session:
        watches.update_pause(session, watch_id=watch.id, paused_ms=NOW_MS)
    assert claim_delivery(database) is None


def test_lease_that_ran_out_is_taken_over_and_its_owner_writes_nothing_more(database, batch):
    add_delivery(database, batch)
    first = claim_delivery(database, owner="first")
    assert claim_delivery(database, owner="second", now_ms=NOW_MS + 60_000) is None
    second = claim_delivery(database, owner="second", now_ms=NOW_MS + 60_001)
    assert (second.id, second.attempt) == (first.id, 2)
    assert not end(database, first, owner="first")
    with database.write() as session:
        row = {"delivery_id": first.id, "owner": "first"}
        assert not deliveries.extend_lease(session, **row, until_ms=NOW_MS)
        assert not deliveries.save_progress(session, **row, progress={"x": 1})
        assert not deliveries.postpone_delivery(
            session, **row, available_ms=NOW_MS, error="no", count_attempt=True
        )
    assert end(database, second, owner="second", location="there")
    (found,) = load_all(database, batch).values()
    assert (found.state, found.location, found.progress) == (DeliveryState.DONE, "there", {})


def test_lease_that_is_extended_is_kept(database, batch):
    add_delivery(database, batch)
    claimed = claim_delivery(database)
    with database.write() as session:
        assert deliveries.extend_lease(session, delivery_id=claimed.id, owner="me", until_ms=NOW_MS + 100_000)
    assert claim_delivery(database, owner="other", now_ms=NOW_MS + 90_000) is None


def test_postponed_delivery_waits_and_keeps_its_error_and_progress(database, batch):
    add_delivery(database, batch)
    claimed = claim_delivery(database)
    with database.write() as session:
        row = {"delivery_id": claimed.id, "owner": "me"}
        assert deliveries.save_progress(session, **row, progress={"n_confirmed": 2})
        assert deliveries.postpone_delivery(
            session, **row, available_ms=NOW_MS + 500, error="503", count_attempt=True
        )
    assert claim_delivery(database, now_ms=NOW_MS + 499) is None
    again = claim_delivery(database, now_ms=NOW_MS + 500)
    assert (again.attempt, again.error, again.progress) == (2, "503", {"n_confirmed": 2})
    with database.write() as session:
        deliveries.postpone_delivery(session, **row, available_ms=NOW_MS, error=None, count_attempt=False)
    assert claim_delivery(database, now_ms=NOW_MS).attempt == 2


def test_running_deliveries_of_a_killed_process_are_ready_at_once(database, batch):
    add_delivery(database, batch)
    claim_delivery(database)
    with database.write() as session:
        assert deliveries.release_all(session, now_ms=NOW_MS) == 1
        assert deliveries.release_all(session, now_ms=NOW_MS) == 0
    assert claim_delivery(database, owner="next").attempt == 2


def test_replay_revives_dead_ones_alone(database, watch, batch):
    deliver(database, batch, sink="done")
    deliver(database, batch, sink="dead", state=DeliveryState.DEAD, location=None, error="410")
    with database.read() as session:
        (dead,) = deliveries.load_dead_deliveries(session, limit=9)
    assert (dead[0], dead[1], dead[2].sink, dead[2].error) == ("gate", "gate-000001", "dead", "410")
    with database.write() as session:
        assert control.replay(session, watch=watch, actor="me", now_ms=NOW_MS + 7) == (0, 0, 1)
        (entry,) = control.load_audit_log(session, watch=watch, limit=9)
    assert entry.facts == {"runs": 0, "samples": 0, "deliveries": 1}
    revived = load_all(database, batch)["dead"]
    assert (revived.state, revived.attempt, revived.error, revived.created_ms) == (
        DeliveryState.READY,
        0,
        None,
        NOW_MS + 7,
    )


def test_replay_of_one_delivery_makes_a_confirmed_one_again(database, watch, batch):
    for sink in ("a", "b"):
        deliver(database, batch, sink=sink)

    def replay(which):
        with database.write() as session:
            return control.replay_delivery(session, watch=watch, delivery=which, actor="me", now_ms=NOW_MS)

    assert replay("gate-000001/a") == 1
    assert [d.state for d in load_all(database, batch).values()] == [DeliveryState.READY, DeliveryState.DONE]
    assert replay("gate-000001") == 2
    claim_delivery(database)
    for which in ("gate-000001/a", "gate-000001/absent", "gate-000009"):
        with pytest.raises(control.RefusedChangeError, match=f"no delivery '{which}'"):
            replay(which)


def drop(database, watch, **which):
    with database.write() as session:
        return control.drop(session, watch=watch, actor="me", now_ms=NOW_MS + 7, **which)


def test_dead_deliveries_are_dropped_by_sink_or_by_name_and_told_no_more(database, watch, batch):
    for sink in ("gone", "kept", "other"):
        deliver(database, batch, sink=sink, state=DeliveryState.DEAD, location=None, error="410")
    second = add_batch(database, watch, ["b"])
    deliver(database, second, sink="gone", state=DeliveryState.DEAD, location=None, error="410")
    assert [drop(database, watch, sink="gone") for _ in range(2)] == [2, 0]
    assert [drop(database, watch, delivery="gate-000001/other") for _ in range(2)] == [1, 0]
    with database.read() as session:
        dead = deliveries.load_dead_deliveries(session, limit=9)
        told = deliveries.load_unconfirmed(session, watch_id=watch.id, limit=9)
        log = control.load_audit_log(session, watch=watch, limit=9)
    assert [(key, delivery.sink) for _, key, delivery in dead] == [("gate-000001", "kept")]
    assert [(key, delivery.sink) for key, delivery in told] == [("gate-000001", "kept")]
    assert [(entry.verb, entry.facts) for entry in log] == [
        ("drop", {"delivery": "gate-000001/other", "deliveries": 1}),
        ("drop", {"sink": "gone", "deliveries": 2}),
    ]
    dropped = load_all(database, batch)["gone"]
    assert (dropped.state, dropped.error, dropped.finished_ms) == (DeliveryState.DROPPED, "410", NOW_MS + 7)


def test_dropped_delivery_is_replayed_by_its_name_alone(database, watch, batch):
    deliver(database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")
    drop(database, watch, delivery="gate-000001")
    with database.write() as session:
        assert control.replay(session, watch=watch, actor="me", now_ms=NOW_MS) == (0, 0, 0)
        name = "gate-000001/gone"
        assert control.replay_delivery(session, watch=watch, delivery=name, actor="me", now_ms=NOW_MS) == 1
    assert load_all(database, batch)["gone"].state is DeliveryState.READY


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ({"sink": "done"}, "'gate' has no dead delivery to 'done'"),
        ({"sink": "ready"}, "only dead ones can be dropped"),
        ({"sink": "absent"}, "no dead delivery to 'absent'"),
        ({"delivery": "gate-000001/done"}, "no dead delivery 'gate-000001/done'"),
        ({"delivery": "gate-000009/gone"}, "no dead delivery"),
        ({}, "Name one delivery as <batch>/<sink>, or a sink"),
        ({"delivery": "gate-000001", "sink": "gone"}, "Name one delivery as <batch>/<sink>, or a sink"),
    ],
)
def test_what_is_not_dead_is_not_dropped(database, watch, batch, which, told):
    deliver(database, batch, sink="done")
    deliver(database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")
    add_delivery(database, batch, sink="ready")
    with pytest.raises(control.RefusedChangeError, match=told):
        drop(database, watch, **which)
    with database.read() as session:
        assert control.load_audit_log(session, watch=watch, limit=9) == []
        assert len(deliveries.load_dead_deliveries(session, limit=9)) == 1


def test_task_ids_are_kept_and_found_by_sample(database, watch, batch):
    delivery = add_delivery(database, batch)
    sample = load(database, watch, "a")
    for task_id in ("7", "8"):
        with database.write() as session:
            deliveries.record_tasks(session, delivery_id=delivery.id, tasks={sample.id: task_id})
            deliveries.record_tasks(session, delivery_id=delivery.id, tasks={})
    with database.read() as session:
        assert deliveries.load_task_ids(session, sample_id=sample.id) == {delivery.id: "8"}


def test_counts_and_the_oldest_unconfirmed_are_by_sink(database, watch, batch):
    deliver(database, batch, sink="a")
    add_delivery(database, batch, sink="b", now_ms=NOW_MS + 3)
    second = add_batch(database, watch, ["b"])
    add_delivery(database, second, sink="b", now_ms=NOW_MS + 9)
    with database.read() as session:
        assert deliveries.count_by_state(session) == {
            ("gate", "a", DeliveryState.DONE): 1,
            ("gate", "b", DeliveryState.READY): 2,
        }
        assert deliveries.load_oldest_open(session) == {("gate", "b"): NOW_MS + 3}
        waiting = deliveries.load_unconfirmed(session, watch_id=watch.id, limit=9)
    assert [(key, delivery.sink) for key, delivery in waiting] == [
        ("gate-000001", "b"),
        ("gate-000002", "b"),
    ]


def test_delivery_id_is_the_same_everywhere_and_another_for_anything_else():
    promised_by_earlier_version = {"dataset_id": "d", "batch_key": "b", "sink": "s", "picks_digest": None}
    assert compute_delivery_id(**promised_by_earlier_version) == "f2f96a9d-84df-5237-9f83-e26ea316d985"
    names = {**promised_by_earlier_version, "picks_digest": compute_picks_digest(["a", "b"])}
    assert compute_delivery_id(**names) == "5496b138-3c49-5bd5-8fab-d1fd36a5a0b0"
    assert (
        len({compute_delivery_id(**{**names, name: "x"}) for name in names} | {compute_delivery_id(**names)})
        == 5
    )


def test_digest_of_picks_tells_their_names_and_order_apart():
    picks = [[], ["a"], ["a", "b"], ["b", "a"], ["ab"], ["a", "", "b"]]
    assert len({compute_picks_digest(names) for names in picks}) == len(picks)
