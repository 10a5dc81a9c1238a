"""Failures that others had with time and listings, by the numbers of `docs/guarantees.md`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import watcher.poll
from tests.integration.daemon.conftest import Scene
from watcher.domain.models import SampleState, Via
from watcher.ops.overview import load_overview
from watcher.reconcile import Reconciler
from watcher.store import polls

ROOT = Path(__file__).parents[2]


def test_scenario_01_second_file_of_a_second_that_was_listed_already_is_found(scene: Scene) -> None:
    second = int(time.time()) - 1
    scene.put("first.jpg", modified_s=second)
    poller = scene.build_poller()
    while poller.run_cycle().to_s < second:
        time.sleep(0.2)
    scene.put("second.jpg", modified_s=second)
    report = poller.run_cycle()
    assert report.n_new == 1
    assert set(scene.load_ledger()) == {"first.jpg", "second.jpg"}


def test_scenario_02_upload_that_ends_later_than_any_overlap_is_found_by_the_full_comparison(
    scene: Scene, tmp_path: Path
) -> None:
    poller = scene.build_poller()
    poller.run_cycle()
    scene.put("large.jpg", modified_s=time.time() - 2 * scene.config.poll.overlap_s)
    assert poller.run_cycle().n_new == 0
    Reconciler(
        database=scene.database,
        transport=poller.transport,
        config=scene.config,
        watch_id=poller.watch_id,
        clock=poller.clock,
        metrics=scene.metrics,
        work_dir=tmp_path,
    ).run()
    assert scene.load_ledger()["large.jpg"].via is Via.RECONCILE


def test_scenario_02_overlap_learns_from_late_uploads_and_finds_the_next(
    scene: Scene, tmp_path: Path
) -> None:
    poller = scene.build_poller()
    poller.run_cycle()
    usual_s = scene.config.poll.overlap_s
    scene.put("within it.jpg", modified_s=time.time() - 0.9 * usual_s)
    assert poller.run_cycle().n_late == 1
    scene.put("a little beyond it.jpg", modified_s=time.time() - 1.2 * usual_s)
    assert poller.run_cycle().n_late == 1, "the overlap did not grow at once"
    scene.put("far beyond it.jpg", modified_s=time.time() - 5 * usual_s)
    assert poller.run_cycle().n_late == 0
    Reconciler(
        database=scene.database,
        transport=poller.transport,
        config=scene.config,
        watch_id=poller.watch_id,
        clock=poller.clock,
        metrics=scene.metrics,
        work_dir=tmp_path,
    ).run()
    scene.put("as far as that.jpg", modified_s=time.time() - 6 * usual_s)
    assert scene.build_poller().run_cycle().n_late == 1, "what a full comparison found did not count"
    (view,) = load_overview(scene.database, now_ms=0).watches
    assert view.overlap_s is not None
    assert view.overlap_s > 7 * usual_s


def test_scenario_04_end_of_the_window_is_frozen_however_long_the_listing_takes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        scene.put(f"{number}.jpg", modified_s=time.time() - 100)
    windows = _slow_down(monkeypatch, scene, lambda _number: time.sleep(0.8))
    report = scene.build_poller().run_cycle()
    assert windows == {(0, report.to_s)}
    assert scene.load_watch().mark_s == report.to_s < int(time.time()) - 1


def test_scenario_05_file_that_arrives_while_the_listing_runs_is_found_by_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        scene.put(f"{number:02d}.jpg", modified_s=time.time() - 100)

    def arrive(number: int) -> None:
        if number == 1:
            # Behind the place where the listing stands, and before the mark that it will leave.
            scene.put("00 arrived.jpg", modified_s=time.time() - 200)

    with monkeypatch.context() as patch:
        _slow_down(patch, scene, arrive)
        poller = scene.build_poller()
        first = poller.run_cycle()
    second = poller.run_cycle()
    assert (first.n_new, second.n_new) == (25, 1)


def _slow_down(monkeypatch: pytest.MonkeyPatch, scene: Scene, between: Any) -> set[tuple[int, int]]:
    """Calls `between` after each page; returns the windows that were listed."""
    real = watcher.poll.iter_pages
    windows: set[tuple[int, int]] = set()

    def iter_pages(*args: Any, **kwargs: Any) -> Iterator[Any]:
        windows.add((kwargs["from_s"], kwargs["to_s"]))
        for number, page in enumerate(real(*args, **kwargs), 1):
            between(number)
            yield page

    monkeypatch.setattr(watcher.poll, "iter_pages", iter_pages)
    return windows


def test_scenario_07_names_listed_again_and_again_stay_one_row(scene: Scene) -> None:
    names = [f"{number}.jpg" for number in range(15)]
    for name in names:
        scene.put(name, modified_s=time.time() - 5)
    poller = scene.build_poller()
    reports = [poller.run_cycle() for _ in range(4)]
    assert [report.n_new for report in reports] == [15, 0, 0, 0]
    assert [report.n_listed for report in reports] == [15] * 4, "the overlap lists them each time"
    assert sorted(scene.load_ledger()) == sorted(names)


def test_scenario_21_no_code_forgets_a_row_of_the_ledger() -> None:
    deletions = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "watcher" / "store").glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"delete\(samples\)|DELETE FROM samples|TRUNCATE|drop_all", line)
    ]
    assert deletions == []


def test_scenario_21_idle_polls_that_are_forgotten_take_no_sample_along(scene: Scene) -> None:
    scene.put("a.jpg", modified_s=time.time() - 100)
    poller = scene.build_poller()
    poller.run_cycle()
    poller.run_cycle()
    with scene.database.write() as session:
        polls.delete_idle_polls(session, before_ms=2 * 10**12)
    assert set(scene.load_ledger()) == {"a.jpg"}
    assert poller.run_cycle().n_new == 0


def test_scenario_22_object_from_the_future_neither_moves_the_mark_nor_is_lost(scene: Scene) -> None:
    future_s = int(time.time()) + 4
    scene.put("future.jpg", modified_s=future_s)
    scene.put("present.jpg", modified_s=time.time() - 10)
    poller = scene.build_poller()
    report = poller.run_cycle()
    assert report.to_s < future_s
    assert scene.load_watch().mark_s == report.to_s
    assert set(scene.load_ledger()) == {"present.jpg"}
    scene.put("after it.jpg", modified_s=time.time() - 1)
    while poller.run_cycle().to_s < future_s:
        time.sleep(0.5)
    assert set(scene.load_ledger()) == {"future.jpg", "present.jpg", "after it.jpg"}


def test_scenario_29_failing_source_is_an_error_and_no_empty_listing(scene: Scene) -> None:
    scene.put("a.jpg", modified_s=time.time() - 100)
    poller = scene.build_poller()
    mark_s = poller.run_cycle().to_s
    away = scene.folder.rename(scene.folder.with_name("away"))
    time.sleep(1.1)
    with pytest.raises(watcher.poll.WatcherError):
        poller.run_cycle()
    assert scene.load_watch().mark_s == mark_s
    away.rename(scene.folder)
    assert poller.run_cycle().to_s > mark_s
    assert scene.load_ledger()["a.jpg"].state is SampleState.WAITING
