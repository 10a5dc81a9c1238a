"""Failures that others had with effects that are repeated, by the numbers of `docs/guarantees.md`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures
from tests.receivers import Answer, open_receiver
from tests.waiting import wait_for
from watcher.domain.delivery import DeliverRules, DeliveryState, ManifestRules, SinkConfig, WebhookRules
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


def test_scenario_12_delivery_is_done_with_the_receivers_word_alone(pipeline: Pipeline) -> None:
    """The batch ends with the promise, which is kept in a row; only what lies there ends the delivery."""
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.selected.write_text("in the way")
    for _ in range(4):
        pipeline.run_once()
    assert pipeline.load_batch_state() is BatchState.DONE
    for attempt in (1, 2):
        wait_for(pipeline.deliver_once)
        delivery = pipeline.load_deliveries()["manifest"]
        assert (delivery.state, delivery.attempt) == (DeliveryState.READY, attempt)
        assert delivery.location is None
    pipeline.selected.unlink()
    pipeline.run_all()
    delivery = pipeline.load_deliveries()["manifest"]
    assert delivery.state is DeliveryState.DONE
    assert Path(str(delivery.location)).read_text(encoding="utf-8").count("\n") == 1


def test_scenario_42_webhook_fired_while_its_receiver_is_deployed_arrives_later_once(
    pipeline: Pipeline, free_port: int
) -> None:
    """The receiver is away, then fails, then loses its answer; two more batches are done meanwhile."""
    url = f"http://127.0.0.1:{free_port}/hook"
    sinks = (
        SinkConfig(name="hook", rules=WebhookRules(url=url, secret="a-secret-of-16-bytes", timeout_s=5)),
        SinkConfig(name="manifest", rules=ManifestRules()),
    )
    pipeline.scene.change(deliver=DeliverRules(sinks=sinks, retry_cap_s=0.01))
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for number, name in enumerate(names, 1):
        _put_pictures(pipeline.scene, [name])
        pipeline.poll()
        for _ in range(4):
            pipeline.run_once()
        assert pipeline.load_batch_state(number) is BatchState.DONE
        wait_for(lambda number=number: pipeline.deliver_once() and _has_failed(pipeline, number))
        wait_for(
            lambda number=number: (
                pipeline.load_deliveries(number)["manifest"].state is DeliveryState.DONE
                or not pipeline.deliver_once()
            )
        )
    with open_receiver(free_port) as receiver:
        receiver.answers = [Answer(503), Answer(404)]
        wait_for(lambda: not pipeline.deliver_once() and _are_done(pipeline, len(names)))
    confirmed = receiver.got[2:]
    by_id = {got.headers["webhook-id"]: got.json["picks"] for got in confirmed}
    assert len(by_id) == len(confirmed) == len(names), "each once"
    assert {got.headers["webhook-id"] for got in receiver.got} == by_id.keys(), "repeated with the same id"
    assert sorted(pick["file_name"] for picks in by_id.values() for pick in picks) == names


def _has_failed(pipeline: Pipeline, batch_id: int) -> bool:
    delivery = pipeline.load_deliveries(batch_id)["hook"]
    return delivery.state is DeliveryState.READY and "could not connect" in (delivery.error or "")


def _are_done(pipeline: Pipeline, n_batches: int) -> bool:
    return all(
        delivery.state is DeliveryState.DONE
        for number in range(1, n_batches + 1)
        for delivery in pipeline.load_deliveries(number).values()
    )
