"""Leadership: a growing epoch, a lease by the database's clock, and transactions that an old leader cannot commit."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import text

from tests.builders import NOW_MS, add_watch
from watcher.database.engine import build_database
from watcher.domain.errors import FencedError, StoreLockedError, StoreUnavailableError
from watcher.leadership import FencedDatabase, Leadership
from watcher.metrics import Metrics
from watcher.store import watches
from watcher.store.leadership import extend_lead, load_leader, take_lead

# An SQLite file has one daemon: see test_lock.
pytestmark = pytest.mark.parametrize("store_url", ["postgres"], indirect=True)


@pytest.fixture
def stores(store_url):
    """Three processes' views of one store."""
    opened = [build_database(store_url) for _ in range(3)]
    yield opened
    for database in opened:
        database.close()


def run_out(database):
    """Lets the lease run out by the database's own clock, as a leader that gives no sign of life does."""
    with database.write() as session:
        session.execute(text("UPDATE leadership SET until_ms = 1"))


def test_each_term_has_a_greater_epoch(stores):
    epochs = []
    for database in stores:
        leadership = Leadership(database)
        leadership.acquire()
        epochs.append(leadership.epoch)
        leadership.release()
    assert epochs == sorted(set(epochs))


def test_name_of_a_process_is_its_own_and_shown_by_postgres(stores):
    names = {database.name for database in stores}
    assert len(names) == 3
    with stores[0].read() as session:
        assert session.execute(text("SHOW application_name")).scalar_one() == stores[0].name


def test_leader_in_office_is_named_with_what_is_left_of_its_lease(stores):
    first, second = (Leadership(database, lease_s=60) for database in stores[:2])
    first.acquire()
    with pytest.raises(StoreLockedError, match=rf"{stores[0].name} leads in epoch 1.*holds for another \d"):
        second.acquire()
    first.release()
    second.acquire()
    assert second.epoch == 2
    second.release()


@pytest.mark.scenario(number=32)
def test_write_of_an_old_leader_is_refused_and_counted(stores):
    metrics = Metrics()
    watch = add_watch(stores[2])
    old = Leadership(stores[0], lease_s=60, metrics=metrics)
    new = Leadership(stores[1], lease_s=60)
    old.acquire()
    fenced = FencedDatabase(stores[0], old)
    with fenced.write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=1, now_ms=NOW_MS)
    run_out(stores[2])
    new.acquire()
    with (
        pytest.raises(FencedError, match="led in epoch 1, but epoch 2 has begun"),
        fenced.write() as session,
    ):
        watches.update_mark(session, watch_id=watch.id, mark_s=2, now_ms=NOW_MS)
    with stores[2].read() as session:
        assert watches.load_watch(session, name=watch.name).mark_s == 1
    assert metrics.registry.get_sample_value("watcher_fenced_writes_total") == 1
    assert old.lost.is_set()
    old.release()
    assert new.epoch == 2
    with FencedDatabase(stores[1], new).write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=3, now_ms=NOW_MS)
    new.release()


def test_leader_frozen_within_a_transaction_can_not_commit_it_once_another_leads(stores):
    watch = add_watch(stores[2])
    old, new = Leadership(stores[0], lease_s=60), Leadership(stores[1], lease_s=60)
    old.acquire()

    def write_slowly():
        with FencedDatabase(stores[0], old).write() as session:
            watches.update_mark(session, watch_id=watch.id, mark_s=1, now_ms=NOW_MS)
            run_out(stores[2])
            new.acquire()

    with pytest.raises(StoreUnavailableError):
        write_slowly()
    assert new.epoch == 2
    with stores[2].read() as session:
        assert watches.load_watch(session, name=watch.name).mark_s is None
    old.release()
    new.release()


def test_follower_that_never_led_writes_nothing(stores):
    watch = add_watch(stores[2])
    with (
        pytest.raises(FencedError),
        FencedDatabase(stores[0], Leadership(stores[0])).write() as session,
    ):
        watches.update_mark(session, watch_id=watch.id, mark_s=1, now_ms=NOW_MS)


def test_leader_that_lives_keeps_the_lead_beyond_its_lease(stores):
    first = Leadership(stores[0], lease_s=2)
    first.acquire()
    ends_s = time.monotonic() + 4
    while time.monotonic() < ends_s:
        with pytest.raises(StoreLockedError):
            Leadership(stores[1], lease_s=2).acquire()
        time.sleep(0.2)
    assert not first.lost.is_set()
    first.release()


def test_leader_that_finds_another_one_knows_that_it_lost(stores):
    first = Leadership(stores[0], lease_s=1)
    first.acquire()
    with stores[1].write() as session:
        assert take_lead(session, holder="other", lease_ms=60_000, work_version=1, force=True) == 2
    assert first.lost.wait(30)
    first.release()
    with stores[1].read() as session:
        assert load_leader(session).holder == "other", "an old leader does not give up what is not its own"


def test_many_that_want_to_lead_at_once_make_one_leader(stores):
    won, ready = [], threading.Barrier(3)

    def want(database):
        ready.wait()
        with database.write() as session:
            epoch = take_lead(session, holder=database.name, lease_ms=60_000, work_version=1)
        if epoch is not None:
            won.append(epoch)

    threads = [threading.Thread(target=want, args=(database,)) for database in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]
    with stores[0].write() as session:
        assert not extend_lead(session, holder="nobody", epoch=1, lease_ms=1)
