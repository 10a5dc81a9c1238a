"""What an attempt that ended early left behind is found, and neither made twice nor left lying about."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

import watcher.jobs.upload
from tests.integration.daemon.conftest import Scene
from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.domain.errors import CancelledError, TransportError
from watcher.domain.models import BatchState, RunState, SampleState
from watcher.lightly import datasets, samples
from watcher.lightly.wire.samples import SampleCreateRequest
from watcher.ops.changes import Wanted, make_change

__all__ = ["pipeline"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the server was asked to register each name; this platform alone would not mind."""
    counts: Counter[str] = Counter()
    real = samples.create_sample_with_write_urls

    def count(transport: Any, *, dataset_id: str, request: SampleCreateRequest) -> Any:
        counts[request.file_name] += 1
        return real(transport, dataset_id=dataset_id, request=request)

    monkeypatch.setattr(samples, "create_sample_with_write_urls", count)
    return counts


def _fail_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = watcher.jobs.upload.put_sample_file
    failed: list[int] = []

    def put(*args: Any, **kwargs: Any) -> None:
        if not failed:
            failed.append(1)
            raise error
        real(*args, **kwargs)

    monkeypatch.setattr(watcher.jobs.upload, "put_sample_file", put)


def test_sample_registered_before_a_shutdown_is_looked_up_afterwards(
    pipeline: Pipeline, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    _fail_once(monkeypatch, CancelledError("interrupted by a shutdown"))
    pipeline.run_once()
    assert [(run.state, run.attempt) for run in pipeline.load_runs()] == [(RunState.READY, 0)]
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.DONE}
    assert asked == {"a.jpg": 1}


def test_sample_registered_before_a_replay_is_looked_up_afterwards(
    pipeline: Pipeline, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    with monkeypatch.context() as patch:

        def refuse(*_args: Any, **_kwargs: Any) -> None:
            raise TransportError("cut")

        patch.setattr(watcher.jobs.upload, "put_sample_file", refuse)
        pipeline.run_all()
    assert pipeline.load_batch_state() is BatchState.DEAD
    n_before = asked["a.jpg"]
    replay(pipeline.scene)
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.DONE}
    assert asked["a.jpg"] == n_before == 1


def replay(scene: Scene) -> None:
    make_change(
        scene.database,
        watch=scene.config.name,
        verb="replay",
        wanted=Wanted(),
        actor="tester",
        now_ms=int(time.time() * 1000),
    )


def test_pick_that_only_somebody_else_registered_is_delivered(pipeline: Pipeline) -> None:
    """Its own batch, which will find it registered, comes later."""
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    transport = pipeline.scene.build_transport()
    (dataset,) = datasets.fetch_datasets(transport)
    samples.create_sample(transport, dataset_id=dataset.id, request=SampleCreateRequest(file_name="b.jpg"))
    _put_pictures(pipeline.scene, ["b.jpg"])
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == dict.fromkeys(["a.jpg", "b.jpg"], SampleState.DONE)
    assert {pipeline.load_batch_state(1), pipeline.load_batch_state(2)} == {BatchState.DONE}
