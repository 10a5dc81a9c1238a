"""Which seconds a poll lists, whatever the clocks do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.models import PollRules
from watcher.domain.window import Window, compute_window

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
