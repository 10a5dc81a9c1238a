"""Places among the requests to a server that all processes of a machine take from one file."""

from __future__ import annotations

import fcntl
import os
import stat
import threading

import pytest
from structlog.testing import capture_logs

from tests.unit.lightly.test_shared_throttle import SERVER, Ticking
from watcher.lightly.throttle import SharedThrottle
from watcher.request_rate import PlacesFile


def build(path, clock, rate=10.0, server=SERVER):
    return PlacesFile(path, server=server, gap_s=1 / rate, clock=clock, stop=threading.Event())


def test_two_processes_take_their_places_one_behind_the_other(tmp_path):
    clock = Ticking()
    one, other = build(tmp_path / "rate", clock), build(tmp_path / "rate", clock)
    first_s = one.reserve(5)
    assert other.reserve(5) == pytest.approx(first_s + 0.5)
    assert one.reserve(1) == pytest.approx(first_s + 1.0)
    assert stat.S_IMODE((tmp_path / "rate").stat().st_mode) == 0o600


def test_requests_of_a_daemon_and_a_command_are_together_no_more_than_the_rate(tmp_path):
    clock, n = Ticking(), 0
    throttles = [
        SharedThrottle(
            server=SERVER,
            requests_per_s=40.0,
            reserve=build(tmp_path / "rate", clock, 40.0).reserve,
            clock=clock,
            stop=threading.Event(),
        )
        for _ in range(2)
    ]
    begun_s = clock.monotonic
    while clock.monotonic - begun_s < 30:
        for throttle in throttles:
            throttle.wait(SERVER)
            n += 1
    assert 40 * 29 <= n <= 40 * 31 + 2


@pytest.mark.parametrize("content", [b"", b'{"server": "http', b"\0" * 80, b"[]"])
def test_file_that_a_kill_cut_off_is_begun_anew(tmp_path, content):
    (tmp_path / "rate").write_bytes(content)
    clock = Ticking()
    first_s = build(tmp_path / "rate", clock).reserve(10)
    assert build(tmp_path / "rate", clock).reserve(1) == pytest.approx(first_s + 1.0)


def test_file_that_counts_the_requests_to_another_server_is_begun_anew(tmp_path):
    clock = Ticking()
    build(tmp_path / "rate", clock, server="http://127.0.0.1:9000").reserve(100)
    assert build(tmp_path / "rate", clock).reserve(1) <= 0


def test_clock_that_went_back_an_hour_lets_nobody_wait_for_it(tmp_path):
    clock = Ticking()
    clock.monotonic = 10_000.0
    build(tmp_path / "rate", clock).reserve(10)
    clock.monotonic -= 3600
    assert build(tmp_path / "rate", clock).reserve(1) <= 0


def test_file_that_cannot_be_used_leaves_each_process_its_own_count_and_is_told_once(tmp_path):
    clock = Ticking()
    places = build(tmp_path / "no such folder" / "rate", clock)
    with capture_logs() as events:
        first_s = places.reserve(10)
        assert places.reserve(1) == pytest.approx(first_s + 1.0)
    assert [event["event"] for event in events] == ["request_rate.kept_alone"]


def test_lock_of_a_process_that_was_frozen_is_waited_for_a_second_and_no_longer(tmp_path):
    clock = Ticking()
    handle = os.open(tmp_path / "rate", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    places = build(tmp_path / "rate", clock)
    assert places.reserve(1) <= 0
    assert sum(clock.waits) == pytest.approx(1.0, abs=0.02)
    os.close(handle)
    assert build(tmp_path / "rate", clock).reserve(1) <= 0  # what was counted alone is not in the file
