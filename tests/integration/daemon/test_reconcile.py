"""The full comparison, and what people change by command, over a real platform and both stores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

import watcher.poll
import watcher.reconcile
from tests.integration.daemon.conftest import Scene
from watcher.domain.clock import SystemClock
from watcher.domain.errors import CancelledError, ConfigError, RefusedChangeError, WatcherError
from watcher.domain.models import SampleState, Via
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.wire.samples import SampleCreateRequest
from watcher.lightly.workflows.register import ensure_sample
from watcher.ops.changes import Wanted, make_change
from watcher.reconcile import Reconciler
from watcher.store import control, polls, reconciles, samples, tables
from watcher.store.counts import load_counts
from watcher.store.reconciles import ReconcileReport

AGO_S = 100


def _reconcile(scene: Scene, tmp_path: Path, *, kind: type[Reconciler] = Reconciler) -> ReconcileReport:
    poller = scene.build_poller()
    return kind(
        database=scene.database,
        transport=poller.transport,
        config=scene.config,
        watch_id=poller.watch_id,
        clock=SystemClock(),
        metrics=scene.metrics,
        work_dir=tmp_path,
    ).run()


def test_reconcile_of_a_sound_ledger_is_clean(scene: Scene, tmp_path: Path) -> None:
    for number in range(25):
        scene.put(f"{number}.jpg", modified_s=time.time() - AGO_S)
    scene.build_poller().run_cycle()
    report = _reconcile(scene, tmp_path)
    assert report.is_clean
    assert (report.n_listed, report.samples["waiting"], report.n_missing) == (25, 25, 0)


def test_reconcile_finds_what_lay_behind_every_overlap(scene: Scene, tmp_path: Path) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    poller.run_cycle()
    scene.put("very old.jpg", modified_s=1_000_000_000)
    assert poller.run_cycle().n_new == 0
    report = _reconcile(scene, tmp_path)
    assert (report.n_missing, report.missing, report.is_clean) == (1, ["very old.jpg"], False)
    found = scene.load_ledger()["very old.jpg"]
    assert (found.state, found.via) == (SampleState.WAITING, Via.RECONCILE)
    assert _reconcile(scene, tmp_path).is_clean
    with scene.database.read() as session:
        assert reconciles.load_last_missing(session) == {"cams": 0}


def test_reconcile_marks_waiting_samples_that_vanished_but_not_rewritten_ones(
    scene: Scene, tmp_path: Path
) -> None:
    for name in ("stays.jpg", "goes.jpg", "rewritten.jpg"):
        scene.put(name, modified_s=time.time() - AGO_S)
    scene.build_poller().run_cycle()
    ledger = scene.load_ledger()
    (scene.folder / "goes.jpg").unlink()
    scene.put("rewritten.jpg", b"again", modified_s=time.time() + 60)
    report = _reconcile(scene, tmp_path)
    assert (report.n_gone, report.samples["gone"], report.samples["waiting"]) == (1, 1, 2)
    with scene.database.read() as session:
        gone = samples.load_sample_by_id(session, sample_id=ledger["goes.jpg"].id)
    assert gone is not None
    assert gone.state is SampleState.GONE


def test_reconcile_names_what_is_done_here_and_unknown_to_the_dataset(scene: Scene, tmp_path: Path) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    scene.build_poller().run_cycle()
    with scene.database.write() as session:
        session.execute(update(tables.samples).values(state="done", remote_id="0" * 24))
    report = _reconcile(scene, tmp_path)
    assert not report.is_clean
    assert report.done_but_not_remote == ["a.jpg"]


def test_what_polls_and_jobs_do_during_a_reconcile_is_no_fault(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("becomes done.jpg", "comes back.jpg"):
        scene.put(name, modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    poller.run_cycle()
    ledger = scene.load_ledger()
    (scene.folder / "comes back.jpg").unlink()
    with scene.database.write() as session:
        samples.record_gone(session, sample_id=ledger["comes back.jpg"].id, reason="vanished", now_ms=1)
    acts = iter([True])

    def read_dataset(*arguments: Any, **named: Any) -> Iterator[list[str]]:
        yield from iter_file_names(*arguments, **named)
        if next(acts, False):
            scene.put("comes.jpg", modified_s=time.time() - 1)
            scene.put("comes back.jpg", modified_s=time.time() - 1)
            poller.run_cycle()
            registered = ensure_sample(
                poller.transport,
                dataset_id=scene.load_watch().dataset_id,
                request=SampleCreateRequest(file_name="becomes done.jpg"),
                look_up_first=False,
                with_write_urls=False,
            )
            with scene.database.write() as session:
                session.execute(
                    update(tables.samples)
                    .where(tables.samples.c.file_name == "becomes done.jpg")
                    .values(state="done", remote_id=registered.sample_id)
                )

    monkeypatch.setattr(watcher.reconcile, "iter_file_names", read_dataset)
    report = _reconcile(scene, tmp_path)
    assert (report.unexplained, report.n_unexplained, report.done_but_not_remote) == ({}, 0, [])
    assert (report.n_gone, report.n_missing, report.is_clean) == (0, 0, True)
    states = {name: sample.state for name, sample in scene.load_ledger().items()}
    assert states == {
        "becomes done.jpg": SampleState.DONE,
        "comes back.jpg": SampleState.WAITING,
        "comes.jpg": SampleState.WAITING,
    }


def test_name_that_a_poll_finds_before_the_reconcile_records_it_is_not_missing(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    poller.run_cycle()
    scene.put("late.jpg", modified_s=time.time() - AGO_S)
    scene.put("lost.jpg", modified_s=1_000_000_000)

    def record_missing(*arguments: Any, **named: Any) -> tuple[int, list[str]]:
        poller.run_cycle()
        return Reconciler._record_missing(*arguments, **named)

    class Beside(Reconciler):
        _record_missing = record_missing

    report = _reconcile(scene, tmp_path, kind=Beside)
    assert (report.n_missing, report.missing, report.listed["waiting"]) == (1, ["lost.jpg"], 3)


def test_reconcile_of_a_missing_folder_concludes_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    poller.run_cycle()
    (scene.folder / "a.jpg").unlink()
    scene.folder.rmdir()
    with pytest.raises(WatcherError):
        _reconcile(scene, tmp_path)
    with scene.database.read() as session:
        assert load_counts(session)["cams", SampleState.GONE] == 0


def test_rewind_lists_again_and_doubles_nothing(scene: Scene) -> None:
    for number in range(12):
        scene.put(f"{number}.jpg", modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    first = poller.run_cycle()
    with scene.database.write() as session:
        session.execute(delete(tables.samples).where(tables.samples.c.file_name == "3.jpg"))
    _apply(scene, "rewind", to_s=first.to_s - 2 * AGO_S)
    watch = scene.load_watch()
    assert watch.mark_s == first.to_s - 2 * AGO_S
    report = poller.run_cycle()
    assert (report.n_new, len(scene.load_ledger())) == (1, 12)
    assert scene.load_watch().remote_mark_s == report.to_s


def test_rewind_while_a_poll_runs_is_not_undone_by_its_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    first = poller.run_cycle()
    real = watcher.poll.iter_pages

    def rewind_meanwhile(*args: object, **kwargs: object) -> Iterator[object]:
        _apply(scene, "rewind", to_s=first.to_s - AGO_S)
        yield from real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(watcher.poll, "iter_pages", rewind_meanwhile)
        with pytest.raises(CancelledError, match="set back"):
            poller.run_cycle()
    assert scene.load_watch().mark_s == first.to_s - AGO_S


def test_rewind_forward_is_refused(scene: Scene) -> None:
    scene.build_poller().run_cycle()
    with pytest.raises(RefusedChangeError, match="only go back"):
        _apply(scene, "rewind", to_s=int(time.time()) + 1000)


def test_changes_are_idempotent_and_in_the_audit_log(scene: Scene) -> None:
    scene.build_poller().run_cycle()
    told = [_apply(scene, verb) for verb in ("pause", "pause", "resume", "resume")]
    assert told == ["paused", "it was paused already", "resumed", "it was not paused"]
    with scene.database.read() as session:
        entries = control.load_audit_log(session, watch=scene.load_watch(), limit=10)
    assert [(entry.verb, entry.actor) for entry in entries] == [("resume", "tester"), ("pause", "tester")]


def test_replay_gives_quarantined_samples_another_chance(scene: Scene) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    scene.build_poller().run_cycle()
    sample = scene.load_ledger()["a.jpg"]
    with scene.database.write() as session:
        samples.record_quarantined(session, sample_id=sample.id, reason="test", now_ms=1)
    assert _apply(scene, "replay") == "0 runs, 1 samples and 0 deliveries resubmitted"
    assert scene.load_ledger()["a.jpg"].state is SampleState.WAITING
    assert _apply(scene, "replay") == "0 runs, 0 samples and 0 deliveries resubmitted"


def test_change_of_an_unknown_watch_or_verb_is_named(scene: Scene) -> None:
    scene.build_poller().run_cycle()
    with pytest.raises(ConfigError, match="'nobody'"):
        _apply(scene, "pause", watch="nobody")
    with pytest.raises(ConfigError, match="'explode'"):
        _apply(scene, "explode")


def test_interrupted_listing_is_given_up_by_a_rewind(scene: Scene) -> None:
    scene.put("a.jpg", modified_s=time.time() - AGO_S)
    poller = scene.build_poller()
    first = poller.run_cycle()
    scene.stop.set()
    with pytest.raises(WatcherError):
        poller.run_cycle()
    scene.stop.clear()
    _apply(scene, "rewind", to_s=first.to_s - 10)
    with scene.database.read() as session:
        assert polls.load_unfinished_poll(session, watch_id=poller.watch_id) is None
    assert poller.run_cycle().from_s == first.to_s - 9


def _apply(scene: Scene, verb: str, *, watch: str = "cams", to_s: int | None = None) -> str:
    told, _ = make_change(
        scene.database,
        watch=watch,
        verb=verb,
        wanted=Wanted(to_s=to_s),
        actor="tester",
        now_ms=int(time.time() * 1000),
    )
    return told
