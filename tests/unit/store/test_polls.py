"""Polls: the frozen window and the cursor outlive a crash."""

from __future__ import annotations

import pytest

from tests.builders import NOW_MS, NOW_S, add_watch
from watcher.domain.models import PollState, Via
from watcher.domain.window import Window
from watcher.store import polls

WINDOW = Window(from_s=NOW_S - 60, to_s=NOW_S, overlap_from_s=NOW_S - 660)
DAY_MS = 86_400_000


def create(database, watch, *, window=WINDOW, now_ms=NOW_MS):
    with database.write() as session:
        return polls.create_poll(session, watch_id=watch.id, window=window, now_ms=now_ms)


def progress(database, poll, *, via=Via.WINDOW, cursor="c", n_listed=10, n_new=3):
    with database.write() as session:
        polls.update_progress(
            session, poll_id=poll.id, via=via, cursor=cursor, n_listed=n_listed, n_new=n_new
        )


def finish(database, poll, state=PollState.DONE, *, now_ms=NOW_MS + 1, error=None):
    with database.write() as session:
        polls.finish_poll(session, poll_id=poll.id, state=state, now_ms=now_ms, error=error)


def load(database, poll):
    with database.read() as session:
        return polls.load_poll(session, poll_id=poll.id)


def load_unfinished(database, watch):
    with database.read() as session:
        return polls.load_unfinished_poll(session, watch_id=watch.id)


def test_poll_with_an_overlap_lists_it_first(database, watch):
    poll = create(database, watch)
    assert poll.via is Via.OVERLAP
    assert (poll.from_s, poll.to_s, poll.overlap_from_s) == (NOW_S - 60, NOW_S, NOW_S - 660)
    assert (poll.state, poll.cursor, poll.n_pages, poll.error) == (PollState.LISTING, None, 0, None)


def test_poll_without_an_overlap_starts_with_the_window(database, watch):
    poll = create(database, watch, window=Window(from_s=0, to_s=NOW_S, overlap_from_s=None))
    assert poll.via is Via.WINDOW


def test_poll_interrupted_is_found_again_with_its_cursor_and_its_frozen_window(database, watch):
    poll = create(database, watch)
    progress(database, poll, via=Via.OVERLAP, cursor="page 2", n_listed=10, n_new=3)
    progress(database, poll, via=Via.OVERLAP, cursor="page 3", n_listed=5, n_new=1)
    found = load_unfinished(database, watch)
    assert found.id == poll.id
    assert (found.from_s, found.to_s, found.overlap_from_s) == (poll.from_s, poll.to_s, poll.overlap_from_s)
    assert (found.via, found.cursor) == (Via.OVERLAP, "page 3")
    assert (found.n_pages, found.n_listed, found.n_new) == (2, 15, 4)


def test_poll_that_turns_to_the_next_query_starts_it_from_the_beginning(database, watch):
    poll = create(database, watch)
    progress(database, poll, via=Via.OVERLAP, cursor="page 2")
    with database.write() as session:
        polls.update_query(session, poll_id=poll.id, via=Via.WINDOW)
    found = load(database, poll)
    assert (found.via, found.cursor, found.n_pages) == (Via.WINDOW, None, 1)


def test_poll_that_moves_again_forgets_its_error(database, watch):
    poll = create(database, watch)
    with database.write() as session:
        polls.record_error(session, poll_id=poll.id, error="the server answered 503")
    assert load_unfinished(database, watch).error == "the server answered 503"
    progress(database, poll)
    assert load(database, poll).error is None


@pytest.mark.parametrize("state", [PollState.DONE, PollState.FAILED])
def test_poll_that_ended_is_not_gone_on_with(database, watch, state):
    poll = create(database, watch)
    progress(database, poll)
    finish(database, poll, state, error="why")
    assert load_unfinished(database, watch) is None
    ended = load(database, poll)
    assert (ended.state, ended.finished_ms, ended.error, ended.cursor) == (state, NOW_MS + 1, "why", None)


def test_poll_of_one_watch_is_not_gone_on_with_by_another(database, watch):
    create(database, watch)
    assert load_unfinished(database, add_watch(database, "roof")) is None


def test_polls_are_listed_newest_first(database, watch):
    made = [create(database, watch) for _ in range(4)]
    create(database, add_watch(database, "roof"))
    with database.read() as session:
        recent = polls.load_recent_polls(session, watch_id=watch.id, limit=3)[watch.id]
    assert [poll.id for poll in recent] == [poll.id for poll in made[:0:-1]]


def test_polls_that_found_nothing_are_forgotten_when_old_and_all_others_stay(database, watch):
    idle_old, idle_new, found_old, listing_old = (create(database, watch) for _ in range(4))
    for poll, n_new, finished_ms in (
        (idle_old, 0, NOW_MS),
        (idle_new, 0, NOW_MS + DAY_MS),
        (found_old, 1, NOW_MS),
    ):
        progress(database, poll, n_new=n_new)
        finish(database, poll, now_ms=finished_ms)
    with database.write() as session:
        assert polls.delete_idle_polls(session, before_ms=NOW_MS + DAY_MS) == 1
    assert load(database, idle_old) is None
    assert all(load(database, poll) is not None for poll in (idle_new, found_old, listing_old))


def test_polls_to_forget_are_deleted_in_portions(database, watch):
    for _ in range(5):
        finish(database, create(database, watch))
    with database.write() as session:
        assert polls.delete_idle_polls(session, before_ms=NOW_MS + DAY_MS, limit=3) == 3
        assert polls.delete_idle_polls(session, before_ms=NOW_MS + DAY_MS, limit=3) == 2
