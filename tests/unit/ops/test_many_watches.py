"""What the pages, the API and the scrape ask the store: as many statements for thirty watches as for three, all bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from tests.builders import NOW_MS, add_batch, add_run, add_watch, claim, deliver, list_names, load
from watcher.domain.models import PollState, RunState, Step
from watcher.domain.window import Window
from watcher.ops.overview import load_overview
from watcher.store import batches, picks, polls, runs, samples

READERS = ("/api/v1/status", "/api/v1/failures", "/metrics", "/", "/watches/gate", "/api/v1/watches/gate")


@contextmanager
def noting(database) -> Iterator[list[tuple[str, object]]]:
    """The statements that are asked meanwhile, with their parameters."""
    asked: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    yield asked
    event.remove(database.engine, "before_cursor_execute", note)


def name_of(number):
    return f"gate-{number:02d}" if number else "gate"


def fill(database, number, *, n_batches=3):
    """A watch with polls, batches, a sharded step, deliveries, picks, and samples that were set aside."""
    watch = add_watch(database, name_of(number))
    for at in range(n_batches):
        names = [f"{at}-{name}.jpg" for name in range(6)]
        batch = add_batch(database, watch, names)
        with database.write() as session:
            runs.create_shards(
                session, batch_id=batch.id, step=Step.EMBED, bounds=[(1, 3), (4, 6)], now_ms=NOW_MS
            )
        if number == 0:
            deliver(database, batch, location=f"{watch.name}-{at}.jsonl", now_ms=NOW_MS)
        with database.write() as session:
            rows = [(load(database, watch, name).id, rank, {}) for rank, name in enumerate(names[:5], 1)]
            picks.replace_picks(session, batch_id=batch.id, rows=rows)
            batches.record_sampling_tag(session, batch_id=batch.id, tag_id="t", tag_name=batch.key)
        with database.write() as session:
            for name in names[4:]:
                sample = load(database, watch, name)
                samples.record_quarantined(session, sample_id=sample.id, reason=f"{at}", now_ms=NOW_MS + at)
            gone = load(database, watch, names[0])
            samples.record_gone(session, sample_id=gone.id, reason="gone", now_ms=NOW_MS + 100 - number)
    for at in range(7):
        window = Window(100 * at + 1, 100 * at + 99, 100 * at - number)
        with database.write() as session:
            poll = polls.create_poll(session, watch_id=watch.id, window=window, now_ms=NOW_MS + at)
            polls.finish_poll(
                session,
                poll_id=poll.id,
                state=PollState.DONE,
                now_ms=NOW_MS,
                error=f"{number}" if at else None,
            )
    return watch


def test_readers_take_as_many_statements_for_thirty_watches_as_for_three(ops):
    counts: dict[str, list[int]] = {path: [] for path in READERS}
    for upto, first in ((3, 0), (30, 3)):
        for number in range(first, upto):
            add_watch(ops.database, name_of(number))
        for number in range(first, first + 3):
            fill(ops.database, number, n_batches=1)
        for path in READERS:
            ops.get(path)  # the first look at the arrivals reads more
            with noting(ops.database) as asked:
                assert ops.get(path).status_code == 200
            counts[path].append(len(asked))
    for path, (few, many) in counts.items():
        if path != "/":  # three watches are shown in full there
            assert few == many > 0, path


def test_status_of_all_watches_tells_of_each_what_its_own_page_tells(ops):
    for number in range(3):
        fill(ops.database, number)
    add_watch(ops.database, "empty")
    run = claim(ops.database)
    with ops.database.write() as session:
        runs.end_run(
            session, run_id=run.id, owner="me", state=RunState.DEAD, now_ms=NOW_MS, result={}, error="gave up"
        )
    every = load_overview(ops.database, now_ms=NOW_MS).watches
    assert [view.name for view in every] == ["empty", "gate", "gate-01", "gate-02"]
    for view in every:
        (alone,) = load_overview(ops.database, now_ms=NOW_MS, only=view.name).watches
        assert alone == view
    empty, first, last = every[0], every[1], every[3]
    assert (empty.polls, empty.batches, empty.picks, empty.troubled) == ([], [], [], [])
    assert [poll.from_s for poll in last.polls] == [601, 501, 401, 301, 201]
    assert {poll.error for poll in last.polls} == {"2"}
    assert last.overlap_s == 2
    assert [batch.key for batch in last.batches] == ["gate-02-000003", "gate-02-000002", "gate-02-000001"]
    assert [(pick.file_name, pick.rank) for pick in last.picks] == [
        (f"{at}-{name}.jpg", name + 1) for at in (2, 1, 0) for name in range(5)
    ][:12]
    assert [sample.file_name for sample in last.troubled] == [
        f"{at}-{name}.jpg" for at in (2, 1, 0) for name in (5, 4, 0)
    ]
    embed = next(step for step in last.batches[0].runs if step.step == "embed")
    assert (embed.state, embed.n_shards, embed.n_shards_done) == ("ready", 2, 0)
    assert first.batches[0].manifests == ["gate-2.jsonl"]
    assert first.batches[2].runs[0].error == "gave up"
    assert first.batches[2].runs[0].state == "dead"


def test_shards_of_a_step_count_as_one_line_with_the_worst_state(ops):
    batch = add_batch(ops.database, add_watch(ops.database), ["a", "b"])
    with ops.database.write() as session:
        bounds = [(n, n) for n in range(1, 5)]
        runs.create_shards(session, batch_id=batch.id, step=Step.EMBED, bounds=bounds, now_ms=NOW_MS)
    for state, error in ((RunState.DONE, None), (RunState.DONE, None), (RunState.DEAD, "no vector")):
        run = claim(ops.database, now_ms=NOW_MS)
        while run.step is not Step.EMBED:
            run = claim(ops.database, now_ms=NOW_MS)
        with ops.database.write() as session:
            runs.end_run(
                session, run_id=run.id, owner="me", state=state, now_ms=NOW_MS, result={}, error=error
            )
    (view,) = load_overview(ops.database, now_ms=NOW_MS).watches
    embed = next(step for step in view.batches[0].runs if step.step == "embed")
    assert (embed.state, embed.error, embed.n_shards, embed.n_shards_done) == ("dead", "no vector", 4, 2)
    add_run(ops.database, batch, Step.EMBED)
    (view,) = load_overview(ops.database, now_ms=NOW_MS).watches
    embed = next(step for step in view.batches[0].runs if step.step == "embed")
    assert (embed.state, embed.error, embed.n_shards, embed.n_shards_done) == ("ready", None, 4, 2)


def test_failures_of_all_watches_are_the_last_set_aside_first(ops):
    for number in range(3):
        fill(ops.database, number)
    told = ops.get("/api/v1/failures?limit=4").json()["samples"]
    assert [(sample["watch"], sample["state"]) for sample in told] == [
        ("gate", "gone"),
        ("gate", "gone"),
        ("gate", "gone"),
        ("gate-01", "gone"),
    ]


def test_scrape_tells_the_overlap_of_the_last_poll_and_passes_over_reconciles(ops):
    for name, overlaps in (("gate", [600, 30]), ("roof", [600, None])):
        watch = add_watch(ops.database, name)
        for overlap_s in overlaps:
            window = Window(1000, 1060, None if overlap_s is None else 999 - overlap_s)
            with ops.database.write() as session:
                polls.create_poll(session, watch_id=watch.id, window=window, now_ms=NOW_MS)
        with ops.database.write() as session:
            polls.create_reconcile_poll(session, watch_id=watch.id, to_s=5, now_ms=NOW_MS)
    lines = re.findall(
        r'^watcher_overlap_seconds\{watch="(\w+)"\} (\S+)', ops.get("/metrics").text, re.MULTILINE
    )
    assert lines == [("gate", "30.0")]


@pytest.mark.parametrize("path", READERS)
def test_reader_walks_through_no_table_that_grows(sqlite_ops, path):
    for number in range(4):
        fill(sqlite_ops.database, number)
    list_names(sqlite_ops.database, add_watch(sqlite_ops.database, "gate"), [f"{n}" for n in range(300)])
    with noting(sqlite_ops.database) as asked:
        assert sqlite_ops.get(path).status_code == 200
    grows = "samples|newest|polls|vectors|dark_samples|found"
    with sqlite_ops.database.engine.connect() as connection:
        for statement, parameters in asked:
            if not statement.lstrip().upper().startswith("SELECT"):
                continue
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert [row[3] for row in plan if re.match(rf"SCAN ({grows})\b", row[3])] == [], statement
