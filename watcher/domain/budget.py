"""How many samples of a batch may be picked. Pure rules over what the store counted."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from watcher.domain.models import SamplingRules
from watcher.domain.sampling_rules import BudgetPeriod


def load_time_zone(name: str) -> tzinfo:
    """The time zone of that name; `UTC` is there even on a machine without the tz database.

    Raises:
        ZoneInfoNotFoundError, ValueError, OSError: there is none.
    """
    return UTC if name == "UTC" else ZoneInfo(name)


def compute_period(*, at_ms: int, per: BudgetPeriod, time_zone: str) -> tuple[int, int]:
    """The day or week around a time as [start, end) in unix milliseconds; weeks begin on Monday.

    A day of a time zone that turns its clocks is 23 or 25 hours long.
    """
    zone = load_time_zone(time_zone)
    first = datetime.fromtimestamp(at_ms / 1000, zone).date()
    if per is BudgetPeriod.WEEK:
        first -= timedelta(days=first.weekday())
    after = first + timedelta(days=7 if per is BudgetPeriod.WEEK else 1)
    start, end = (datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() for day in (first, after))
    return int(start * 1000), int(end * 1000)


def compute_allowance(rules: SamplingRules, *, n_samples: int, n_picked: int) -> int:
    """How many more samples may be picked.

    Args:
        rules: the budget.
        n_samples: samples of the batch; for a day or week those of all its batches so far, this one included.
        n_picked: what other batches of the same day or week picked; 0 for a budget a batch.

    Returns:
        At least 0. A share is rounded to the nearest count, halves up; of a batch it is at least 1.
    """
    if rules.budget_share is None:
        assert rules.budget is not None
        whole = rules.budget
    else:
        whole = math.floor(rules.budget_share * n_samples + 0.5)
        if rules.budget_per is BudgetPeriod.BATCH:
            whole = max(1, whole)
    return max(0, whole - n_picked)


def describe_budget(rules: SamplingRules) -> str:
    """Such as `100 a day` or `5 % of a week`."""
    if rules.budget_share is None:
        return f"{rules.budget} a {rules.budget_per}"
    return f"{rules.budget_share:.4g} of the samples of a {rules.budget_per}"
