"""Polls that end well and bring nothing, while the source moves on: the look that finds it out, and no false alarm."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

import watcher.poll
import watcher.source_check
from tests.builders import ManualClock
from tests.integration.daemon.conftest import Scene
from watcher.domain.errors import WatcherError
from watcher.domain.poll_rules import PollRules
from watcher.duties import Duties
from watcher.lightly.observation import ServerTime
from watcher.lightly.transport import Transport
from watcher.lightly.workflows.listing import ListingPage
from watcher.ops.states import AHEAD, CHECKED, read_states
from watcher.poll import Poller
from watcher.source_check import SourceChecker
from watcher.store import source_checks, watches

INTERVAL_S = 900


class Stage:
    """A watch at a time of its own, with polls and looks at the source."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scene = scene
        self.clock = ManualClock(int(time.time()) - 20_000)
        # What the server believes; the present unless the test says otherwise.
        self.server_s: Callable[[], float] = self.clock.now_s
        monkeypatch.setattr(Transport, "fetch_server_time", self._tell)
        self.poller: Poller = scene.build_poller(clock=self.clock)

    def _tell(self, *_: Any, **__: Any) -> ServerTime:
        now_s = self.clock.now_s()
        return ServerTime(date_s=int(self.server_s()), local_s=now_s, monotonic_s=self.clock.monotonic_s())

    def put(self, name: str, *, ago_s: float = 0.0) -> None:
        self.scene.put(name, modified_s=self.clock.now_s() - ago_s)

    def poll(self) -> int:
        return self.poller.run_cycle().n_new

    def look(self, **changes: Any) -> int:
        parts = {
            "database": self.scene.database,
            "transport": self.poller.transport,
            "config": self.scene.config,
            "watch_id": self.poller.watch_id,
            "clock": self.clock,
            **changes,
        }
        check = SourceChecker(**parts).run()
        assert check is not None
        return check.n_ahead

    def read_gauge(self, name: str) -> float | None:
        reading = read_states(
            self.scene.database,
            configured=frozenset({"cams"}),
            disks={},
            now_ms=int(self.clock.now_s() * 1000),
        )
        found = {family.name: family.samples[0].value for family in reading.build_families()}
        return found.get(name)


@pytest.fixture
def stage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(scene, monkeypatch)


def test_scenario_36_source_that_moves_under_a_server_whose_clock_stands_still_is_told(stage: Stage) -> None:
    stage.put("before.jpg", ago_s=10)
    assert stage.poll() == 1
    assert stage.read_gauge(AHEAD.name) is None
    frozen_s = stage.clock.now_s()
    stage.server_s = lambda: frozen_s
    stage.clock.advance(30)
    stage.put("new.jpg", ago_s=10)
    assert stage.poll() == 0, "the poll ends well, and by the server's clock nothing can be new"
    assert stage.look() == 0, "the next poll may bring it"
    stage.clock.advance(INTERVAL_S)
    assert stage.poll() == 0
    assert stage.look() == 1
    assert stage.read_gauge(AHEAD.name) == 1
    assert stage.read_gauge(CHECKED.name) == stage.clock.now_s()
    stage.server_s = stage.clock.now_s
    assert stage.poll() == 1
    assert stage.look() == 0
    assert stage.read_gauge(AHEAD.name) == 0


def test_scenario_36_object_that_polls_leave_out_is_told_though_the_mark_moves_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watcher.poll.iter_pages

    def leave_out(*args: Any, **kwargs: Any) -> Iterator[ListingPage]:
        for page in real(*args, **kwargs):
            rows = [row for row in page.rows if row.file_name != "left out.jpg"]
            yield ListingPage(cursor_next=page.cursor_next, rows=rows)

    monkeypatch.setattr(watcher.poll, "iter_pages", leave_out)
    stage.poll()
    stage.clock.advance(60)
    stage.put("left out.jpg", ago_s=20)
    stage.put("brought.jpg", ago_s=20)
    assert stage.look() == 0
    for _ in range(4):
        stage.clock.advance(INTERVAL_S / 4)
        stage.put("another.jpg", ago_s=5)
        stage.poll()
    assert stage.scene.load_watch().mark_s == int(stage.clock.now_s())
    assert stage.look() == 1


