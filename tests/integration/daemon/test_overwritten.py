"""Objects that are written again, come back, or are still being written."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from tests.integration.daemon.conftest import Scene
from tests.integration.daemon.test_pipeline import Pipeline, pipeline
from watcher.domain.models import SampleState, SamplingRules
from watcher.domain.poll_rules import OverwritePolicy, PollRules
from watcher.domain.step_rules import UploadRules
from watcher.lightly import samples as remote_samples
from watcher.ops.life import load_lives
from watcher.store import novelty, picks, watches
from watcher.store.tables import vectors

__all__ = ["pipeline"]


def _picture(seed: int, *, size: tuple[int, int] = (160, 128)) -> bytes:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def _set_policy(scene: Scene, policy: OverwritePolicy) -> None:
    scene.change(poll=PollRules(hold_back_s=0, overlap_s=600, overwritten=policy))


def _overwrite(scene: Scene, name: str, body: bytes) -> None:
    """Writes it after the mark, and waits until the server's clock is past it."""
    mark_s = scene.load_watch().mark_s
    assert mark_s is not None
    scene.put(name, body, modified_s=mark_s + 1)
    ends_s = time.monotonic() + 60
    while time.time() < mark_s + 2.5:
        assert time.monotonic() < ends_s
        time.sleep(0.1)


def _load_vector(scene: Scene, name: str) -> np.ndarray:
    with scene.database.read() as session:
        data = session.execute(select(vectors.c.data).where(vectors.c.file_name == name)).scalar_one()
    return np.frombuffer(data, dtype="<f4")


