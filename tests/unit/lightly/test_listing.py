from __future__ import annotations

import tracemalloc

import pytest

from tests.unit.lightly.conftest import DATASET
from tests.unit.lightly.servers import Reply
from watcher.domain.errors import ListingLoopError, ProtocolError, ServiceException
from watcher.lightly.workflows.listing import ListingPage, iter_pages
from watcher.lightly.workflows.window import new_raw_samples_window


def _page(cursor: str, n: int = 1, *, more: bool = True) -> dict[str, object]:
    rows = [{"fileName": f"{cursor}-{i}.jpg", "readUrl": f"http://x/{i}"} for i in range(n)]
    return {"hasMore": more, "cursor": cursor, "data": rows}


def _list(transport, **changes) -> list[ListingPage]:
    return list(iter_pages(transport, **{"dataset_id": DATASET, "from_s": 10, "to_s": 20, **changes}))


def test_listing_first_page_by_window_then_by_cursor_alone(start, connect):
    pages = [_page("a"), _page("b", 0), _page("", 2, more=False)]
    server = start(lambda _seen: pages.pop(0))
    found = _list(connect(server.url))
    assert [page.cursor_next for page in found] == ["a", "b", None]
    assert [len(page.rows) for page in found] == [1, 0, 2]
    queries = [{k: v for k, v in seen.query.items() if k != "token"} for seen in server.seen]
    assert queries == [{"from": "10", "to": "20"}, {"cursor": "a"}, {"cursor": "b"}]


def test_listing_resumes_by_cursor(start, connect):
    server = start(lambda _seen: _page("z", more=False))
    _list(connect(server.url), cursor="k&=y")
    assert server.seen[0].query["cursor"] == "k&=y"
    assert "from" not in server.seen[0].query


def test_listing_empty_window_makes_no_call(start, connect):
    server = start(lambda _seen: _page("z", more=False))
    assert _list(connect(server.url), from_s=21) == []
    assert server.seen == []


def test_listing_same_second_is_asked_for(start, connect):
    server = start(lambda _seen: _page("z", more=False))
    assert len(_list(connect(server.url), from_s=20)) == 1


@pytest.mark.parametrize("cycle", [1, 2, 3, 7, 50])
def test_listing_repeated_cursor_of_any_cycle_ends_with_an_error(start, connect, cycle):
    n_calls = [0]

    def answer(_seen):
        n_calls[0] += 1
        return _page(str(n_calls[0] if n_calls[0] < 5 else 5 + n_calls[0] % cycle))

    server = start(answer)
    with pytest.raises(ListingLoopError, match="repeats a cursor"):
        _list(connect(server.url))
    assert len(server.seen) < 5 * cycle + 20


def test_listing_cursor_equal_to_the_resumed_one_is_a_loop(start, connect):
    server = start(lambda _seen: _page("same"))
    with pytest.raises(ListingLoopError):
        _list(connect(server.url), cursor="same")
    assert len(server.seen) == 1


def test_listing_more_without_cursor_is_an_error(start, connect):
    server = start(lambda _seen: _page(""))
    with pytest.raises(ListingLoopError, match="no cursor"):
        _list(connect(server.url))


def test_listing_empty_pages_for_ever_are_an_error(start, connect):
    n_calls = iter(range(10**9))
    server = start(lambda _seen: _page(str(next(n_calls)), 0))
    with pytest.raises(ListingLoopError, match="empty pages"):
        _list(connect(server.url), max_empty_pages=20)
    assert len(server.seen) == 21


def test_listing_without_end_is_an_error(start, connect):
    n_calls = iter(range(10**9))
    server = start(lambda _seen: _page(str(next(n_calls))))
    with pytest.raises(ListingLoopError, match="no end after 30"):
        _list(connect(server.url), max_pages=30)


def test_listing_failing_page_leaves_what_came_before_and_resumes(start, connect):
    replies = [_page("a"), Reply(500), Reply(500), Reply(500), _page("", 1, more=False)]
    server = start(lambda _seen: replies.pop(0))
    transport = connect(server.url)
    pages = iter_pages(transport, dataset_id=DATASET, from_s=0, to_s=1)
    first = next(pages)
    with pytest.raises(ServiceException):
        next(pages)
    assert len(_list(transport, cursor=first.cursor_next)) == 1
    assert server.seen[-1].query["cursor"] == "a"


