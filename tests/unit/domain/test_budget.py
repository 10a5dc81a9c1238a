"""What a budget leaves: by batch, day and week, as count and share, over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.domain.budget import compute_allowance, compute_period, describe_budget
from watcher.domain.models import SamplingRules
from watcher.domain.sampling_rules import BudgetPeriod

DAY, WEEK, BATCH = BudgetPeriod.DAY, BudgetPeriod.WEEK, BudgetPeriod.BATCH


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("at", "per", "zone", "start", "end"),
    [
        ("2026-03-04T00:00:00", DAY, "UTC", "2026-03-04T00:00:00", "2026-03-05T00:00:00"),
        ("2026-03-04T23:59:59.999", DAY, "UTC", "2026-03-04T00:00:00", "2026-03-05T00:00:00"),
        ("2026-03-04T12:00:00", DAY, "Asia/Tokyo", "2026-03-03T15:00:00", "2026-03-04T15:00:00"),
        ("2026-03-29T12:00:00", DAY, "Europe/Zurich", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
        ("2026-10-25T12:00:00", DAY, "Europe/Zurich", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
        ("2026-03-08T12:00:00", WEEK, "UTC", "2026-03-02T00:00:00", "2026-03-09T00:00:00"),
        ("2026-03-09T00:00:00", WEEK, "UTC", "2026-03-09T00:00:00", "2026-03-16T00:00:00"),
    ],
)
def test_period_is_the_day_or_week_of_the_time_zone(at, per, zone, start, end):
    assert compute_period(at_ms=ms(at), per=per, time_zone=zone) == (ms(start), ms(end))


@given(at_s=st.integers(0, 2**32), per=st.sampled_from([DAY, WEEK]))
def test_period_holds_its_time_and_the_next_begins_where_it_ends(at_s, per):
    start, end = compute_period(at_ms=at_s * 1000, per=per, time_zone="America/New_York")
    assert start <= at_s * 1000 < end
    assert compute_period(at_ms=end, per=per, time_zone="America/New_York")[0] == end


@pytest.mark.parametrize(
    ("rules", "n_samples", "n_picked", "left"),
    [
        ({"budget": 10}, 3, 0, 10),
        ({"budget": 100, "budget_per": DAY}, 500, 99, 1),
        ({"budget": 100, "budget_per": DAY}, 500, 100, 0),
        ({"budget": 100, "budget_per": WEEK}, 500, 130, 0),
        ({"budget": None, "budget_share": 0.05}, 50, 0, 3),  # 2.5 is rounded up
        ({"budget": None, "budget_share": 0.05}, 49, 0, 2),
        ({"budget": None, "budget_share": 0.05}, 3, 0, 1),  # a batch gets at least one
        ({"budget": None, "budget_share": 0.05, "budget_per": DAY}, 3, 0, 0),  # a day waits for more
        ({"budget": None, "budget_share": 0.05, "budget_per": DAY}, 200, 4, 6),
        ({"budget": None, "budget_share": 1.0}, 7, 0, 7),
    ],
)
def test_allowance_is_the_budget_less_what_was_picked(rules, n_samples, n_picked, left):
    assert compute_allowance(SamplingRules(**rules), n_samples=n_samples, n_picked=n_picked) == left


@given(
    share=st.floats(0.001, 1),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=30),
)
def test_share_of_a_day_is_right_in_the_end_however_the_day_is_cut(share, sizes):
    rules = SamplingRules(budget=None, budget_share=share, budget_per=DAY)
    n_samples = n_picked = 0
    for size in sizes:
        n_samples += size
        n_picked += min(size, compute_allowance(rules, n_samples=n_samples, n_picked=n_picked))
    assert abs(n_picked - share * n_samples) <= 0.5 + 1e-9


def test_budget_is_told_in_words():
    assert describe_budget(SamplingRules(budget=100, budget_per=DAY)) == "100 a day"
    share = SamplingRules(budget=None, budget_share=0.05, budget_per=WEEK)
    assert describe_budget(share) == "0.05 of the samples of a week"