def test_overwritten_object_with_policy_again_is_processed_in_its_place(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    _set_policy(scene, OverwritePolicy.AGAIN)
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        scene.put(name, _picture(number), modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    transport = scene.build_transport()
    before = remote_samples.fetch_sample_by_file_name(
        transport, dataset_id=pipeline.dataset_id, file_name="b.jpg"
    )
    assert before is not None
    vector = _load_vector(scene, "b.jpg")
    _overwrite(scene, "b.jpg", _picture(77, size=(80, 64)))
    pipeline.poll()
    assert scene.load_ledger()["b.jpg"].state is SampleState.WAITING
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.list_remote() == ["a.jpg", "b.jpg", "c.jpg"]
    after = remote_samples.fetch_sample_by_file_name(
        transport, dataset_id=pipeline.dataset_id, file_name="b.jpg"
    )
    assert after is not None
    assert after.id == before.id
    assert after.meta_data != before.meta_data
    sample = scene.load_ledger()["b.jpg"]
    assert (sample.state, sample.n_overwritten, sample.remote_id) == (SampleState.DONE, 1, before.id)
    assert not np.array_equal(_load_vector(scene, "b.jpg"), vector)
    masks = pipeline.list_tags()
    assert list(masks["cams-000002-again"]) == [after.index]
    for _ in range(3):
        pipeline.poll()
    assert scene.load_ledger()["b.jpg"].n_overwritten == 1, "the same change was counted again"


def test_picked_object_that_is_written_again_is_measured_picked_and_delivered_anew(
    pipeline: Pipeline,
) -> None:
    scene = pipeline.scene
    _set_policy(scene, OverwritePolicy.AGAIN)
    scene.change(sampling=SamplingRules(budget=1))
    for number, name in enumerate(("a.jpg", "b.jpg")):
        scene.put(name, _picture(number), modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    with scene.database.read() as session:
        (first,) = picks.load_picks(session, batch_id=1)
    name = first.file_name
    old = _load_vector(scene, name)
    _overwrite(scene, name, _picture(77))
    pipeline.poll()
    pipeline.poll()
    pipeline.run_all()
    with scene.database.read() as session:
        (again,) = picks.load_picks(session, batch_id=2)
        measured = novelty.load_sample_novelty(session, sample_id=again.sample_id)
        batch = novelty.load_batch_novelty(session, batch_id=2)
    assert again.file_name == name
    assert "nearest_earlier_pick" not in again.reason, "what it was before is no earlier pick"
    gap = min(
        float(np.linalg.norm(_load_vector(scene, name) - other))
        for other in (old, _load_vector(scene, "b.jpg" if name == "a.jpg" else "a.jpg"))
    )
    assert measured is not None
    assert measured.distance == pytest.approx(gap, abs=1e-5)
    assert batch is not None
    assert (batch.n_samples, batch.mean_distance) == (1, pytest.approx(gap, abs=1e-5))
    assert list(pipeline.list_tags()["cams-000002"]) == list(pipeline.list_tags()["cams-000002-again"])
    delivered = [(event.what, event.facts) for event in load_lives(scene.database, file_name=name)[0].events]
    assert [facts["tag"] for what, facts in delivered if what == "picked"] == ["cams-000001", "cams-000002"]
    places = [Path(facts["location"]).name for what, facts in delivered if what == "delivered"]
    assert places == ["cams-000001.jsonl", "cams-000002.jsonl"]


def test_picked_object_that_is_written_again_and_not_picked_is_told_of_its_own_delivery(
    pipeline: Pipeline,
) -> None:
    scene = pipeline.scene
    _set_policy(scene, OverwritePolicy.AGAIN)
    scene.change(sampling=SamplingRules(budget=1))
    scene.put("a.jpg", _picture(1), modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    _overwrite(scene, "a.jpg", b"no picture")
    pipeline.poll()
    waits = load_lives(scene.database, file_name="a.jpg")[0].events
    assert [event.facts["tag"] for event in waits if event.what == "picked"] == ["cams-000001"]
    pipeline.poll()
    pipeline.run_all()
    assert scene.load_ledger()["a.jpg"].state is SampleState.QUARANTINED
    events = load_lives(scene.database, file_name="a.jpg")[0].events
    assert [event.facts["tag"] for event in events if event.what == "picked"] == ["cams-000001"]
    places = [Path(event.facts["location"]).name for event in events if event.what == "delivered"]
    assert places == ["cams-000001.jsonl"]


def test_overwritten_object_with_policy_alert_is_counted_once_and_left_as_it_is(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    _set_policy(scene, OverwritePolicy.ALERT)
    scene.put("a.jpg", _picture(1), modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    _overwrite(scene, "a.jpg", _picture(2))
    for _ in range(3):
        pipeline.poll()
    sample = scene.load_ledger()["a.jpg"]
    assert (sample.state, sample.n_overwritten) == (SampleState.DONE, 1)
    counted = scene.metrics.samples_overwritten.labels(watch="cams")._value.get()
    assert counted == 1


def test_overwritten_object_with_policy_ignore_is_not_even_looked_at(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    _set_policy(scene, OverwritePolicy.IGNORE)
    scene.put("a.jpg", _picture(1), modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    _overwrite(scene, "a.jpg", _picture(2))
    pipeline.poll()
    sample = scene.load_ledger()["a.jpg"]
    assert (sample.n_overwritten, sample.relisted_ms) == (0, None)


@pytest.mark.parametrize("policy", [OverwritePolicy.AGAIN, OverwritePolicy.ALERT])
def test_object_listed_again_by_overlap_or_rewind_without_a_change_is_not_overwritten(
    pipeline: Pipeline, policy: OverwritePolicy
) -> None:
    scene = pipeline.scene
    _set_policy(scene, policy)
    scene.put("a.jpg", _picture(1), modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    pipeline.poll()
    with scene.database.write() as session:
        watches.rewind_mark(session, watch_id=scene.load_watch().id, mark_s=int(time.time()) - 200)
    pipeline.poll()
    sample = scene.load_ledger()["a.jpg"]
    assert (sample.state, sample.n_overwritten, sample.relisted_ms) == (SampleState.DONE, 0, None)


def test_broken_file_that_is_written_again_gets_another_chance_with_policy_again(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    _set_policy(scene, OverwritePolicy.AGAIN)
    scene.put("a.jpg", b"no picture", modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.QUARANTINED}
    _overwrite(scene, "a.jpg", _picture(2))
    pipeline.poll()
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.DONE}


def test_object_that_vanished_and_comes_back_is_processed(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    scene.put("a.jpg", _picture(1), modified_s=time.time() - 60)
    pipeline.poll()
    (scene.folder / "a.jpg").unlink()
    pipeline.run_all()
    scene.put("a.jpg", _picture(1), modified_s=time.time() - 50)
    pipeline.poll()
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.DONE}


@pytest.mark.scenario(number=28)
def test_file_that_keeps_growing_waits_beyond_the_usual_looks(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    scene.change(upload=UploadRules(workers=1, settle_s=0, settle_attempts=1))
    whole = _picture(1, size=(640, 480))
    for part in (0, 1, 2, 3):
        scene.put("a.jpg", whole[: len(whole) * part // 5], modified_s=time.time() - 60 + part)
        pipeline.poll()
        pipeline.run_once()
        assert scene.load_ledger()["a.jpg"].state is not SampleState.QUARANTINED, part
    scene.put("a.jpg", whole, modified_s=time.time() - 50)
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.DONE}


def test_truncated_file_younger_than_the_settle_time_waits(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    scene.change(upload=UploadRules(workers=1, settle_s=3000, settle_attempts=0))
    scene.put("young.jpg", _picture(1)[:500], modified_s=time.time() - 100)
    scene.put("old.jpg", _picture(1)[:500], modified_s=time.time() - 5000)
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"young.jpg": SampleState.WAITING, "old.jpg": SampleState.QUARANTINED}


@pytest.mark.scenario(number=30)
def test_own_output_of_a_server_below_the_prefix_is_no_input(scene: Scene) -> None:
    scene.put(".lightly/thumbnails/a.jpg", modified_s=time.time() - 60)
    scene.put("a.jpg", modified_s=time.time() - 60)
    scene.build_poller().run_cycle()
    assert set(scene.load_ledger()) == {"a.jpg"}
