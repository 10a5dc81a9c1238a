"""A sampling whose job id was lost, by a crash or a time-out: its tag is waited for, and none is made twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import watcher.platform.worker
from tests.integration.daemon.conftest import TOKEN
from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.domain.errors import CancelledError, DeadlineExceededError, UnknownOutcomeError
from watcher.domain.models import BatchState, Step
from watcher.lightly import samplings
from watcher.lightly.wire.samplings import SamplingConfig, SamplingCreateRequest, StoppingCondition
from watcher.lightly.workflows import sampling
from watcher.platform import jobs
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.store import batches

__all__ = ["pipeline"]

KEY = "cams-000001"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformServer]:
    """Its jobs are carried out in this process, where a test can get at them."""
    (tmp_path / "incoming").mkdir()
    config = PlatformConfig(
        token=TOKEN, datasource_root=tmp_path, data_dir=tmp_path / "platform", port=0, isolate_jobs=False
    )
    server = PlatformServer(config)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Samplings take a while; what is put into the list comes of the first ones instead of a tag."""
    failures: list[str] = []
    compute, keep = watcher.platform.worker._KINDS[jobs.SAMPLING]

    def carry_out(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.7)
        if failures:
            raise ValueError(failures.pop())
        return compute(*args, **kwargs)

    monkeypatch.setitem(watcher.platform.worker._KINDS, jobs.SAMPLING, (carry_out, keep))
    return failures


def _lead_to_sampling(pipeline: Pipeline) -> SamplingCreateRequest:
    _put_pictures(pipeline.scene, [f"{number}.jpg" for number in range(5)])
    pipeline.poll()
    for _ in range(2):
        pipeline.run_once()
    assert pipeline.load_runs()[-1].step is Step.SAMPLING
    with pipeline.scene.database.read() as session:
        batch = batches.load_batch(session, batch_id=1)
    return SamplingCreateRequest(
        new_tag_name=batch.key,
        method="CORESET",
        config=SamplingConfig(stopping_condition=StoppingCondition(n_samples=3)),
        query_tag_id=batch.query_tag_id,
    )


def _ask(pipeline: Pipeline, request: SamplingCreateRequest) -> str:
    with pipeline.scene.database.read() as session:
        embedding_id = batches.load_batch(session, batch_id=1).embedding_id
    assert embedding_id is not None
    samplings.create_sampling(
        pipeline.scene.build_transport(),
        dataset_id=pipeline.dataset_id,
        embedding_id=embedding_id,
        request=request,
    )
    return embedding_id


@pytest.mark.scenario(number=8)
def test_sampling_that_a_killed_attempt_had_asked_for_is_waited_for(
    pipeline: Pipeline, slow: list[str]
) -> None:
    _ask(pipeline, _lead_to_sampling(pipeline))
    pipeline.run_all()
    assert pipeline.load_batch_state() is BatchState.DONE
    assert [run.attempt for run in pipeline.load_runs()] == [1, 1, 1, 1]
    assert {name: len(mask) for name, mask in pipeline.list_tags().items()} == {"initial-tag": 5, KEY: 3}


def test_sampling_whose_lost_job_fails_is_started_again(pipeline: Pipeline, slow: list[str]) -> None:
    request = _lead_to_sampling(pipeline)
    slow.append("no memory")
    _ask(pipeline, request)
    pipeline.run_all()
    assert pipeline.load_batch_state() is BatchState.DONE
    assert len(pipeline.list_tags()[KEY]) == 3


@pytest.mark.scenario(number=10)
def test_sampling_whose_answer_was_lost_is_waited_for(
    pipeline: Pipeline, slow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _lead_to_sampling(pipeline)
    real = samplings.create_sampling
    answers: list[str] = []

    def lose_first(*args: Any, **kwargs: Any) -> str:
        job_id = real(*args, **kwargs)
        answers.append(job_id)
        if len(answers) == 1:
            raise UnknownOutcomeError("timed out")
        return job_id

    monkeypatch.setattr(samplings, "create_sampling", lose_first)
    pipeline.run_all()
    assert len(answers) == 1, "a second sampling was started"
    assert set(pipeline.list_tags()) == {"initial-tag", request.new_tag_name}


def test_wait_for_a_lost_sampling_ends_at_its_deadline_and_when_cancelled(
    pipeline: Pipeline, slow: list[str]
) -> None:
    request = _lead_to_sampling(pipeline)
    embedding_id = _ask(pipeline, request)
    stopped = threading.Event()
    stopped.set()
    for cancel, deadline_s, ends in (
        (None, 0.1, DeadlineExceededError),
        (stopped, 60.0, CancelledError),
    ):
        with pytest.raises(ends):
            sampling.run_sampling(
                pipeline.scene.build_transport(),
                dataset_id=pipeline.dataset_id,
                embedding_id=embedding_id,
                request=request,
                deadline_s=deadline_s,
                cancel=cancel,
                adopt_existing=True,
                first_wait_s=0.05,
            )