@pytest.mark.scenario(number=20)
def test_listing_memory_does_not_grow_with_pages(start, connect):
    n_calls = [0]

    def answer(_seen):
        n_calls[0] += 1
        return _page(str(n_calls[0]), 500, more=n_calls[0] < 60)

    server = start(answer)
    transport = connect(server.url)
    peaks = []
    tracemalloc.start()
    try:
        for number, _page_seen in enumerate(iter_pages(transport, dataset_id=DATASET, from_s=0, to_s=1)):
            server.seen.clear()
            if number in (10, 59):
                peaks.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 400_000


NOW = "Tue, 01 Mar 2022 10:00:00 GMT"
NOW_S = 1646128800


class _Mark:
    def __init__(self, mark: int, pages: list[object]) -> None:
        self.mark = mark
        self.pages = pages
        self.puts: list[int] = []

    def __call__(self, seen):
        if seen.path.endswith("processedUntilTimestamp"):
            if seen.method == "PUT":
                self.mark = seen.json["processedUntilTimestamp"]
                self.puts.append(self.mark)
                return Reply(body=b"")
            return Reply(body={"processedUntilTimestamp": self.mark}, date=NOW)
        return self.pages.pop(0)


def test_window_ends_by_the_server_clock_and_moves_the_mark_after_the_caller(start, connect):
    state = _Mark(1000, [_page("a"), _page("", 1, more=False)])
    server = start(state)
    with new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window:
        assert (window.from_s, window.to_s) == (1001, NOW_S - 5)
        assert len(list(window.iter_samples())) == 2
        assert state.puts == []
    assert state.puts == [NOW_S - 5]
    assert window.acknowledged


def test_window_of_a_mark_never_set_begins_at_zero(start, connect):
    server = start(_Mark(0, []))
    with new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window:
        assert window.from_s == 0


def test_window_caller_fails_mark_stays(start, connect):
    state = _Mark(1000, [_page("", 1, more=False)])
    server = start(state)

    def consume() -> None:
        with new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window:
            for _ in window:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert state.puts == []


def test_window_left_early_mark_stays(start, connect):
    state = _Mark(1000, [_page("a"), _page("", 1, more=False)])
    server = start(state)
    with new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window:
        for _ in window:
            break
    assert state.puts == []
    assert not window.acknowledged


def test_window_failing_page_mark_stays(start, connect):
    state = _Mark(1000, [_page("a"), Reply(400)])
    server = start(state)
    with (
        pytest.raises(Exception, match="400"),
        new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window,
    ):
        list(window)
    assert state.puts == []


def test_window_mark_moved_by_somebody_else_is_told_and_never_set_back(start, connect):
    state = _Mark(1000, [_page("", 1, more=False)])
    server = start(state)

    def consume() -> None:
        with new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window:
            list(window)
            state.mark = NOW_S + 100

    with pytest.warns(UserWarning, match="somebody else"):
        consume()
    assert state.puts == []


def test_window_before_the_mark_lists_nothing_and_keeps_it(start, connect):
    state = _Mark(NOW_S + 50, [])
    server = start(state)
    with new_raw_samples_window(connect(server.url), dataset_id=DATASET) as window:
        assert list(window) == []
    assert state.puts == []


def test_window_overlap_reaches_back_behind_the_mark(start, connect):
    server = start(_Mark(1000, [_page("", 1, more=False)]))
    with new_raw_samples_window(connect(server.url), dataset_id=DATASET, overlap_s=600) as window:
        assert window.from_s == 401


def test_window_without_server_time_is_an_error(start, connect):
    server = start(lambda _seen: Reply(body={"processedUntilTimestamp": 0}, date=None))
    with (
        pytest.raises(ProtocolError),
        new_raw_samples_window(connect(server.url), dataset_id=DATASET),
    ):
        pass
