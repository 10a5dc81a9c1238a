"""`watcher check-store`: a store as the daemon leaves it is in order, and what a hand broke is named by table and id."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import insert, text, update

from tests.builders import NOW_MS, NOW_S, add_batch, add_delivery, add_watch, claim, deliver, list_names, load
from watcher.domain.window import Window
from watcher.store import control, polls, samples, tables, watches
from watcher.store.checks import iter_faults


@pytest.fixture
def watch(database):
    """Two watches with batches in work, promised deliveries, a mark, and files in every state."""
    watch, roof = add_watch(database), add_watch(database, "roof")
    batch = add_batch(database, watch, ["a", "b", "broken"])
    add_batch(database, roof, ["c"])
    list_names(database, watch, ["waits"])
    claim(database)
    deliver(database, batch)
    add_delivery(database, batch, sink="other")
    window = Window(from_s=NOW_S, to_s=NOW_S + 60, overlap_from_s=None)
    broken = load(database, watch, "broken").id
    with database.write() as session:
        samples.record_quarantined(session, sample_id=broken, reason="r", now_ms=1)
        poll = polls.create_poll(session, watch_id=watch.id, window=window, now_ms=NOW_MS)
        watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S + 60, now_ms=NOW_MS + 1)
        polls.finish_poll(session, poll_id=poll.id, state="done", now_ms=NOW_MS + 1)
        watches.update_remote_mark(session, watch_id=watch.id, remote_mark_s=NOW_S + 60)
    return watch


def find(database) -> list[tuple[str, str, str]]:
    with database.read() as session:
        return [(fault.table, fault.id, fault.what) for fault in iter_faults(session)]


def edit(database, statement) -> None:
    with database.write() as session:
        if database.is_sqlite:
            session.execute(text("PRAGMA defer_foreign_keys = ON"))
        session.execute(statement)


def test_store_as_the_daemon_left_it_has_no_broken_row(database, watch):
    assert find(database) == []


def test_mark_of_the_server_ahead_of_ours_is_explained_by_a_rewind_alone(database, watch):
    with database.write() as session:
        known = watches.load_watch(session, name="gate")
        assert control.rewind(session, watch=known, to_s=NOW_S, actor="me", now_ms=NOW_MS + 5)
    assert find(database) == []
    with database.write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S + 1, now_ms=NOW_MS + 9)
    assert find(database) == [
        ("watches", "1", f"the server was told the mark {NOW_S + 60} of 'gate', which stands at {NOW_S + 1}")
    ]


def test_idle_polls_that_were_forgotten_do_not_make_the_mark_a_fault(database, watch):
    with database.write() as session:
        assert polls.delete_idle_polls(session, before_ms=NOW_MS + 2) > 0
    assert find(database) == []


S, R, B, H, P, W = tables.samples, tables.runs, tables.batches, tables.handovers, tables.polls, tables.watches


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            update(P).where(P.c.id == 1).values(state="odd"),
            [("polls", "1", "state is 'odd', which nothing knows")],
        ),
        (
            update(P).where(P.c.id == 1).values(via="odd"),
            [("polls", "1", "via is 'odd', which nothing knows")],
        ),
        (
            update(S).where(S.c.id == 1).values(via="odd"),
            [("samples", "1", "via is 'odd', which nothing knows")],
        ),
        (
            update(R).where(R.c.id == 1).values(step="odd"),
            [("runs", "1", "step is 'odd', which nothing knows")],
        ),
        (
            update(H).where(H.c.id == 2).values(state="odd"),
            [("handovers", "2", "state is 'odd', which nothing knows")],
        ),
        (
            update(S).where(S.c.id == 1).values(state="odd"),
            [("samples", "1", "state is 'odd', which nothing knows")],
        ),
        (
            update(S).where(S.c.id == 1).values(batch_id=2),
            [("samples", "1", "'a' is in batch 2, which belongs to another watch")],
        ),
        (
            update(S).where(S.c.id == 1).values(batch_id=None),
            [("samples", "1", "'a' is in processing, but in no batch that is under way")],
        ),
        (
            update(S).where(S.c.id == 3).values(reason=None),
            [("samples", "3", "'broken' is quarantined without a reason")],
        ),
        (
            update(B).where(B.c.id == 1).values(state="done"),
            [
                ("samples", "1", "'a' is in processing, but in no batch that is under way"),
                ("samples", "2", "'b' is in processing, but in no batch that is under way"),
                ("batches", "1", "'gate-000001' is done, and 1 of its runs are not"),
            ],
        ),
        (
            update(R).where(R.c.id == 1).values(state="done", finished_ms=1),
            [
                (
                    "batches",
                    "1",
                    "'gate-000001' is open, and no run of it is ready or running, so it will never end",
                ),
                ("runs", "1", "it is done and under the lease of 'me'"),
            ],
        ),
        (
            update(R).where(R.c.id == 1).values(lease_owner=None),
            [("runs", "1", "it is running under no lease, so nobody takes it up again")],
        ),
        (
            update(H).where(H.c.id == 1).values(finished_ms=None),
            [("handovers", "1", "it is done and never ended")],
        ),
        (
            update(W).where(W.c.id == 1).values(mark_s=NOW_S + 900),
            [
                (
                    "watches",
                    "1",
                    f"the mark of 'gate' stands at {NOW_S + 900}, and the newest poll listed up to {NOW_S + 60}",
                )
            ],
        ),
        (
            update(W).where(W.c.id == 2).values(remote_mark_s=7),
            [("watches", "2", "the server was told the mark 7 of 'roof', which stands at None")],
        ),
        (
            update(B).where(B.c.id == 2).values(key="gate-000001"),
            [
                (
                    "batches",
                    "2",
                    "another batch has its key 'gate-000001' too, under which the server knows both",
                )
            ],
        ),
        (
            insert(tables.picks).values(batch_id=2, sample_id=1, rank=1, reason="{}"),
            [("picks", "2/1", "its batch and its sample are not of one watch")],
        ),
        (
            update(tables.sample_counts).where(tables.sample_counts.c.state == "quarantined").values(n=9),
            [("sample_counts", "1/quarantined", "it counts 9, and there are 1")],
        ),
        (
            insert(tables.dark_counts).values(watch_id=2, n=3),
            [("dark_counts", "2", "it counts 3, and there are 0")],
        ),
    ],
)
def test_row_that_a_hand_broke_is_named_with_what_is_wrong(database, watch, statement, expected):
    edit(database, statement)
    assert find(database) == expected


def test_row_that_leads_nowhere_is_named(database, watch):
    statement = "UPDATE runs SET batch_id = 99 WHERE id = 2"
    if database.is_sqlite:
        with closing(sqlite3.connect(str(database.engine.url.database))) as connection:
            connection.execute(statement)  # a connection of its own checks no references
            connection.commit()
    else:
        with database.write() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text(statement))
    assert ("runs", "2", "batch_id 99 is the id of no row") in find(database)


def test_command_names_broken_rows_and_ends_with_1(stored_command, database, watch):
    good = stored_command("check-store")
    assert (good.exit_code, good.stdout) == (0, "No row of the store is broken.\n")
    edit(database, update(S).where(S.c.id == 3).values(reason=None))
    told = stored_command("check-store")
    assert (told.exit_code, told.stdout) == (
        1,
        "samples 3: 'broken' is quarantined without a reason\n1 broken rows\n",
    )
    (line,) = stored_command("check-store", "--json").stdout.splitlines()
    assert json.loads(line) == {
        "table": "samples",
        "id": "3",
        "what": "'broken' is quarantined without a reason",
    }
    assert stored_command("check-store").exit_code == 1, "it was mended by looking at it"
