"""When a watch is polled: cron lines mean what crontab means by them, checked by the times at which they fire."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.triggers.base import BaseTrigger
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import build_config
from watcher.domain.errors import ConfigError
from watcher.scheduler import build_trigger

SUNDAY = datetime(2026, 3, 1, tzinfo=UTC)
WEEK = [SUNDAY + timedelta(days=n) for n in range(7)]


def trigger_of(cron: str) -> BaseTrigger:
    return build_trigger(build_config(cron=cron, jitter_s=0.0))


def fire_times(cron: str, *, n: int, after: datetime = SUNDAY) -> list[datetime]:
    trigger, times = trigger_of(cron), []
    previous, now = None, after
    for _ in range(n):
        previous = trigger.get_next_fire_time(previous, now)
        times.append(previous)
        now = previous + timedelta(microseconds=1)
    return times


def weekdays_of(field: str) -> set[int]:
    """Numbers as crontab has them, Sunday = 0, at which the line fires within a week."""
    times = [time for time in fire_times(f"0 12 * * {field}", n=7) if time < SUNDAY + timedelta(days=7)]
    return {time.isoweekday() % 7 for time in times}


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", {0, 1, 2, 3, 4, 5, 6}),
        ("0", {0}),
        ("7", {0}),
        ("1", {1}),
        ("6", {6}),
        ("sun", {0}),
        ("SUN", {0}),
        ("mon", {1}),
        ("Sat", {6}),
        ("1-5", {1, 2, 3, 4, 5}),
        ("0-5", {0, 1, 2, 3, 4, 5}),
        ("5-7", {5, 6, 0}),
        ("6-7", {6, 0}),
        ("0-6", {0, 1, 2, 3, 4, 5, 6}),
        ("0-7", {0, 1, 2, 3, 4, 5, 6}),
        ("1-7", {0, 1, 2, 3, 4, 5, 6}),
        ("0,3", {0, 3}),
        ("7,3", {0, 3}),
        ("0,3-5", {0, 3, 4, 5}),
        ("3,0-2", {3, 0, 1, 2}),
        ("mon-fri", {1, 2, 3, 4, 5}),
        ("sun-wed", {0, 1, 2, 3}),
        ("fri-sun", {5, 6, 0}),
        ("1-fri", {1, 2, 3, 4, 5}),
        ("*/2", {0, 2, 4, 6}),
        ("*/3", {0, 3, 6}),
        ("0-5/2", {0, 2, 4}),
        ("1-5/2", {1, 3, 5}),
        ("1/2", {1, 3, 5}),
    ],
)
def test_cron_weekdays_fire_on_the_days_crontab_means(field, days):
    assert weekdays_of(field) == days


@given(st.integers(0, 7), st.integers(0, 7))
def test_cron_weekday_range_of_any_two_numbers_fires_as_crontab_or_is_refused(first, last):
    if first > last:
        with pytest.raises(ConfigError, match="run backwards"):
            weekdays_of(f"{first}-{last}")
        return
    assert weekdays_of(f"{first}-{last}") == {day % 7 for day in range(first, last + 1)}


def test_cron_line_fires_at_its_minute_and_hour_in_utc():
    assert fire_times("30 6 * * 1-5", n=2) == [
        datetime(2026, 3, 2, 6, 30, tzinfo=UTC),
        datetime(2026, 3, 3, 6, 30, tzinfo=UTC),
    ]


def test_cron_line_with_steps_and_lists_fires_at_each():
    times = fire_times("*/20 8,10-11 * * *", n=9)
    assert [f"{time:%H:%M}" for time in times] == [
        *("08:00", "08:20", "08:40", "10:00", "10:20", "10:40", "11:00", "11:20", "11:40")
    ]


def test_cron_line_with_day_and_weekday_fires_on_either_as_crontab_does():
    times = fire_times("0 12 15 * fri", n=6)
    assert {(time.day, time.isoweekday()) for time in times if time.isoweekday() != 5} <= {
        (15, n) for n in range(1, 8)
    }
    assert any(time.day == 15 and time.isoweekday() != 5 for time in times)
    assert any(time.day != 15 and time.isoweekday() == 5 for time in times)


def test_cron_line_of_the_leap_day_waits_for_it():
    assert fire_times("0 0 29 2 *", n=1) == [datetime(2028, 2, 29, tzinfo=UTC)]


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 feb *", "0 0 31 4,6,9,11 *"])
def test_cron_line_of_a_day_that_does_not_exist_is_refused_without_a_long_search(cron):
    begun_s = time.perf_counter()
    with pytest.raises(ConfigError, match="never fires: there is no such day"):
        trigger_of(cron)
    assert time.perf_counter() - begun_s < 10


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("", "0 fields, not five"),
        ("* * * *", "4 fields, not five"),
        ("0 0 * * * *", "6 fields, not five"),
        ("@daily", "1 fields, not five"),
        ("60 * * * *", "cannot be read"),
        ("* 24 * * *", "cannot be read"),
        ("* * 32 * *", "cannot be read"),
        ("* * 0 * *", "cannot be read"),
        ("* * * 13 *", "cannot be read"),
        ("*/0 * * * *", "cannot be read"),
        ("a b c d *", "cannot be read"),
        ("5-1 * * * *", "cannot be read"),
        ("* * * * 8", "0 to 7"),
        ("* * * * 10", "0 to 7"),
        ("* * * * -1", "0 to 7"),
        ("* * * * monday", "0 to 7"),
        ("* * * * 1-", "0 to 7"),
        ("* * * * 1,", "0 to 7"),
        ("* * * * */0", "0 to 7"),
        ("* * * * 5-1", "run backwards"),
    ],
)
def test_cron_line_of_garbage_is_refused_with_the_reason(cron, reason):
    with pytest.raises(ConfigError, match=reason):
        trigger_of(cron)


@given(st.lists(st.text("0123456789*/,-abcdefgLW#?", min_size=1, max_size=6), min_size=5, max_size=5))
def test_cron_line_of_any_letters_is_read_or_refused_but_never_crashes(fields):
    try:
        trigger = trigger_of(" ".join(fields))
    except ConfigError:
        return
    assert trigger.get_next_fire_time(None, SUNDAY) is not None


def test_interval_fires_at_its_distance_and_jitter_only_delays():
    trigger = build_trigger(build_config(interval_s=10.0, jitter_s=2.0))
    now = datetime.now(UTC)
    previous = now
    for _ in range(50):
        following = trigger.get_next_fire_time(previous, previous)
        assert 10.0 <= (following - previous).total_seconds() <= 12.0
        previous = following


def test_interval_shorter_than_a_second_is_kept():
    trigger = build_trigger(build_config(interval_s=0.5, jitter_s=0.0))
    now = datetime.now(UTC)
    assert (trigger.get_next_fire_time(now, now) - now).total_seconds() == 0.5


def test_longest_interval_of_a_schedule_is_its_widest_gap():
    from datetime import UTC, datetime

    from watcher.scheduler import compute_longest_interval_s

    now = datetime(2026, 3, 4, 12, tzinfo=UTC)

    def longest(**changes):
        return compute_longest_interval_s(build_config(**changes), now=now)

    assert longest(interval_s=7.5) == 7.5
    assert longest(cron="*/10 * * * *") == 600
    assert longest(cron="0 6 * * mon-fri") == 3 * 86_400  # over the weekend
