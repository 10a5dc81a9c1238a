"""One embedder a dataset: a change is refused by name, and nothing is ever mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.bootstrap_jobs import JobFactory
from watcher.domain.clock import SystemClock
from watcher.domain.errors import EmbedderChangedError
from watcher.domain.models import BatchState, RunState, Step
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.metrics import Metrics
from watcher.settings.root import load_settings
from watcher.store import embedder_pins

__all__ = ["pipeline"]


class OtherEmbedder(DescriptorEmbedder):
    """Other numbers under another name."""

    name = "other-1"


def test_embedder_that_changed_is_refused_by_name_until_it_is_set_back(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.run_all()
    pipeline.embedder = OtherEmbedder()
    _put_pictures(pipeline.scene, ["b.jpg"])
    pipeline.poll()
    pipeline.run_once()
    pipeline.run_once()
    (embed,) = [run for run in pipeline.load_runs(2) if run.step is Step.EMBED]
    assert embed.state is RunState.READY
    assert "come from the embedder descriptor-v1, but its settings lead to other-1" in str(embed.error)
    assert "watcher reembed cams" in str(embed.error)
    pipeline.embedder = DescriptorEmbedder()
    pipeline.run_all()
    assert pipeline.load_batch_state(2) is BatchState.DONE


def test_daemon_with_another_embedder_than_its_dataset_does_not_start(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    scene = pipeline.scene
    watch = scene.build_poller().watch_id
    with scene.database.write() as session:
        embedder_pins.ensure_embedder(session, watch_id=watch, embedder="onnx-0123", now_ms=1)
        assert embedder_pins.load_embedders(session) == {"cams": "onnx-0123"}

    def build(changing: str | None) -> None:
        JobFactory(
            settings=load_settings({"WATCHER_DATA_DIR": str(tmp_path)}),
            configs=[scene.config],
            database=scene.database,
            transport=scene.build_transport(),
            metrics=Metrics(),
            clock=SystemClock(),
            rng=None,
            stop=scene.stop,
        ).build_runner(changing=changing)

    with pytest.raises(
        EmbedderChangedError, match="come from the embedder onnx-0123, but its settings lead to desc"
    ):
        build(None)
    build("cams")


def test_embedder_is_chosen_once_and_replaced_on_request_only(pipeline: Pipeline) -> None:
    scene = pipeline.scene
    watch = scene.build_poller().watch_id
    with scene.database.write() as session:
        assert embedder_pins.ensure_embedder(session, watch_id=watch, embedder="a", now_ms=1) == "a"
        assert embedder_pins.ensure_embedder(session, watch_id=watch, embedder="b", now_ms=2) == "a"
        embedder_pins.replace_embedder(session, watch_id=watch, embedder="b", now_ms=3)
        assert embedder_pins.ensure_embedder(session, watch_id=watch, embedder="a", now_ms=4) == "b"