def test_look_at_a_source_that_is_polled_as_it_should_finds_nothing_ahead(stage: Stage) -> None:
    stage.poll()
    for number in range(6):
        stage.clock.advance(INTERVAL_S / 2)
        stage.put(f"{number} late.jpg", ago_s=500)
        stage.put(f"{number}.jpg")
        stage.put(f"{number} of the future.jpg", ago_s=-300)
        assert stage.look() == 0
        if number % 2:
            assert stage.poll()
            assert stage.look() == 0


def test_look_while_no_poll_ends_well_tells_nothing_since_that_has_its_own_alert(stage: Stage) -> None:
    stage.poll()
    stage.clock.advance(60)
    stage.put("new.jpg")
    assert stage.look() == 0
    stage.clock.advance(INTERVAL_S)
    assert stage.look() == 0
    stage.poll()
    assert stage.look() == 0


def test_look_after_what_was_sighted_vanished_again_forgets_it(stage: Stage) -> None:
    stage.poll()
    stage.clock.advance(60)
    stage.put("short.jpg")
    stage.look()
    (stage.scene.folder / "short.jpg").unlink()
    stage.clock.advance(INTERVAL_S)
    stage.poll()
    assert stage.look() == 0
    with stage.scene.database.read() as session:
        check = source_checks.load_check(session, watch_id=stage.poller.watch_id)
    assert check is not None
    assert check.sighted == {}


def test_look_at_a_large_backlog_takes_three_pages_and_keeps_a_hundred_names(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.poll()
    stage.clock.advance(60)
    for number in range(45):
        stage.put(f"{number:03d}.jpg")
    n_pages = []
    real = watcher.source_check.iter_pages

    def count(*args: Any, **kwargs: Any) -> Iterator[ListingPage]:
        for page in real(*args, **kwargs):
            n_pages.append(len(page.rows))
            yield page

    monkeypatch.setattr(watcher.source_check, "iter_pages", count)
    monkeypatch.setattr(watcher.source_check, "_MOST_NAMES", 20)
    assert stage.look() == 0
    assert n_pages == [10, 10, 10]
    with stage.scene.database.read() as session:
        check = source_checks.load_check(session, watch_id=stage.poller.watch_id)
    assert check is not None
    assert len(check.sighted) == 20


def test_look_passes_over_own_output_as_polls_do(stage: Stage) -> None:
    stage.poll()
    stage.clock.advance(60)
    stage.put("cams-1.jsonl")
    own = re.compile(r"cams-[0-9]+\.jsonl\Z")
    stage.look(own_output=own)
    stage.clock.advance(INTERVAL_S)
    stage.poller = stage.scene.build_poller(clock=stage.clock, own_output=own)
    stage.poll()
    assert stage.look(own_output=own) == 0


def test_looks_come_by_their_interval_and_not_while_a_watch_is_paused(stage: Stage) -> None:
    database = stage.scene.database
    stage.scene.change(poll=PollRules(hold_back_s=0, source_check_interval_s=INTERVAL_S))
    duties = Duties(
        database=database,
        transport=stage.poller.transport,
        configs=[stage.scene.config],
        clock=stage.clock,
        metrics=stage.scene.metrics,
        work_dir=stage.scene.folder,
        server_identity="test",
        stop=stage.scene.stop,
        watching=lambda _kind, _what: nullcontext(lambda: None),
    )

    def load_checked_s() -> float | None:
        duties.check_sources_due()
        with database.read() as session:
            check = source_checks.load_check(session, watch_id=stage.poller.watch_id)
        return None if check is None else check.checked_ms / 1000

    assert load_checked_s() is None, "before the first poll there is nothing to compare"
    stage.poll()
    first_s = load_checked_s()
    assert first_s == stage.clock.now_s()
    stage.clock.advance(INTERVAL_S - 1)
    assert load_checked_s() == first_s
    with database.write() as session:
        watches.update_pause(session, watch_id=stage.poller.watch_id, paused_ms=1)
    stage.clock.advance(1)
    assert load_checked_s() == first_s
    with database.write() as session:
        watches.update_pause(session, watch_id=stage.poller.watch_id, paused_ms=None)
    away = stage.scene.folder.rename(stage.scene.folder.with_name("away"))
    assert load_checked_s() == first_s, "a look that failed says nothing"
    away.rename(stage.scene.folder)
    assert load_checked_s() == stage.clock.now_s()
    with pytest.raises(WatcherError, match="no watch 'other'"):
        duties.check_source("other")
