"""Which seconds a poll lists, whatever the clocks do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.errors import ClockError
from watcher.domain.poll_rules import PollRules
from watcher.domain.window import Lateness, Window, check_clock, compute_window

NOW_S = 1_700_000_000
RULES = PollRules(hold_back_s=5, overlap_s=600)

seconds = st.integers(min_value=0, max_value=2**40)
rules_of_any_kind = st.builds(
    PollRules,
    hold_back_s=st.integers(min_value=0, max_value=3600),
    overlap_s=st.integers(min_value=0, max_value=604_800),
)


def test_window_first_poll_lists_everything_up_to_the_hold_back():
    window = compute_window(mark_s=None, server_now_s=NOW_S, rules=RULES)
    assert window == Window(from_s=0, to_s=NOW_S - 5, overlap_from_s=None)


@pytest.mark.scenario(number=39)
def test_window_after_a_mark_starts_one_second_later_and_overlaps_before_it():
    window = compute_window(mark_s=NOW_S - 15, server_now_s=NOW_S, rules=RULES)
    assert window == Window(from_s=NOW_S - 14, to_s=NOW_S - 5, overlap_from_s=NOW_S - 615)


def test_window_server_clock_gone_back_keeps_the_mark_and_still_overlaps():
    window = compute_window(mark_s=NOW_S, server_now_s=NOW_S - 3600, rules=RULES)
    assert window.is_empty
    assert window.to_s == NOW_S
    assert window.overlap_from_s == NOW_S - 600


def test_window_without_hold_back_reaches_the_present():
    rules = PollRules(hold_back_s=0, overlap_s=600)
    assert compute_window(mark_s=NOW_S - 1, server_now_s=NOW_S, rules=rules).to_s == NOW_S


def test_window_poll_within_the_hold_back_is_empty_and_moves_nothing():
    window = compute_window(mark_s=NOW_S - 5, server_now_s=NOW_S, rules=RULES)
    assert window.is_empty
    assert window.to_s == NOW_S - 5


def test_window_without_overlap_lists_only_what_is_fresh():
    rules = PollRules(hold_back_s=5, overlap_s=0)
    assert compute_window(mark_s=NOW_S - 60, server_now_s=NOW_S, rules=rules).overlap_from_s is None


def test_window_overlap_longer_than_time_itself_starts_at_zero():
    window = compute_window(mark_s=100, server_now_s=200, rules=RULES)
    assert window.overlap_from_s == 0


def test_window_hold_back_longer_than_time_itself_ends_at_zero():
    assert compute_window(mark_s=None, server_now_s=2, rules=RULES).to_s == 0


@given(first_now=seconds, steps=st.lists(st.integers(-7200, 7200), max_size=20), rules=rules_of_any_kind)
def test_windows_one_after_another_leave_no_second_out_and_never_go_back(first_now, steps, rules):
    now = first_now
    mark = compute_window(mark_s=None, server_now_s=now, rules=rules).to_s
    for step in steps:
        now = max(0, now + step)
        window = compute_window(mark_s=mark, server_now_s=now, rules=rules)
        assert window.from_s == mark + 1
        assert window.to_s >= mark
        assert window.to_s <= max(mark, now - rules.hold_back_s, 0)
        if window.overlap_from_s is not None:
            assert 0 <= window.overlap_from_s <= mark
            assert mark - window.overlap_from_s <= rules.overlap_s
        mark = window.to_s


DAY_S = 86_400
SIZED = PollRules(overlap_s=600, overlap_min_s=100, overlap_max_s=20_000)


def test_overlap_of_a_new_watch_is_the_configured_one():
    assert Lateness(since_s=NOW_S).compute_overlap(SIZED, now_s=NOW_S) == 600


def test_overlap_without_late_objects_shrinks_slowly_to_its_least():
    seen = Lateness(since_s=NOW_S)
    sizes = [seen.compute_overlap(SIZED, now_s=NOW_S + day * DAY_S) for day in range(5)]
    assert sizes == [600, 300, 150, 100, 100]


def test_overlap_without_a_least_of_its_own_never_falls_below_the_configured_one():
    rules = PollRules(overlap_s=600)
    assert Lateness(since_s=NOW_S).compute_overlap(rules, now_s=NOW_S + 100 * DAY_S) == 600


def test_overlap_after_a_late_object_grows_at_once_and_beyond_it():
    seen = Lateness(since_s=NOW_S).add(2000, now_s=NOW_S)
    assert seen.compute_overlap(SIZED, now_s=NOW_S) == 3000
    assert seen.compute_overlap(SIZED, now_s=NOW_S + DAY_S) == 1500


def test_overlap_after_an_object_later_than_its_most_ends_there():
    seen = Lateness(since_s=NOW_S).add(10 * DAY_S, now_s=NOW_S)
    assert seen.compute_overlap(SIZED, now_s=NOW_S) == 20_000


def test_overlap_that_is_switched_off_stays_off():
    seen = Lateness(since_s=NOW_S).add(2000, now_s=NOW_S)
    assert seen.compute_overlap(PollRules(overlap_s=0), now_s=NOW_S) == 0


def test_lateness_smaller_than_what_still_counts_changes_nothing():
    seen = Lateness(since_s=NOW_S).add(2000, now_s=NOW_S)
    assert seen.add(900, now_s=NOW_S + DAY_S) == seen
    assert seen.add(1100, now_s=NOW_S + DAY_S).seen_s == 1100


@given(
    late=st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e6)), max_size=20),
    least=st.integers(0, 600),
    most=st.integers(600, 10**6),
)
def test_overlap_stays_between_its_bounds_and_covers_what_was_just_seen(late, least, most):
    rules = PollRules(overlap_s=600, overlap_min_s=least, overlap_max_s=most)
    seen, now = Lateness(since_s=0.0), 0.0
    for late_s, wait_s in late:
        now += wait_s
        seen = seen.add(late_s, now_s=now)
        overlap = seen.compute_overlap(rules, now_s=now)
        assert least <= overlap <= most
        assert overlap >= min(late_s, most)


@pytest.mark.parametrize("off_s", [366 * DAY_S, -366 * DAY_S])
def test_clock_of_the_server_a_year_off_is_refused_by_name(off_s):
    with pytest.raises(ClockError, match=r"2023-11-14 22:13:20.*wrong by 366\.0 days.*poll waits") as caught:
        check_clock(mark_s=None, server_now_s=NOW_S + off_s, local_now_s=NOW_S, rules=RULES)
    assert caught.value.retryable


def test_clock_that_went_back_far_behind_the_mark_is_refused_with_the_way_out():
    with pytest.raises(ClockError, match="watcher rewind"):
        check_clock(mark_s=NOW_S + 366 * DAY_S, server_now_s=NOW_S, local_now_s=NOW_S, rules=RULES)


def test_clock_a_little_off_is_taken():
    check_clock(mark_s=NOW_S + 100, server_now_s=NOW_S, local_now_s=NOW_S + 3000, rules=RULES)


def test_clock_so_wrong_that_no_calendar_has_it_is_still_named():
    with pytest.raises(ClockError, match="99999999999999 s"):
        check_clock(mark_s=None, server_now_s=99_999_999_999_999, local_now_s=NOW_S, rules=RULES)
