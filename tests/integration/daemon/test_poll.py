"""The poll cycle over a real platform: what it finds, in which order it writes, how it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import watcher.poll
from tests.integration.daemon.conftest import Scene
from watcher.domain.errors import CancelledError, TransportError, WatcherError
from watcher.domain.models import BatchRules, PollState, SampleState, Via
from watcher.lightly import datasources
from watcher.platform.server import PlatformServer
from watcher.store import batches, claims, polls, samples, watches


@pytest.mark.scenario(number=6)
def test_poll_of_new_files_writes_each_once_and_moves_both_marks(scene: Scene) -> None:
    names = ["a.jpg", "b c+%.png", "ü/ñ.webp", ".hidden.jpg", "no suffix", "x" * 150 + ".jpg"]
    for name in names:
        scene.put(name, modified_s=time.time() - 100)
    poller = scene.build_poller()
    first, second = poller.run_cycle(), poller.run_cycle()
    assert (first.n_new, second.n_new) == (len(names), 0)
    assert set(scene.load_ledger()) == set(names)
    watch = scene.load_watch()
    remote = datasources.fetch_processed_until(scene.build_transport(), dataset_id=watch.dataset_id)
    assert watch.mark_s == watch.remote_mark_s == remote == second.to_s


def test_poll_of_file_behind_the_mark_finds_it_in_the_overlap(scene: Scene) -> None:
    scene.put("early.jpg", modified_s=time.time() - 30)
    poller = scene.build_poller()
    poller.run_cycle()
    scene.put("late.jpg", modified_s=time.time() - 300)
    report = poller.run_cycle()
    assert (report.n_new, report.n_late) == (1, 1)
    assert scene.load_ledger()["late.jpg"].via is Via.OVERLAP


def test_poll_without_overlap_misses_the_late_file(scene: Scene) -> None:
    """Shows that the overlap, and nothing else, finds the file of the test above."""
    scene.change(poll=watcher.domain.models.PollRules(hold_back_s=0, overlap_s=0))
    poller = scene.build_poller()
    poller.run_cycle()
    scene.put("late.jpg", modified_s=time.time() - 300)
    assert poller.run_cycle().n_new == 0


@pytest.mark.scenario(number=3)
def test_poll_interrupted_between_pages_goes_on_at_its_cursor(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(35):
        scene.put(f"{number:03d}.jpg", modified_s=time.time() - 50)
    poller = scene.build_poller()
    with _failing_after(monkeypatch, n_pages=2), pytest.raises(TransportError):
        poller.run_cycle()
    assert scene.load_watch().mark_s is None, "the mark moved although the listing was cut"
    assert len(scene.load_ledger()) == 20
    with scene.database.read() as session:
        before = polls.load_unfinished_poll(session, watch_id=scene.load_watch().id)
    assert before is not None
    assert before.cursor is not None
    scene.put("meanwhile.jpg", modified_s=time.time() - 2)
    report = poller.run_cycle()
    assert report.resumed
    assert (report.n_listed, report.n_new, report.to_s) == (15, 15, before.to_s)
    assert poller.run_cycle().n_new == 1
    assert len(scene.load_ledger()) == 36


def test_poll_with_a_cursor_the_server_no_longer_takes_lists_its_window_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(35):
        scene.put(f"{number:03d}.jpg", modified_s=time.time() - 50)
    poller = scene.build_poller()
    with _failing_after(monkeypatch, n_pages=2), pytest.raises(TransportError):
        poller.run_cycle()
    with scene.database.write() as session:
        unfinished = polls.load_unfinished_poll(session, watch_id=scene.load_watch().id)
        assert unfinished is not None
        polls.update_progress(
            session, poll_id=unfinished.id, via=unfinished.via, cursor="no-such-cursor", n_listed=0, n_new=0
        )
    report = poller.run_cycle()
    assert (report.n_listed, report.n_new) == (35, 15)
    assert len(scene.load_ledger()) == 35


def test_poll_that_resumes_without_a_page_is_given_up_for_a_new_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(15):
        scene.put(f"{number:03d}.jpg", modified_s=time.time() - 50)
    poller = scene.build_poller()
    for n_pages in (1, 0):
        with _failing_after(monkeypatch, n_pages=n_pages), pytest.raises(TransportError):
            poller.run_cycle()
    with scene.database.read() as session:
        watch_id = scene.load_watch().id
        (last,) = polls.load_recent_polls(session, watch_id=watch_id, limit=1)[watch_id]
    assert last.state is PollState.FAILED
    report = poller.run_cycle()
    assert not report.resumed
    assert len(scene.load_ledger()) == 15


def test_poll_when_the_server_refuses_the_mark_keeps_its_own_and_tells_it_next_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put("a.jpg")
    poller = scene.build_poller()
    told = watcher.poll.datasources.update_processed_until

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise WatcherError("no")

    monkeypatch.setattr(watcher.poll.datasources, "update_processed_until", refuse)
    first = poller.run_cycle()
    watch = scene.load_watch()
    assert (watch.mark_s, watch.remote_mark_s) == (first.to_s, None)
    monkeypatch.setattr(watcher.poll.datasources, "update_processed_until", told)
    second = poller.run_cycle()
    assert scene.load_watch().remote_mark_s == second.to_s


def test_poll_of_a_missing_folder_fails_and_is_no_empty_listing(scene: Scene) -> None:
    poller = scene.build_poller()
    scene.folder.rmdir()
    with pytest.raises(WatcherError, match="incoming"):
        poller.run_cycle()
    assert scene.load_watch().mark_s is None
    scene.folder.mkdir()
    scene.put("a.jpg", modified_s=time.time() - 30)
    assert poller.run_cycle().n_new == 1


def test_poll_asked_to_stop_keeps_what_it_has(scene: Scene) -> None:
    scene.put("a.jpg", modified_s=time.time() - 30)
    poller = scene.build_poller()
    scene.stop.set()
    with pytest.raises(CancelledError):
        poller.run_cycle()
    scene.stop.clear()
    assert poller.run_cycle().resumed
    assert set(scene.load_ledger()) == {"a.jpg"}


def test_poll_refreshes_the_url_of_waiting_samples_only(scene: Scene) -> None:
    scene.put("waiting.jpg", modified_s=time.time() - 30)
    scene.put("done.jpg", modified_s=time.time() - 30)
    poller = scene.build_poller()
    poller.run_cycle()
    ledger = scene.load_ledger()
    with scene.database.write() as session:
        samples.refresh_unfinished(
            session, watch_id=ledger["done.jpg"].watch_id, rows=[(name, "http://old/") for name in ledger]
        )
        batch = batches.create_batch(
            session,
            watch_id=ledger["done.jpg"].watch_id,
            watch_name="cams",
            steps=scene.config.steps,
            now_ms=1,
        )
        samples.record_quarantined(session, sample_id=ledger["done.jpg"].id, reason="test", now_ms=1)
    assert batch.key == "cams-000001"
    poller.run_cycle()
    ledger = scene.load_ledger()
    assert ledger["waiting.jpg"].read_url != "http://old/"
    assert ledger["done.jpg"].read_url == "http://old/"


def test_poll_cuts_batches_in_the_transaction_of_the_mark(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.change(batch=BatchRules(min_samples=4, max_wait_s=10_000, max_samples=4))
    for number in range(10):
        scene.put(f"{number}.jpg", modified_s=time.time() - 30)
    poller = scene.build_poller()

    def crash(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(watcher.poll.polls, "finish_poll", crash)
        with pytest.raises(RuntimeError):
            poller.run_cycle()
    assert scene.load_watch().mark_s is None
    assert all(sample.state is SampleState.WAITING for sample in scene.load_ledger().values())
    report = poller.run_cycle()
    assert report.n_batches == 2
    states = [sample.state for sample in scene.load_ledger().values()]
    assert (states.count(SampleState.PROCESSING), states.count(SampleState.WAITING)) == (8, 2)
    with scene.database.write() as session:
        claimed = claims.claim_run(session, owner="x", now_ms=int(time.time() * 1000) + 1000, lease_ms=1000)
        other = claims.claim_run(session, owner="y", now_ms=int(time.time() * 1000) + 1000, lease_ms=1000)
    assert claimed is not None
    assert other is None, "two batches of one watch were under way at once"


@pytest.mark.scenario(number=19)
def test_two_watches_keep_their_marks_apart(scene: Scene, platform: PlatformServer) -> None:
    scene.put("a.jpg", modified_s=time.time() - 30)
    scene.build_poller().run_cycle()
    (platform.config.datasource_root / "other").mkdir()
    scene.change(name="other", dataset="other", folder="other")
    other = scene.build_poller()
    with scene.database.read() as session:
        assert {watch.name: watch.mark_s is None for watch in watches.load_watches(session)} == {
            "cams": False,
            "other": True,
        }
    assert other.run_cycle().n_new == 0


@contextmanager
def _failing_after(monkeypatch: pytest.MonkeyPatch, *, n_pages: int) -> Iterator[None]:
    """The connection breaks after so many pages of a listing."""
    real = watcher.poll.iter_pages

    def iter_pages(*args: object, **kwargs: object) -> Iterator[object]:
        for number, page in enumerate(real(*args, **kwargs)):
            if number == n_pages:
                raise TransportError("cut")
            yield page

    with monkeypatch.context() as patch:
        patch.setattr(watcher.poll, "iter_pages", iter_pages)
        yield
