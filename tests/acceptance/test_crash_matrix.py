"""`kill -9` at every named point between two durable effects: the end is that of a run that was never killed.

Every point of `watcher.domain.crash_points` is in exactly one scenario below, which leads a real daemon there. The
daemons of most scenarios share one platform, each over a dataset of its own, and are killed alone; those of
`first start` have theirs inside and take it along.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import watcher.platform.samples
from tests.acceptance.crash_scene import NAME, WATCH, CrashScene
from tests.acceptance.forge import Forge
from tests.buckets import open_bucket
from tests.receivers import Answer, open_receiver
from watcher.database.engine import build_database
from watcher.lightly import datasets, samples
from watcher.lightly.wire.samples import SampleCreateRequest
from watcher.lightly.workflows.register import ensure_initial_or_upsize_tag
from watcher.platform.faults import invalid
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.store import tables, watches

pytestmark = pytest.mark.deep

PICTURES = [f"{number}.jpg" for number in range(4)]
SLOW_S = 2.5
# Which passing of a point is told where another one leads elsewhere: the first batch makes the initial tag, the
# second one upsizes it and has a preselected tag.
POINTS = {
    "pipeline": [
        "attach.watch_stored",
        "daemon.runs_released",
        "deliver.promised",
        "deliveries.claimed",
        "deliveries.recorded",
        "deliveries.recorded:2",
        "embed.csv_uploaded",
        "embed.embedder_chosen",
        "embed.recorded:2",
        "embed.vectors_stored",
        "embedding.promised:2",
        "manifest.renamed",
        "manifest.written:2",
        "novelty.chunk_recorded:2",
        "novelty.recorded",
        "poll.created",
        "poll.mark_moved",
        "poll.page_stored",
        "poll.page_stored:2",
        "poll.query_turned",
        "poll.remote_mark_stored",
        "poll.remote_mark_told",
        "probe.recorded",
        "runner.claimed",
        "runner.claimed:6",
        "runner.recorded:4",
        "sampling.asked",
        "sampling.asked:2",
        "sampling.ended:2",
        "sampling.recorded",
        "upload.file_put",
        "upload.sample_recorded:2",
        "upload.sample_registered",
        "upload.sample_registered:4",
        "upload.sample_set_aside",
        "upload.tag_made",
        "upload.tag_made:2",
        "upload.tag_recorded:2",
        "upload.thumbnail_put",
    ],
    "third batch": ["embed.old_deleted", "embed.old_forgotten"],
    "first start": ["attach.dataset_created", "attach.datasource_set"],
    "vanished": ["read_urls.page_refreshed", "upload.vanished_recorded"],
    "refused": ["upload.refused_recorded"],
    "interrupted": ["poll.interruption_stored"],
    "foreign": ["embed.foreign_vectors_stored", "novelty.others_packed"],
    "aged": ["daemon.batches_cut"],
    "suspect": ["alone.noted"],
    "looked at": ["source_check.recorded"],
    "late": ["lateness.recorded"],
    "overwritten": [
        "overwrites.looked_at",
        "upload.sample_updated",
        "upload.again_tag_made",
    ],
    "wrong clock": ["poll.problem_stored", "duties.problem_stored"],
    "right clock": ["duties.problem_cleared"],
    "wrong facts": ["probe.problem_stored"],
    "outdated": ["embed.outdated_deleted", "sampling.tag_made"],
    "scores": ["sampling.scores_noted", "sampling.scores_uploaded"],
    "indexed": ["novelty.index_written"],
    "metadata": ["metadata.sent", "metadata.set_aside"],
    "slow": ["runner.lease_extended"],
    "receivers": [
        "deliveries.progress_saved",
        "deliveries.progress_saved:2",
        "manifest.uploaded",
        "webhook.posted",
    ],
    "slow receiver": ["deliveries.lease_extended"],
    "reembed": [
        "reembed.csv_uploaded",
        "reembed.finished",
        "reembed.noted",
        "reembed.old_deleted",
        "reembed.vectors_stored",
    ],
    "audit": [
        "reconcile.page_stored",
        "reconcile.reported",
        "reconcile.returned_recorded",
        "reconcile.statement_kept",
        "reconcile.unexplained_stored",
        "reconcile.vanished_recorded",
    ],
}

# Needs a server that takes minutes to install: `tests/label_studio/` leads there.
POINTS_OF_LABEL_STUDIO = {
    "deliveries.tasks_recorded",
    "label_studio.project_created",
    "label_studio.tasks_imported",
}
# Commands lead to these: one between two stores (`tests/scale/test_move.py`), one that changes something
# (`tests/unit/cli/test_commands.py`), and requests on replicas (`tests/scale/test_requests.py`). An embedder that refuses everything, whose batch gives up, leads to the last:
# `tests/integration/daemon/test_lacks.py`.
LED_TO_ELSEWHERE = {
    *POINTS_OF_LABEL_STUDIO,
    "control.changed",
    "control.requested",
    "duties.request_refused",
    "moving.part_copied",
    "moving.source_marked",
    "embed.refusal_forgotten",
}


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    made = Forge()
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    root = tmp_path_factory.mktemp("platform")
    (root / "objects").mkdir()
    config = PlatformConfig(
        token="matrix-token",
        datasource_root=root / "objects",
        data_dir=root / "platform",
        port=0,
        page_size=3,
        isolate_jobs=False,
    )
    build = watcher.platform.samples.build_sample_row

    def build_or_refuse(call: Any, request: Any) -> dict[str, Any]:
        # Other tests of this process have platforms too.
        is_ours = call.platform.config is config
        if is_ours and "refused" in request.file_name:
            raise invalid("this one is not wanted")
        if is_ours and "slow" in request.file_name:
            time.sleep(SLOW_S)
        return build(call, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher.platform.samples, "build_sample_row", build_or_refuse)
        started = PlatformServer(config)
        started.start()
        yield started
        started.stop()


@pytest.fixture
def make_scene(tmp_path: Path, forge: Forge, server: PlatformServer) -> Iterator[Callable[..., CrashScene]]:
    made: list[CrashScene] = []

    def make(name: str, *, store_url: str | None = None, embedded: bool = False) -> CrashScene:
        root = tmp_path / name
        root.mkdir()
        url = store_url or f"sqlite:///{root / 'store.sqlite'}"
        scene = CrashScene(root, forge, store_url=url, server=None if embedded else server)
        made.append(scene)
        return scene

    yield make
    for scene in made:
        scene.kill()
        scene.close()


def _prepare(scene: CrashScene, scenario: str) -> None:
    """Leads the scene to where the scenario begins, the same with and without the crash."""
    names = {
        "pipeline": PICTURES,
        "refused": ["a.jpg", "refused.jpg"],
        "slow": ["slow.jpg"],
        "third batch": PICTURES[:3],
        "audit": PICTURES,
    }.get(scenario, PICTURES[:2])
    scene.put_pictures(names)
    if scenario in {"third batch", "foreign"}:
        scene.environ[f"{WATCH}BATCH__MAX_SAMPLES"] = "1"
    if scenario == "looked at":
        scene.environ[f"{WATCH}POLL__SOURCE_CHECK_INTERVAL_S"] = "1"
    if scenario == "aged":
        scene.environ |= {f"{WATCH}BATCH__MIN_SAMPLES": "3", f"{WATCH}BATCH__MAX_WAIT_S": "1"}
        scene.environ[f"{WATCH}SCHEDULE__INTERVAL_S"] = "3600"
    if scenario == "metadata":
        scene.environ |= {f"{WATCH}STEPS": "upload,metadata", f"{WATCH}METADATA__SOURCE": "sidecar"}
        scene.put("0.json", b'{"camera": "gate"}', 0)
        scene.put("1.json", b"no JSON", 0)
    if scenario == "pipeline":
        scene.put("no picture.jpg", b"text", 1)
    elif scenario == "overwritten":
        scene.environ[f"{WATCH}POLL__OVERWRITTEN"] = "again"
        scene.run_to_rest()
        for name, other in zip(names, reversed(names), strict=True):
            shutil.copy(scene.folder / name, scene.folder / f"{other}.new")
        for name in names:
            (scene.folder / f"{name}.new").rename(scene.folder / name)
            os.utime(scene.folder / name, (time.time() + 1,) * 2)
        # The first of them is noticed here, the other one later.
        scene.run_until_crash("overwrites.looked_at")
    elif scenario == "late":
        scene.run_until_crash("poll.mark_moved")
        late = scene.folder / "late.jpg"
        shutil.copy(scene.folder / names[0], late)
        os.utime(late, (time.time() - 200,) * 2)
    elif scenario in {"wrong clock", "right clock", "wrong facts"}:
        scene.run_until_crash("poll.remote_mark_stored")
    elif scenario == "suspect":
        scene.run_until_crash("runner.claimed")
        _accuse(scene, names[1])
    elif scenario == "vanished":
        scene.run_until_crash("poll.mark_moved")
        (scene.folder / names[0]).unlink()
    elif scenario in {"receivers", "slow receiver"}:
        _add_receivers(scene, is_slow=scenario == "slow receiver")
    elif scenario == "scores":
        path = scene.root / "scores.csv"
        path.write_text(
            "file_name,score\n" + "".join(f"{name},0.{number}\n" for number, name in enumerate(names))
        )
        scene.environ |= {
            f"{WATCH}SAMPLING__METHOD": "CORAL",
            f"{WATCH}SAMPLING__SCORES__FILE": str(path),
        }
    elif scenario == "indexed":
        scene.environ |= {f"{WATCH}NOVELTY__EXACT_UP_TO": "0", f"{WATCH}BATCH__MAX_SAMPLES": "1"}
    elif scenario == "outdated":
        scene.run_until_crash("embed.recorded")
        transport = scene.build_transport()
        (dataset,) = datasets.fetch_datasets_by_name(transport, name=scene.dataset, exact=True)
        request = SampleCreateRequest(file_name="somebody else's.jpg")
        samples.create_sample(transport, dataset_id=dataset.id, request=request)
        path = shutil.copy(scene.folder / names[-1], scene.folder / request.file_name)
        # Behind the mark of the one killed, whichever second that was in.
        os.utime(path, (time.time() + 1,) * 2)
        ensure_initial_or_upsize_tag(
            transport, dataset_id=dataset.id, img_type="full", upsize_tag_name="others"
        )
    elif scenario == "foreign":
        transport = scene.build_transport()
        (dataset,) = datasets.fetch_datasets_by_name(transport, name=scene.dataset, exact=True)
        request = SampleCreateRequest(file_name="somebody else's.jpg")
        samples.create_sample(transport, dataset_id=dataset.id, request=request)
        shutil.copy2(scene.folder / names[-1], scene.folder / request.file_name)


def _accuse(scene: CrashScene, name: str) -> None:
    """Lets the store say that the process died five times at the run, and five times more while it decoded one sample."""
    database = build_database(scene.store_url)
    with database.write() as session:
        session.execute(update(tables.runs).values(attempt=5))
        note = "the process died 5 times while it decoded this sample alone"
        session.execute(update(tables.samples).where(tables.samples.c.file_name == name).values(reason=note))
    database.close()


def _add_receivers(scene: CrashScene, *, is_slow: bool) -> None:
    """A webhook that takes one pick at a time, and a bucket."""
    receiver = scene.keep(open_receiver())
    if is_slow:
        receiver.answers = [Answer(wait=lambda: time.sleep(SLOW_S))]
    bucket = scene.keep(open_bucket())
    deliver = f"{WATCH}DELIVER__"
    scene.environ |= bucket.variables | {
        f"{deliver}RETRY_CAP_S": "0.2",
        f"{deliver}WEBHOOK__HOOK__URL": receiver.url,
        f"{deliver}WEBHOOK__HOOK__SECRET": "a-secret-of-sixteen-bytes",
        f"{deliver}WEBHOOK__HOOK__MAX_PICKS": "1",
        f"{deliver}MANIFEST__LAKE__LOCATION": f"s3://{bucket.name}/picked",
        f"{WATCH}SAMPLING__BUDGET": "2",
    }

    def collect() -> dict[str, Any]:
        by_id = {got.headers["webhook-id"].rpartition(".")[2]: got.json for got in receiver.got}
        assert len({got.headers["webhook-id"] for got in receiver.got}) == len(by_id)
        return {
            "webhook": sorted(
                [number, pick["file_name"]] for number, body in by_id.items() for pick in body["picks"]
            ),
            "bucket": {
                key: sorted(json.loads(line)["file_name"] for line in body.splitlines())
                for key, body in bucket.read_all().items()
            },
        }

    scene.collect_received = collect


def _crash(scene: CrashScene, scenario: str, point: str) -> None:
    if scenario == "interrupted":
        scene.run_until_crash("poll.created")
        scene.run_to_rest()
        scene.kill()
        # Not before the start, which asks the server how it lists.
        away = scene.folder.with_name(f"{scene.folder.name}-away")
        scene.start_and_wait_for_event("probe.ended", crash_at=point)
        scene.folder.rename(away)
        scene.wait_for_crash(point)
        away.rename(scene.folder)
    elif scenario == "wrong facts":
        _set_unit(scene, "ms")
        scene.run_until_crash(point)
        _set_unit(scene, "s")
    elif scenario in {"wrong clock", "right clock"}:
        mark_s = _set_mark(scene, int(time.time()) + 366 * 86_400)
        scene.run_until_crash(point if scenario == "wrong clock" else "duties.problem_stored")
        _set_mark(scene, mark_s)
        if scenario == "right clock":
            scene.run_until_crash(point)
    else:
        scene.run_until_crash(point)


def _set_unit(scene: CrashScene, unit: str) -> None:
    """Lets the store say that the server listed in this unit."""
    database = build_database(scene.store_url)
    with database.write() as session:
        session.execute(update(tables.watches).values(listing_unit=unit))
    database.close()


def _set_mark(scene: CrashScene, mark_s: int) -> int:
    """Puts the mark where a wrong clock would have; returns where it stood."""
    database = build_database(scene.store_url)
    try:
        with database.write() as session:
            (watch,) = watches.load_watches(session)
            assert watch.mark_s is not None
            watches.update_mark(session, watch_id=watch.id, mark_s=mark_s, now_ms=1)
            return watch.mark_s
    finally:
        database.close()


def _load_expected(
    scenario: str, tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., CrashScene]
) -> dict[str, Any]:
    """The end state without a crash; run once for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    path = shared / f"uncrashed {scenario}.json"
    with (shared / f"uncrashed {scenario}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            scene = make_scene("uncrashed", embedded=scenario == "first start")
            _prepare(scene, scenario)
            path.write_text(json.dumps(scene.run_to_rest()))
    expected: dict[str, Any] = json.loads(path.read_text())
    return expected


# A request or a file does not depend on the store, so on Postgres only the points behind its transactions are tried.
BEHIND_TRANSACTIONS = re.compile(
    r"_stored|_recorded|recorded|forgotten|claimed|chosen|created|moved|turned|released|refreshed"
)


def _list_cases() -> Iterator[Any]:
    for scenario, points in POINTS.items():
        for point in points:
            for store in ("sqlite", "postgres"):
                quick = scenario != "slow" and BEHIND_TRANSACTIONS.search(point) and ":" not in point
                if scenario not in {"audit", "reembed"} and (store == "sqlite" or quick):
                    yield pytest.param(store, scenario, point, id=f"{store}-{scenario}-{point}")


@pytest.mark.scenario(number=15)
@pytest.mark.scenario(number=8)
@pytest.mark.parametrize(("store_url", "scenario", "point"), [*_list_cases()], indirect=["store_url"])
def test_daemon_killed_at_a_point_ends_as_if_it_had_not_been(
    store_url: str,
    scenario: str,
    point: str,
    make_scene: Callable[..., CrashScene],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    expected = _load_expected(scenario, tmp_path_factory, make_scene)
    scene = make_scene("crashed", store_url=store_url, embedded=scenario == "first start")
    _prepare(scene, scenario)
    _crash(scene, scenario, point)
    assert scene.run_to_rest() == expected


@pytest.mark.parametrize("point", POINTS["audit"])
def test_audit_killed_at_a_point_tells_and_repairs_the_same_when_repeated(
    point: str, store_url: str, make_scene: Callable[..., CrashScene]
) -> None:
    scene = make_scene("crashed", store_url=store_url)
    scene.environ |= {f"{WATCH}BATCH__MIN_SAMPLES": "100", f"{WATCH}BATCH__MAX_SAMPLES": "100"}
    scene.environ[f"{WATCH}BATCH__MAX_WAIT_S"] = "1000"
    _prepare(scene, "audit")
    assert scene.run_command("poll")[0] == 0
    (scene.folder / PICTURES[0]).unlink()
    database = build_database(store_url)
    with database.write() as session:  # as if it had vanished and come back
        session.execute(
            update(tables.samples).where(tables.samples.c.file_name == PICTURES[1]).values(state="gone")
        )
    database.close()
    scene.put("older than any overlap.jpg", b"x", 0)
    code, text = scene.run_command("audit", crash_at=point)
    assert code == -signal.SIGKILL, text + scene.read_log()
    _wait_for_lease(store_url)
    scene.run_command("audit")
    code, text = scene.run_command("audit", "--json")
    assert code == 0, text + scene.read_log()
    database = build_database(store_url)
    try:
        ledger = {row[0]: (row[1], row[3]) for row in scene.collect_store(database)["ledger"]}
    finally:
        database.close()
    assert ledger == {
        PICTURES[0]: ("gone", "window"),
        **dict.fromkeys(PICTURES[1:], ("waiting", "window")),
        "older than any overlap.jpg": ("waiting", "reconcile"),
    }
    assert list((scene.data_dir / "work").iterdir()) == []


def _wait_for_lease(store_url: str) -> None:
    """Beside Postgres a killed leader leads until its lease of a second runs out, and a command asks it so long."""
    if store_url.startswith("postgres"):
        time.sleep(1.6)


@pytest.mark.parametrize("point", POINTS["reembed"])
def test_reembedding_killed_at_a_point_ends_the_same_when_repeated(
    point: str, store_url: str, make_scene: Callable[..., CrashScene], tmp_path: Path
) -> None:
    scene = make_scene("crashed", store_url=store_url)
    scene.environ[f"{WATCH}STEPS"] = "upload,embed"
    scene.put_pictures(PICTURES[:2])
    scene.run_to_rest()
    program = tmp_path / "embedder.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'id': json.loads(line)['id'], 'vector': [1, 2]}), flush=True)\n"
    )
    scene.environ |= {
        f"{WATCH}EMBED__KIND": "command",
        f"{WATCH}EMBED__COMMAND": f"{sys.executable} {program}",
        f"{WATCH}EMBED__VERSION": "pair-1",
        f"{WATCH}EMBED__DIM": "2",
    }
    _wait_for_lease(store_url)
    code, text = scene.run_command("run")
    assert code == 2, text
    assert "come from the embedder descriptor-v1, but its settings lead to command-pair-1" in scene.read_log()
    if point == "reembed.old_deleted":
        _wait_for_lease(store_url)
        scene.run_command("reembed", NAME, crash_at="reembed.csv_uploaded")
    _wait_for_lease(store_url)
    code, text = scene.run_command("reembed", NAME, crash_at=point)
    assert code == -signal.SIGKILL, text + scene.read_log()
    _wait_for_lease(store_url)
    code, text = scene.run_command("reembed", NAME)
    assert code == 0, text + scene.read_log()
    assert "all 2 samples have those of command-pair-1 now" in text
    found = scene.run_to_rest()
    assert found["n_vectors"] == 2
    assert found["embeddings"][f"{NAME}-command-pair-1"] == [True, 2]
    assert found["temporary files left"] == []
