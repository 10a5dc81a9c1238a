"""Faults 1 to 9 of the original: the datasource. `docs/differences.md` tells each."""

from __future__ import annotations

import os
import time

import pytest

from watcher.domain.clock import SystemClock
from watcher.lightly import ApiException, DatasetError, ProtocolError

T0 = 1_600_000_000


def _put(folder, name: str, at_s: int = T0) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (at_s, at_s))


def _page(names: list[str], cursor: str, *, more: bool):
    rows = [{"fileName": name, "readUrl": f"http://x.example/{name}"} for name in names]
    return 200, {"hasMore": more, "cursor": cursor, "data": rows}


def test_fault_01_the_mark_moves_only_when_the_caller_is_done(through, objects):
    _put(objects, "a.jpg")

    def crash() -> None:
        with through.new_raw_samples_window() as window:
            for _ in window:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert through.get_processed_until_timestamp() == 0
    with through.new_raw_samples_window() as window:
        assert [row.file_name for row in window.iter_samples()] == ["a.jpg"]
    assert through.get_processed_until_timestamp() == window.to_s


class _ClockAhead(SystemClock):
    def now_s(self) -> float:
        return super().now_s() + 1e6


def test_fault_02_the_window_ends_by_the_clock_of_the_server(through, objects):
    through.transport.clock = _ClockAhead()
    through.download_new_raw_samples()
    assert abs(through.get_processed_until_timestamp() - time.time()) < 10


def test_fault_02_a_server_that_tells_no_time_is_refused(through, objects, man, monkeypatch):
    monkeypatch.setattr(
        through.transport, "fetch_server_time", lambda *_a, **_k: (_ for _ in ()).throw(ProtocolError("Date"))
    )
    with pytest.raises(ProtocolError):
        through.download_new_raw_samples()
    assert man.count("PUT", "processedUntilTimestamp") == 0


def test_fault_03_the_second_of_the_listing_is_left_for_the_next_one(through, objects, man):
    now = int(time.time())
    through.download_new_raw_samples()
    (first,) = [asked for asked in man.asked if asked.path.endswith("datasource/list")]
    mark = through.get_processed_until_timestamp()
    assert int(first.query["to"]) == mark
    assert mark < int(time.time())
    assert mark >= now - 2
    _put(objects, "same second.jpg", mark + 1)
    time.sleep(2.1)
    assert [name for name, _ in through.download_new_raw_samples()] == ["same second.jpg"]


def test_fault_04_an_overlap_finds_objects_with_older_times(through, objects):
    through.update_processed_until_timestamp(T0)
    _put(objects, "late.jpg", T0 - 100)
    with through.new_raw_samples_window() as window:
        assert list(window.iter_samples()) == []
    through.update_processed_until_timestamp(T0)
    with through.new_raw_samples_window(overlap_s=600) as window:
        assert [row.file_name for row in window.iter_samples()] == ["late.jpg"]


def test_fault_05_a_mark_of_zero_begins_at_the_very_start(through, objects):
    _put(objects, "ancient.jpg", 0)
    assert [name for name, _ in through.download_new_raw_samples()] == ["ancient.jpg"]


def test_fault_06_a_mark_moved_by_somebody_else_is_told_and_never_set_back(through, objects):
    def consume() -> None:
        with through.new_raw_samples_window() as window:
            list(window)
            through.update_processed_until_timestamp(window.to_s + 1000)

    with pytest.warns(UserWarning, match="somebody else"):
        consume()
    assert through.get_processed_until_timestamp() > time.time() + 500


def test_fault_07_pages_are_handed_out_as_they_come(through, objects, man, target):
    for number in range(35):
        _put(objects, f"{number}.jpg")
    rows = through.iter_raw_samples(0, T0)
    next(rows)
    assert man.count("GET", "datasource/list") == 1
    assert len(list(rows)) == 34
    assert man.count("GET", "datasource/list") == 4 or target.page_size is None


def test_fault_08_a_failing_page_is_tried_again(through, objects, man):
    for number in range(25):
        _put(objects, f"{number}.jpg")
    man.when("GET", "datasource/list", lambda s, b: (s, b), times=1)
    man.when("GET", "datasource/list", (503, {"code": "BAD_REQUEST", "error": "busy"}), times=2)
    assert len(through.download_raw_samples(0, T0)) == 25


def test_fault_08_a_repeated_cursor_ends_with_an_error(through, objects, man):
    man.when("GET", "datasource/list", _page(["a.jpg"], "again", more=True), times=1000)
    with pytest.raises(ProtocolError, match="repeats a cursor"):
        through.download_raw_samples(0, T0)
    assert man.count("GET", "datasource/list") <= 3


def test_fault_08_an_error_is_never_an_empty_list_and_leaves_the_mark(through, objects, man):
    man.when("GET", "datasource/list", (400, {"code": "BAD_REQUEST", "error": "no"}), times=9)
    with pytest.raises(ApiException):
        through.download_new_raw_samples()
    assert man.count("PUT", "processedUntilTimestamp") == 0


def test_fault_09_repeated_and_odd_names_are_dropped_with_a_warning(through, objects, man):
    man.when("GET", "datasource/list", _page(["a.jpg", "/etc/x", "../y"], "c1", more=True))
    man.when("GET", "datasource/list", _page(["b.jpg", "a.jpg", "./z"], "", more=False))
    with pytest.warns(UserWarning, match="names") as caught:
        found = through.download_raw_samples(0, T0)
    assert [name for name, _ in found] == ["a.jpg", "b.jpg"]
    texts = " ".join(str(one.message) for one in caught)
    assert "3 names in the listing are no relative paths" in texts
    assert "1 names came more than once" in texts


def test_shards_fall_back_where_the_server_has_none(through, objects, man):
    for number in range(25):
        _put(objects, f"{number}.jpg")
    man.when("GET", "list/dnc", (404, b"<html>no such page</html>"), times=5)
    for _ in range(2):
        assert len(through.download_raw_samples(0, T0, divide_and_conquer_shards=3)) == 25
    assert man.count("GET", "list/dnc") == 1


def test_a_shard_that_fails_fails_the_listing(through, objects, man):
    for number in range(60):
        _put(objects, f"{number}.jpg")
    man.rules.append(
        lambda asked: (400, {"code": "BAD_REQUEST", "error": "no"}) if "cursor" in asked.query else None
    )
    with pytest.raises(ApiException):
        through.download_raw_samples(0, T0, divide_and_conquer_shards=4)


@pytest.mark.parametrize("n_shards", [0, -1, 1000])
def test_shards_out_of_range_are_refused(through, objects, n_shards):
    with pytest.raises(DatasetError, match="shards"):
        through.download_raw_samples(0, T0, divide_and_conquer_shards=n_shards)
