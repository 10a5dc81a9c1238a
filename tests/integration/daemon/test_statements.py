"""What a full comparison tells of every name, and the signed statement of the day that it keeps."""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import update

import watcher.reconcile
import watcher.store.reconciles
from tests.integration.daemon.conftest import Scene
from watcher.cli.control import _print_reports
from watcher.cli.views import print_reconcile
from watcher.domain.clock import SystemClock
from watcher.domain.models import SampleState
from watcher.domain.statements import verify_chain
from watcher.reconcile import Reconciler
from watcher.settings.root import load_settings
from watcher.store import reconciles, statements, tables
from watcher.store.reconciles import ReconcileReport

KEY = "statement key"


class LaterClock(SystemClock):
    """So many days on."""

    def __init__(self, days: int) -> None:
        self._off_s = days * 86_400

    def now_s(self) -> float:
        return time.time() + self._off_s


def _reconcile(scene: Scene, tmp_path: Path, *, days: int = 0) -> ReconcileReport:
    poller = scene.build_poller()
    return Reconciler(
        database=scene.database,
        transport=poller.transport,
        config=scene.config,
        watch_id=poller.watch_id,
        clock=LaterClock(days),
        metrics=scene.metrics,
        work_dir=tmp_path,
        statement_key=KEY,
    ).run()


def _put_three(scene: Scene) -> None:
    for name in ("ü.jpg", "a.jpg", "b.jpg"):
        scene.put(name, modified_s=time.time() - 100)
    scene.build_poller().run_cycle()


def _set(scene: Scene, name: str, **values: object) -> None:
    with scene.database.write() as session:
        session.execute(update(tables.samples).where(tables.samples.c.file_name == name).values(**values))


def test_listed_names_are_the_sum_of_what_became_of_them(scene: Scene, tmp_path: Path) -> None:
    _put_three(scene)
    scene.put("found by nobody.jpg", modified_s=1_000_000_000)
    _set(scene, "a.jpg", state="quarantined", reason="broken")
    report = _reconcile(scene, tmp_path)
    assert report.n_listed == sum(report.listed.values()) == 4
    assert report.listed == {"waiting": 3, "processing": 0, "done": 0, "quarantined": 1, "gone": 0}
    assert report.n_missing == 1


def test_every_row_that_nothing_explains_is_named_with_its_fault(scene: Scene, tmp_path: Path) -> None:
    _put_three(scene)
    _set(scene, "a.jpg", state="done", remote_id="0" * 24)
    _set(scene, "b.jpg", state="processing")
    _set(scene, "ü.jpg", state="quarantined", reason=None)
    report = _reconcile(scene, tmp_path)
    assert not report.is_clean
    assert report.unexplained == {
        "a.jpg": "done here, unknown to the dataset",
        "b.jpg": "in processing, but in no batch that is under way",
        "ü.jpg": "quarantined without a reason",
    }


def test_unexplained_names_beyond_what_a_report_holds_are_kept_until_the_next_comparison(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watcher.reconcile, "_MOST_NAMED", 2)
    monkeypatch.setattr(watcher.store.reconciles, "_PAGE", 2)
    names = [f"{number}.jpg" for number in range(5)]
    for name in names:
        scene.put(name, modified_s=time.time() - 100)
    scene.build_poller().run_cycle()
    for name in names:
        _set(scene, name, state="processing")
    report = _reconcile(scene, tmp_path)
    assert (report.n_unexplained, len(report.unexplained)) == (5, 2)
    settings = load_settings({"WATCHER_STORE__URL": scene.database.engine.url.render_as_string(False)})
    capsys.readouterr()
    _print_reports(settings, [report], as_json=True)
    (printed,) = json.loads(capsys.readouterr().out)
    assert sorted(printed["unexplained"]) == names
    with scene.database.read() as session:
        kept = list(reconciles.iter_unexplained(session, watch="cams"))
    assert kept == [(name, "in processing, but in no batch that is under way") for name in names]
    console = Console(file=io.StringIO(), width=200)
    print_reconcile(console, report, kept)
    assert all(f"    {name}: in processing" in console.file.getvalue() for name in names)
    for name in names[1:]:
        _set(scene, name, state="waiting")
    _reconcile(scene, tmp_path)
    with scene.database.read() as session:
        assert [name for name, _ in reconciles.iter_unexplained(session, watch="cams")] == names[:1]


def test_vanished_sample_that_is_listed_again_waits_again(scene: Scene, tmp_path: Path) -> None:
    _put_three(scene)
    _set(scene, "a.jpg", state="gone", reason="the datasource no longer lists it")
    report = _reconcile(scene, tmp_path)
    assert report.listed["gone"] == 0
    assert scene.load_ledger()["a.jpg"].state is SampleState.WAITING


def test_statement_is_made_once_a_day_and_the_days_are_chained(scene: Scene, tmp_path: Path) -> None:
    _put_three(scene)
    for days in (0, 0, 1, 2):
        _reconcile(scene, tmp_path, days=days)
    with scene.database.read() as session:
        signed = list(statements.iter_statements(session, watch_id=scene.load_watch().id))
    proven = list(verify_chain(signed, keys=[KEY]))
    assert len(proven) == 3
    lines = b"".join(name.encode() + b"\0waiting\n" for name in ("a.jpg", "b.jpg", "ü.jpg"))
    assert {each.names_sha256 for each in proven} == {hashlib.sha256(lines).hexdigest()}
    assert (proven[0].n_listed, proven[0].samples["waiting"], proven[0].watch) == (3, 3, "cams")
