"""What is new and what was there before: measured for each sample and batch over a real platform."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from tests.integration.daemon.conftest import Scene
from tests.integration.daemon.test_pipeline import Pipeline
from tests.photographs import build_scenes
from tests.unit.embedders.test_descriptor import encode
from watcher.domain.models import BatchRules, SamplingRules
from watcher.domain.sampling_rules import NoveltyRules
from watcher.domain.step_rules import UploadRules
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.ops.collector import StoreCollector
from watcher.ops.life import load_lives
from watcher.store import neighbours, novelty


@pytest.fixture
def pipeline(scene: Scene, tmp_path) -> Pipeline:
    scene.change(
        batch=BatchRules(min_samples=1, max_wait_s=0, max_samples=100),
        sampling=SamplingRules(budget=3),
        upload=UploadRules(workers=2, settle_s=0, settle_attempts=1),
    )
    return Pipeline(scene, tmp_path)


def put(pipeline: Pipeline, pictures: dict[str, Image.Image]) -> None:
    for name, picture in pictures.items():
        pipeline.scene.put(name, encode(picture), modified_s=time.time() - 60)
    pipeline.poll()


def load_measured(pipeline: Pipeline, batch_id: int) -> dict:
    with pipeline.scene.database.read() as session:
        return novelty.load_batch_sample_novelties(session, batch_id=batch_id)


def collect(pipeline: Pipeline) -> dict[str, float]:
    collector = StoreCollector(pipeline.scene.database, configured=frozenset({"cams"}))
    return {
        sample.name: sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.labels == {"watch": "cams"}
    }


def test_sample_is_compared_with_earlier_batches_and_earlier_ones_of_its_own(pipeline):
    a, b, c = build_scenes(3, seed=1)
    put(pipeline, {"1-a.jpg": a, "2-b.jpg": b})
    pipeline.run_all()
    put(pipeline, {"3-a-again.jpg": a, "4-c.jpg": c, "5-c-again.jpg": c})
    pipeline.run_all()
    first, second = load_measured(pipeline, 1), load_measured(pipeline, 2)
    assert (first["1-a.jpg"].distance, first["1-a.jpg"].nearest) == (None, None)
    assert first["2-b.jpg"].nearest == "1-a.jpg"
    again = second["3-a-again.jpg"]
    assert (again.distance, again.nearest, again.is_near_duplicate, again.is_repeat) == (
        pytest.approx(0, abs=1e-6),
        "1-a.jpg",
        True,
        True,
    )
    assert not second["4-c.jpg"].is_near_duplicate
    assert second["5-c-again.jpg"].nearest == "4-c.jpg"
    with pipeline.scene.database.read() as session:
        summary = novelty.load_batch_novelty(session, batch_id=2)
    assert (summary.n_samples, summary.n_near_duplicates, summary.n_repeats) == (3, 2, 2)
    expected = second["4-c.jpg"].distance / 3 / first["2-b.jpg"].distance
    assert summary.ratio == pytest.approx(expected, rel=1e-3)


def test_repeating_and_dark_cameras_show_in_the_metrics_and_in_why(pipeline):
    (a,) = build_scenes(1, seed=2)
    rng = np.random.default_rng(0)
    black = Image.fromarray(rng.integers(0, 12, (120, 160, 3), dtype=np.uint8))
    put(pipeline, {f"{number}.jpg": a for number in range(4)} | {"black.jpg": black})
    pipeline.run_all()
    found = collect(pipeline)
    assert found["watcher_measured_samples_total"] == 5
    assert found["watcher_near_duplicate_samples_total"] == 3
    assert found["watcher_repeated_samples_total"] == 3
    assert found["watcher_dark_samples_total"] == 1
    assert found["watcher_last_sample_timestamp_seconds"] == pytest.approx(time.time(), abs=120)
    assert "watcher_batch_novelty_ratio" not in found, "nothing to compare the first batch with"
    (life,) = load_lives(pipeline.scene.database, file_name="black.jpg", watch=None)
    events = {event.what: event.facts for event in life.events}
    assert events["seen to be dark"]["contrast"] < 0.03
    (life,) = load_lives(pipeline.scene.database, file_name="3.jpg", watch=None)
    facts = {event.what: event.facts for event in life.events}["compared with what was known"]
    assert (facts["near_duplicate"], facts["repeat"]) == (True, True)
    assert facts["nearest"] in {"0.jpg", "1.jpg", "2.jpg"}
    put(pipeline, {"more.jpg": a})
    pipeline.run_all()
    assert collect(pipeline)["watcher_batch_novelty_ratio"] == pytest.approx(0, abs=1e-4)


def test_sample_that_somebody_else_had_put_there_is_not_its_own_neighbour(pipeline):
    a, b = build_scenes(2, seed=3)
    put(pipeline, {"a.jpg": a})
    pipeline.run_all()
    watch = pipeline.scene.load_watch()
    embedder = DescriptorEmbedder()
    vector = embedder.embed_bytes([encode(b)]).vectors[0]
    with pipeline.scene.database.write() as session:
        from watcher.store import vectors

        rows = [("b.jpg", vector)]
        vectors.record_vectors(session, watch_id=watch.id, embedder=embedder.name, rows=rows)
        neighbours.pack_vectors(
            session, watch_id=watch.id, embedder=embedder.name, dim=embedder.dim, rows=rows
        )
    put(pipeline, {"b.jpg": b})
    pipeline.run_all()
    measured = load_measured(pipeline, 2)["b.jpg"]
    assert measured.nearest == "a.jpg"
    assert measured.distance > 0.1


def test_measuring_goes_on_where_a_killed_attempt_ended(pipeline, monkeypatch):
    import watcher.jobs.novelty as step

    monkeypatch.setattr(step, "_CHUNK", 2)
    pictures = build_scenes(5, seed=4)
    put(pipeline, {f"{number}.jpg": picture for number, picture in enumerate(pictures)})
    passed = []

    class PowerCutError(BaseException):
        pass

    def note(name: str) -> None:
        passed.append(name)
        if passed.count("novelty.chunk_recorded") == 2 and "cut" not in passed:
            passed.append("cut")
            raise PowerCutError

    monkeypatch.setattr(step, "crash_point", note)
    pipeline.run_once()
    with pytest.raises(PowerCutError):
        pipeline.run_once()
    assert len(load_measured(pipeline, 1)) == 4
    with pipeline.scene.database.write() as session:
        from sqlalchemy import update

        from watcher.store.tables import runs

        session.execute(update(runs).values(lease_until_ms=0))
    pipeline.run_all()
    measured = load_measured(pipeline, 1)
    assert [measured[f"{n}.jpg"].distance is None for n in range(5)] == [True] + [False] * 4
    with pipeline.scene.database.read() as session:
        summary = novelty.load_batch_novelty(session, batch_id=1)
        n_rows = neighbours.count_rows(session, watch_id=1, embedder="descriptor-v1")
    assert (summary.n_samples, n_rows) == (5, 5)


def test_vectors_of_the_time_before_blocks_are_packed_first(pipeline):
    a, b = build_scenes(2, seed=5)
    put(pipeline, {"a.jpg": a})
    pipeline.run_all()
    from sqlalchemy import delete, update

    from watcher.store.tables import batch_novelties, sample_novelties, vector_blocks, vectors

    with pipeline.scene.database.write() as session:
        for table in (batch_novelties, sample_novelties, vector_blocks):
            session.execute(delete(table))
        session.execute(update(vectors).values(packed=False))
    put(pipeline, {"a2.jpg": a, "b.jpg": b})
    pipeline.run_all()
    assert load_measured(pipeline, 2)["a2.jpg"].nearest == "a.jpg"


def test_thresholds_of_the_settings_decide(pipeline):
    pipeline.scene.change(novelty=NoveltyRules(near_duplicate_distance=0.0, repeat_distance=9.0))
    a, b = build_scenes(2, seed=6)
    put(pipeline, {"a.jpg": a, "b.jpg": b})
    pipeline.run_all()
    measured = load_measured(pipeline, 1)["b.jpg"]
    assert (measured.is_near_duplicate, measured.is_repeat) == (False, True)
