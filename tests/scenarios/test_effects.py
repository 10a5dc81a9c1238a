"""Failures that others had with effects that are repeated, by the numbers of `docs/guarantees.md`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures
from watcher.domain.errors import UnknownOutcomeError
from watcher.domain.models import BatchState, SampleState
from watcher.lightly import samples, tags


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (samples, "create_sample_with_write_urls"),
        (tags, "create_initial_tag"),
        (tags, "upsize_tags"),
    ],
)
def test_scenario_10_request_that_was_accepted_but_timed_out_is_looked_up_and_not_repeated(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    real = getattr(module, name)
    asked: Counter[str] = Counter()

    def accept_and_time_out(transport: Any, **kwargs: Any) -> Any:
        answer = real(transport, **kwargs)
        key = str(getattr(kwargs["request"], "file_name", name))
        asked[key] += 1
        if asked[key] == 1:
            raise UnknownOutcomeError("timed out after the server had accepted it")
        return answer

    monkeypatch.setattr(module, name, accept_and_time_out)
    for names in (["a.jpg", "b.jpg"], ["c.jpg"]):
        _put_pictures(pipeline.scene, names)
        pipeline.poll()
        pipeline.run_all()
    assert set(asked.values()) == {1}, asked
    assert pipeline.states() == dict.fromkeys(["a.jpg", "b.jpg", "c.jpg"], SampleState.DONE)
    assert pipeline.list_remote() == ["a.jpg", "b.jpg", "c.jpg"]
    assert set(pipeline.list_tags()) == {"initial-tag", "cams-000001", "cams-000002-new", "cams-000002"}


def test_scenario_09_rerun_of_the_same_files_is_not_suppressed(pipeline: Pipeline) -> None:
    """Keys are of batches and not of sets of files, so the same files may go down the pipeline again."""
    from sqlalchemy import update

    from watcher.store import tables

    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.run_all()
    with pipeline.scene.database.write() as session:
        session.execute(update(tables.samples).values(state="waiting", batch_id=None, remote_id=None))
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.load_batch_state(2) is BatchState.DONE
    assert [run.step.value for run in pipeline.load_runs(2)] == ["upload", "embed", "sampling", "deliver"]
    assert pipeline.list_remote() == ["a.jpg"]


def test_scenario_12_batch_is_done_only_when_its_delivery_is(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.selected.write_text("in the way")
    for _ in range(4):
        pipeline.run_once()
    assert pipeline.states() == {"a.jpg": SampleState.PROCESSING}
    assert pipeline.load_batch_state() is BatchState.OPEN
