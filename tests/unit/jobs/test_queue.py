"""The queue of hints: deferred with the run they are for, made again when lost, and refused where they cannot be."""

from __future__ import annotations

import importlib.metadata

import pytest
from sqlalchemy import text

from tests.builders import NOW_MS, ManualClock, add_batch, add_watch, build_config
from watcher.database.engine import build_database
from watcher.dispatch import queue as queue_module
from watcher.dispatch.queue import RunQueue, check_queue, upgrade_queue
from watcher.domain.errors import ConfigError, SchemaMismatchError
from watcher.domain.models import BatchRules, RunState
from watcher.store import claims, control, runs

pytestmark = pytest.mark.parametrize("store_url", ["postgres"], indirect=True)


@pytest.fixture
def database(store_url):
    database = build_database(store_url)
    upgrade_queue(database)
    with database.write() as session:
        session.execute(text("TRUNCATE watcher_queue.procrastinate_jobs CASCADE"))
    yield database
    database.close()


@pytest.fixture
def queue(database):
    made = RunQueue(database, clock=ManualClock(), most_running={"limited": 2})
    made.attach(database)
    return made


def hints(database):
    with database.read() as session:
        return [
            (row.queue_name, row.args["run_id"])
            for row in session.execute(
                text(
                    "SELECT queue_name, args FROM watcher_queue.procrastinate_jobs WHERE status = 'todo' ORDER BY id"
                )
            )
        ]


def add_large_batch(database, watch, n_shards):
    rules = BatchRules(min_samples=1, max_samples=1000, shard_samples=1)
    names = [f"{n:03d}" for n in range(n_shards)]
    return add_batch(database, watch, names, config=build_config(watch.name, batch=rules))


def claim(database, **options):
    with database.write() as session:
        return claims.claim_run(session, owner="me", now_ms=NOW_MS, lease_ms=60_000, **options)


def end(database, run, state=RunState.DONE):
    with database.write() as session:
        runs.end_run(session, run_id=run.id, owner="me", state=state, now_ms=NOW_MS, result={}, error=None)


def clear(database):
    with database.write() as session:
        session.execute(text("TRUNCATE watcher_queue.procrastinate_jobs CASCADE"))


def test_hints_are_deferred_in_the_transaction_that_makes_the_runs(database, queue):
    watch = add_watch(database)
    add_large_batch(database, watch, 3)
    assert [step for step, _ in hints(database)] == ["upload"] * 3
    with database.read() as session:
        path = session.execute(text("SHOW search_path")).scalar_one()
    assert "watcher_queue" not in path


def test_transaction_that_is_rolled_back_leaves_no_hint(database, queue):
    watch = add_watch(database)
    add_large_batch(database, watch, 1)
    clear(database)

    def fail():
        with database.write() as session:
            run = session.execute(text("SELECT id, batch_id FROM runs")).one()
            runs.create_run(session, batch_id=run.batch_id, step="embed", now_ms=NOW_MS)
            queue.dispatch_ready(session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hints(database) == []


def test_run_that_may_not_be_claimed_yet_has_no_hint_until_it_may(database, queue):
    watch = add_watch(database)
    add_batch(database, watch, ["a"])
    second = add_batch(database, watch, ["b"])
    assert len(hints(database)) == 1
    first = claim(database)
    clear(database)
    end(database, first, state=RunState.DEAD)
    with database.write() as session:
        session.execute(text("UPDATE batches SET state = 'dead' WHERE id = :id"), {"id": first.batch_id})
        session.info[runs.READY] = True
    (hint,) = hints(database)
    with database.read() as session:
        assert runs.load_run(session, run_id=hint[1]).batch_id == second.id


def test_watch_with_a_limit_has_no_more_hints_than_may_run(database, queue):
    add_large_batch(database, add_watch(database, "limited"), 5)
    add_large_batch(database, add_watch(database, "free"), 4)
    assert len(hints(database)) == 2 + 4
    run = claim(database, watch_names=["limited"])
    assert len(hints(database)) == 6
    end(database, run)
    assert len(hints(database)) == 7


def test_queue_that_was_emptied_is_made_again_and_a_second_sweep_adds_nothing(database, queue):
    add_large_batch(database, add_watch(database), 4)
    clear(database)
    assert queue.sweep() == 4
    assert queue.sweep() == 0
    assert len(hints(database)) == 4


def test_single_lost_hint_is_made_again(database, queue):
    add_large_batch(database, add_watch(database), 4)
    with database.write() as session:
        session.execute(text("SET LOCAL search_path TO watcher_queue"))
        session.execute(
            text(
                "DELETE FROM watcher_queue.procrastinate_jobs WHERE id = (SELECT min(id) FROM watcher_queue.procrastinate_jobs)"
            )
        )
    assert queue.sweep() == 1
    assert len(hints(database)) == 4


def test_hint_that_led_to_nothing_is_given_again_when_its_run_is_ready(database, queue):
    add_large_batch(database, add_watch(database), 1)
    (hint,) = hints(database)
    clear(database)
    queue.return_hint(hint[1])
    assert queue.sweep() == 1


def test_run_of_a_dead_worker_is_dispatched_again(database, queue):
    add_large_batch(database, add_watch(database), 1)
    assert claim(database) is not None
    clear(database)
    assert queue.sweep() == 0
    with database.write() as session:
        session.execute(text("UPDATE runs SET lease_until_ms = 1"))
    assert queue.sweep() == 1


def test_replayed_and_resumed_work_is_dispatched(database, queue):
    watch = add_watch(database)
    add_large_batch(database, watch, 1)
    run = claim(database)
    end(database, run, state=RunState.DEAD)
    clear(database)
    with database.write() as session:
        assert control.replay(session, watch=watch, actor="me", now_ms=NOW_MS)[0] == 1
    assert len(hints(database)) == 1


def test_queue_of_another_version_is_refused_and_made_anew_by_migrate_without_losing_a_run(database, queue):
    add_large_batch(database, add_watch(database), 3)
    in_work = claim(database)
    with database.engine.begin() as connection:
        connection.execute(text("COMMENT ON SCHEMA watcher_queue IS 'procrastinate 1.2.3'"))
    with pytest.raises(SchemaMismatchError, match=r"made by procrastinate 1\.2\.3.*run `watcher migrate`"):
        check_queue(database)
    upgrade_queue(database)
    check_queue(database)
    assert hints(database) == []
    assert queue.sweep() == 2
    end(database, in_work)  # a worker that went on meanwhile ends its run as if nothing had been
    assert sorted(run for _, run in hints(database)) == [in_work.id + 1, in_work.id + 2]
    with database.read() as session:
        assert runs.load_run(session, run_id=in_work.id).state is RunState.DONE


def test_store_without_the_queue_is_refused_with_the_command(database):
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA watcher_queue CASCADE"))
    with pytest.raises(SchemaMismatchError, match=r"the queue is not there yet.*run `watcher migrate`"):
        check_queue(database)


def test_missing_extra_is_named(database, monkeypatch):
    def missing(_name):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(queue_module, "version", missing)
    with pytest.raises(
        ConfigError, match=r"needs the extra `workers`: install datasource-watcher\[workers\]"
    ):
        check_queue(database)


def test_queue_over_sqlite_is_refused_with_the_ways_out(database, tmp_path):
    sqlite = build_database(f"sqlite:///{tmp_path / 'a'}")
    with pytest.raises(ConfigError, match=r"needs Postgres.*WATCHER_STORE__URL.*move-store"):
        check_queue(sqlite)
    sqlite.close()
