"""Many watches at a glance: what a line shows, what a day's arrivals look like, and that no query walks the ledger."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import event

from tests.builders import NOW_MS, add_batch, add_watch, claim, list_names, load
from watcher.domain.models import PollState, RunState
from watcher.domain.window import Window
from watcher.ops.arrivals import HOURS, Arrivals, draw
from watcher.store import picks, polls, runs, samples

HOUR_MS = 3_600_000


def add_poll(ops, watch, *, at_ms, n_new=0, error=None):
    with ops.database.write() as session:
        poll = polls.create_poll(session, watch_id=watch.id, window=Window(1, 2, None), now_ms=at_ms)
        polls.update_progress(
            session, poll_id=poll.id, via=poll.via, cursor=None, n_listed=n_new, n_new=n_new
        )
        state = PollState.FAILED if error else PollState.DONE
        polls.finish_poll(session, poll_id=poll.id, state=state, now_ms=at_ms, error=error)


def load_arrivals(ops, arrivals, now_ms=NOW_MS):
    with ops.database.read() as session:
        return arrivals.load(session, now_ms=now_ms)


def test_arrivals_are_counted_by_the_hour_of_their_poll(ops):
    gate, roof = add_watch(ops.database, "gate"), add_watch(ops.database, "roof")
    for watch, hours_ago, n in (
        (gate, 30, 9),
        (gate, 23, 5),
        (gate, 1, 2),
        (roof, 1, 7),
        (gate, 1, 1),
        (gate, 0, 4),
    ):
        add_poll(ops, watch, at_ms=NOW_MS - hours_ago * HOUR_MS, n_new=n)
    found = load_arrivals(ops, Arrivals())
    assert found["gate"] == [5, *[0] * (HOURS - 3), 3, 4]
    assert found["roof"] == [*[0] * (HOURS - 2), 7, 0]


def test_arrivals_looked_at_again_and_again_are_those_of_one_look(ops):
    gate = add_watch(ops.database)
    arrivals = Arrivals()
    for step in range(60):
        now_ms = NOW_MS + step * HOUR_MS // 2
        add_poll(ops, gate, at_ms=now_ms, n_new=step + 1)
        assert load_arrivals(ops, arrivals, now_ms) == load_arrivals(ops, Arrivals(), now_ms)


def test_arrivals_of_an_empty_store_are_none(ops):
    assert load_arrivals(ops, Arrivals()) == {}


def test_drawing_has_a_bar_an_hour_with_arrivals_and_fits_its_frame():
    drawn = draw([0, 1, 1000, 500])
    assert [height for _, _, height in drawn.bars] == [1.0, 22.0, 11.0]
    assert all(y >= 0 and y + height == drawn.height and x + 3 <= drawn.width for x, y, height in drawn.bars)
    assert (drawn.total, drawn.peak) == (1501, 1000)
    assert draw([0] * HOURS).bars == []


def test_overview_of_many_watches_is_a_line_each_with_what_is_wrong(ops):
    for number in range(6):
        add_watch(ops.database, f"cam-{number}")
    failing, troubled = add_watch(ops.database, "cam-1"), add_watch(ops.database, "cam-2")
    add_poll(ops, failing, at_ms=NOW_MS, error="the server answered 503")
    batch = add_batch(ops.database, troubled, ["a.jpg", "b.jpg"])
    run = claim(ops.database)
    with ops.database.write() as session:
        sample = load(ops.database, troubled, "a.jpg")
        samples.record_quarantined(session, sample_id=sample.id, reason="no image", now_ms=NOW_MS)
        runs.end_run(
            session, run_id=run.id, owner="me", state=RunState.DEAD, now_ms=NOW_MS, result={}, error="gave up"
        )
        picked = load(ops.database, troubled, "b.jpg")
        picks.replace_picks(session, batch_id=batch.id, rows=[(picked.id, 1, {})])
    page = ops.get("/").text
    assert len(re.findall("<svg", page)) == 6
    assert "last poll: the server answered 503" in page
    assert "1 dead run, 1 sample set aside" in page
    assert f'<img src="/thumbnails/{picked.id}" alt="b.jpg"' in page
    assert "<h3>Polls</h3>" not in page
    assert "gave up" in ops.get("/watches/cam-2").text


def test_overview_counts_in_words_only_what_there_is(ops):
    watch = add_watch(ops.database, name="cam-0")
    add_watch(ops.database, name="cam-1")
    add_batch(ops.database, watch, ["a.jpg", "b.jpg"])
    with ops.database.write() as session:
        for name in ("a.jpg", "b.jpg"):
            sample = load(ops.database, watch, name)
            samples.record_quarantined(session, sample_id=sample.id, reason="no image", now_ms=NOW_MS)
    page = ops.get("/").text
    assert "2 samples set aside" in page
    assert "dead run" not in page


def test_page_of_an_unknown_watch_is_404_and_names_the_known_ones(ops):
    add_watch(ops.database)
    answer = ops.get("/watches/door")
    assert answer.status_code == 404
    assert "known are: gate" in answer.text


def test_life_of_a_file_is_told_and_an_unknown_one_is_404(ops):
    watch = add_watch(ops.database)
    list_names(ops.database, watch, ["cam/<b>.jpg"])
    page = ops.get("/files", params={"name": "cam/<b>.jpg", "watch": "gate"})
    assert page.status_code == 200
    assert "listed for the first time" in page.text
    assert "cam/&lt;b&gt;.jpg" in page.text
    assert ops.get("/files?name=never.jpg").status_code == 404
    assert ops.get("/files?name=a%00b").status_code == 404
    assert ops.get("/files").status_code == 200


def test_log_page_tells_who_changed_what(ops):
    add_watch(ops.database)
    ops.change("gate", "pause", {"actor": "ann"})
    page = ops.get("/log").text
    assert "local (ann)" in page
    assert "pause" in page
    assert ops.get("/log?watch=door").status_code == 404


@pytest.mark.parametrize("name", ["status.css", "status.js"])
def test_static_file_is_served_and_no_other_is(sqlite_ops, name):
    answer = sqlite_ops.get(f"/static/{name}")
    assert answer.status_code == 200
    assert "nosniff" in answer.headers["X-Content-Type-Options"]
    assert sqlite_ops.get("/static/..%2fpages.py").status_code == 404


@pytest.mark.parametrize("path", ["/", "/watches/gate", "/log", "/files?name=a5"])
def test_page_asks_the_ledger_only_through_an_index(sqlite_ops, path):
    watch = add_watch(sqlite_ops.database)
    for number in range(1, 5):
        add_watch(sqlite_ops.database, f"cam-{number}")
    list_names(sqlite_ops.database, watch, [f"a{number}" for number in range(300)])
    asked = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        if statement.lstrip().upper().startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(sqlite_ops.database.engine, "before_cursor_execute", note)
    assert sqlite_ops.get(path).status_code == 200
    event.remove(sqlite_ops.database.engine, "before_cursor_execute", note)
    assert asked
    with sqlite_ops.database.engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            scans = [row[3] for row in plan if re.match(r"SCAN (samples|vectors|polls)", row[3])]
            assert scans == [], statement


def test_overview_takes_as_many_statements_for_fifty_watches_as_for_five(sqlite_ops):
    asked = []
    event.listen(sqlite_ops.database.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    counts = []
    for upto in (5, 50):
        for number in range(upto):
            add_watch(sqlite_ops.database, f"cam-{number}")
        sqlite_ops.get("/")
        asked.clear()
        sqlite_ops.get("/")
        counts.append(len(asked))
    assert counts[0] == counts[1] > 0
