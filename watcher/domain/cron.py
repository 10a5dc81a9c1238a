"""Cron lines: five fields, minute hour day month weekday, UTC."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from watcher.domain.errors import ConfigError

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WEEKDAY = rf"[0-7]|{'|'.join(_WEEKDAYS)}"
_WEEKDAY_PART = re.compile(
    rf"(?:(?P<any>\*)|(?P<first>{_WEEKDAY})(?:-(?P<last>{_WEEKDAY}))?)(?:/(?P<step>[1-7]))?"
)
_SHORTEST_LOOK_BACK_S = 60.0


def build_cron_trigger(line: str, *, jitter_s: float | None = None) -> BaseTrigger:
    """The trigger of a cron line.

    Raises:
        ConfigError: the line cannot be read or never fires.
    """
    fields = line.split()
    if len(fields) != 5:
        raise ConfigError(
            f"the cron line {line!r} has {len(fields)} fields, not five: minute hour day month weekday"
        )
    minute, hour, day, month, weekday = fields
    # As in crontab, a line that names both a day and a weekday fires on either.
    days = [(day, weekday)] if "*" in (day[0], weekday[0]) else [(day, "*"), ("*", weekday)]
    try:
        triggers = [
            CronTrigger(
                minute=minute,
                hour=hour,
                day=day,
                month=month,
                day_of_week=_name_weekdays(weekday),
                jitter=jitter_s,
                timezone=UTC,
            )
            for day, weekday in days
        ]
    except ValueError as error:
        raise ConfigError(f"the cron line {line!r} cannot be read: {error}") from error
    if any(trigger.get_next_fire_time(None, datetime.now(UTC)) is None for trigger in triggers):
        raise ConfigError(f"the cron line {line!r} never fires: there is no such day")
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)


def find_last_time_s(line: str, *, after_s: float, until_s: float) -> int | None:
    """The last time of a cron line within `(after_s, until_s]`, unix seconds; None if there is none.

    Looks back in doubling steps, so a line that fires every minute costs no more after a year than after an hour.
    """
    look_back_s = _SHORTEST_LOOK_BACK_S
    while True:
        start_s = max(after_s, until_s - look_back_s)
        found = _find_last_within(line, start_s, until_s)
        if found is not None or start_s <= after_s:
            return found
        look_back_s *= 2


def _find_last_within(line: str, after_s: float, until_s: float) -> int | None:
    trigger = _get_trigger(line)
    last: int | None = None
    # Triggers give times at or after a moment, in whole seconds.
    moment_s = int(after_s) + 1
    while True:
        fire = trigger.get_next_fire_time(None, datetime.fromtimestamp(moment_s, UTC))
        if fire is None or fire.timestamp() > until_s:
            return last
        last = int(fire.timestamp())
        moment_s = last + 1


@functools.lru_cache(maxsize=1000)
def _get_trigger(line: str) -> BaseTrigger:
    return build_cron_trigger(line)


def _name_weekdays(field: str) -> str:
    """The weekdays by name: crontab counts them from Sunday = 0, APScheduler from Monday = 0.

    Raises:
        ConfigError: no weekdays as crontab writes them: `*`, numbers 0 to 7, names, ranges, steps.
    """
    chosen: set[int] = set()
    for part in field.lower().split(","):
        match = _WEEKDAY_PART.fullmatch(part)
        if match is None:
            raise ConfigError(
                f"{part!r} in a cron line is no weekday: weekdays are 0 to 7, both 0 and 7 are Sunday, or sun to sat"
            )
        first = 0 if match["any"] else _number_weekday(match["first"])
        # A step without an end goes on to the end of the week; a range may end, but not start, with Sunday as 7.
        last = 6 if match["any"] or match["step"] else first
        if match["last"]:
            last = _number_weekday(match["last"]) or (7 if match["last"] == "sun" else 0)
        if first > last:
            raise ConfigError(f"the weekdays {part!r} in a cron line run backwards")
        chosen.update(day % 7 for day in range(first, last + 1, int(match["step"] or 1)))
    return ",".join(_WEEKDAYS[day] for day in sorted(chosen))


def _number_weekday(text: str) -> int:
    return int(text) if text.isdecimal() else _WEEKDAYS.index(text)
