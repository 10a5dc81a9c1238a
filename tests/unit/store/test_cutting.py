"""Batches by age, count, bytes and cron, of quiet and of busy watches."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.builders import NOW_MS, build_config, cut, list_names, load
from watcher.domain.cron import find_last_time_s
from watcher.domain.models import BatchRules, SampleState
from watcher.store import batches, samples
from watcher.store.cutting import is_batch_due


def sizes(database, watch) -> list[int]:
    with database.read() as session:
        recent = batches.load_recent_batches(session, watch_id=watch.id, limit=100)[watch.id]
    return [batch.n_samples for batch in recent[::-1]]


def due(database, watch, rules: BatchRules, now_ms: int) -> bool:
    with database.read() as session:
        return is_batch_due(
            session, watch_id=watch.id, config=build_config(watch.name, batch=rules), now_ms=now_ms
        )


def read(database, watch, names, *, size_bytes: int) -> None:
    with database.write() as session:
        for name in names:
            sample = load(database, watch, name)
            samples.record_registered(
                session,
                sample_id=sample.id,
                remote_id="0123456789abcdef01234567",
                size_bytes=size_bytes,
                modified_s=None,
                now_ms=NOW_MS,
            )


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_quiet_watch_gets_its_batch_by_age_and_a_busy_one_by_count(database, watch):
    rules = BatchRules(min_samples=3, max_wait_s=10, max_samples=4)
    config = build_config(batch=rules)
    list_names(database, watch, ["lonely"])
    assert not due(database, watch, rules, NOW_MS + 9_999)
    assert cut(database, watch, config, now_ms=NOW_MS + 9_999) == 0
    assert due(database, watch, rules, NOW_MS + 10_000)
    assert cut(database, watch, config, now_ms=NOW_MS + 10_000) == 1
    list_names(database, watch, [f"busy {n}" for n in range(10)], now_ms=NOW_MS + 20_000)
    assert cut(database, watch, config, now_ms=NOW_MS + 20_000) == 2
    assert sizes(database, watch) == [1, 4, 4]
    assert not due(database, watch, rules, NOW_MS + 20_000)


def test_busy_watch_keeps_no_more_batches_open_than_it_may(database, watch):
    rules = BatchRules(min_samples=1, max_samples=2, max_open=2)
    list_names(database, watch, [f"{n}" for n in range(9)])
    assert cut(database, watch, build_config(batch=rules)) == 2
    assert not due(database, watch, rules, NOW_MS + 10**9)


def test_cron_cuts_what_waited_at_its_time_and_leaves_what_came_later(database, watch):
    rules = BatchRules(min_samples=1, max_wait_s=0, cron="0 6 * * *")
    config = build_config(batch=rules)
    list_names(database, watch, ["before 1", "before 2"], now_ms=at("2026-03-01T05:59:59"))
    assert cut(database, watch, config, now_ms=at("2026-03-01T05:59:59")) == 0
    list_names(database, watch, ["after"], now_ms=at("2026-03-01T06:00:01"))
    assert due(database, watch, rules, at("2026-03-01T06:00:01"))
    assert cut(database, watch, config, now_ms=at("2026-03-01T06:00:01")) == 1
    assert sizes(database, watch) == [2]
    assert load(database, watch, "after").state is SampleState.WAITING
    assert cut(database, watch, config, now_ms=at("2026-03-02T05:59:59")) == 0
    assert cut(database, watch, config, now_ms=at("2026-03-02T06:00:00")) == 1
    assert sizes(database, watch) == [2, 1]


def test_cron_time_at_which_nobody_was_there_is_made_up_for(database, watch):
    config = build_config(batch=BatchRules(cron="0 6 * * 1"))
    list_names(database, watch, ["waits"], now_ms=at("2026-03-01T00:00:00"))  # a Sunday
    assert cut(database, watch, config, now_ms=at("2026-03-05T11:00:00")) == 1


def test_cron_that_fired_long_ago_for_everything_that_waits_cuts_in_batches_of_the_limit(database, watch):
    config = build_config(batch=BatchRules(cron="* * * * *", max_samples=4, max_open=9))
    list_names(database, watch, [f"{n}" for n in range(10)], now_ms=at("2026-03-01T00:00:00"))
    assert cut(database, watch, config, now_ms=at("2027-03-01T00:00:00")) == 3
    assert sizes(database, watch) == [4, 4, 2]


def test_bytes_bound_batches_by_the_mean_of_what_was_read(database, watch):
    rules = BatchRules(min_samples=1000, max_wait_s=1e9, max_samples=2000, max_bytes=4_000_000)
    config = build_config(batch=rules)
    # Nothing was read yet, so a sample counts as a megabyte.
    list_names(database, watch, ["a", "b", "c"])
    assert cut(database, watch, config) == 0
    list_names(database, watch, ["d"])
    assert cut(database, watch, config) == 1
    read(database, watch, ["a", "b", "c", "d"], size_bytes=500_000)
    list_names(database, watch, [f"later {n}" for n in range(17)])
    assert cut(database, watch, config) == 2
    assert sizes(database, watch) == [4, 8, 8]


def test_one_sample_larger_than_the_bound_is_a_batch_of_its_own(database, watch):
    config = build_config(batch=BatchRules(min_samples=5, max_wait_s=1e9, max_bytes=10))
    list_names(database, watch, ["a", "b"])
    assert cut(database, watch, config) == 2
    assert sizes(database, watch) == [1, 1]


@pytest.mark.parametrize(
    ("line", "after", "until", "expected"),
    [
        ("0 6 * * *", "2026-03-01T05:00:00", "2026-03-01T05:59:59", None),
        ("0 6 * * *", "2026-03-01T05:00:00", "2026-03-01T06:00:00", "2026-03-01T06:00:00"),
        ("0 6 * * *", "2026-03-01T06:00:00", "2026-03-01T07:00:00", None),
        ("0 6 * * *", "2020-01-01T00:00:00", "2026-03-01T07:00:00", "2026-03-01T06:00:00"),
        ("*/5 * * * *", "2020-01-01T00:00:00", "2026-03-01T07:04:59", "2026-03-01T07:00:00"),
        ("0 0 29 2 *", "2023-01-01T00:00:00", "2026-03-01T00:00:00", "2024-02-29T00:00:00"),
        ("0 6 * * 0", "2026-02-20T00:00:00", "2026-03-03T00:00:00", "2026-03-01T06:00:00"),
    ],
)
def test_last_time_of_a_cron_line_is_found(line, after, until, expected):
    found = find_last_time_s(line, after_s=at(after) / 1000, until_s=at(until) / 1000)
    assert found == (None if expected is None else at(expected) // 1000)
