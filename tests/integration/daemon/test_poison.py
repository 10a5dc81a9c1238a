"""Pictures of which the process dies: found, set aside, and no other blamed or held."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import update

import watcher.jobs.upload
from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.domain.models import BatchRules, BatchState, SampleState, Step
from watcher.store import samples
from watcher.store.tables import runs

__all__ = ["pipeline"]

NAMES = [f"{number}.jpg" for number in range(6)]
POISON = "3.jpg"


class KilledError(BaseException):
    """The process ends here, so to say: nothing that is written behind it happens."""


def run_until_rest(pipeline: Pipeline, *, limit: int, deaths: list[None] | None = None) -> int:
    """Starts a new process whenever one was killed; tells how often."""
    deaths = [] if deaths is None else deaths
    for _ in range(limit):
        try:
            pipeline.run_all()
        except KilledError:
            deaths.append(None)
            with pipeline.scene.database.write() as session:
                session.execute(update(runs).values(lease_until_ms=0))
        else:
            return len(deaths)
    raise AssertionError("the process is killed for ever")


def is_poison(pipeline: Pipeline, body: bytes) -> bool:
    return (
        hashlib.sha256(body).digest()
        == hashlib.sha256((pipeline.scene.folder / POISON).read_bytes()).digest()
    )


@pytest.mark.parametrize("shard_samples", [2, 250])
def test_picture_that_kills_the_process_at_the_upload_is_set_aside_and_no_other(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, shard_samples: int
) -> None:
    rules = BatchRules(min_samples=1, max_wait_s=0, max_samples=100, shard_samples=shard_samples)
    pipeline.scene.change(batch=rules)
    _put_pictures(pipeline.scene, NAMES)
    read_image = watcher.jobs.upload.read_image

    def die_of_it(body: bytes, **options: Any) -> Any:
        if is_poison(pipeline, body):
            raise KilledError
        return read_image(body, **options)

    monkeypatch.setattr(watcher.jobs.upload, "read_image", die_of_it)
    pipeline.poll()
    assert run_until_rest(pipeline, limit=14) == 10
    ledger = pipeline.scene.load_ledger()
    suspect = ledger.pop(POISON)
    assert suspect.state is SampleState.QUARANTINED
    assert "the process died 5 times while it decoded this sample alone" in str(suspect.reason)
    assert {row.state for row in ledger.values()} == {SampleState.DONE}
    assert {row.reason for row in ledger.values()} == {None}
    assert pipeline.load_batch_state() is BatchState.DONE
    assert pipeline.list_remote() == sorted(set(NAMES) - {POISON})


def test_picture_that_kills_the_process_at_the_embedding_gets_the_vector_of_its_thumbnail(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, NAMES)
    prepare = pipeline.embedder.prepare

    def die_of_it(body: bytes) -> Any:
        if is_poison(pipeline, body):
            raise KilledError
        return prepare(body)

    monkeypatch.setattr(pipeline.embedder, "prepare", die_of_it)
    pipeline.poll()
    pipeline.run_once()
    kept = pipeline.scene.load_ledger()["1.jpg"]
    with pipeline.scene.database.write() as session:
        samples.record_reason(session, sample_id=kept.id, reason="no metadata, so to say", now_ms=1)
    assert run_until_rest(pipeline, limit=14) == 10
    ledger = pipeline.scene.load_ledger()
    assert ledger[POISON].state is SampleState.DONE
    assert "the process died 5 times" in str(ledger[POISON].reason)
    assert {row.reason for name, row in ledger.items() if name not in {POISON, "1.jpg"}} == {None}
    assert ledger["1.jpg"].reason == "no metadata, so to say"
    assert pipeline.load_batch_state() is BatchState.DONE
    (embed,) = [run for run in pipeline.load_runs() if run.step is Step.EMBED]
    assert embed.result["n_rows"] == len(NAMES)


def test_process_that_is_killed_for_another_reason_has_no_sample_blamed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, NAMES)
    read_image = watcher.jobs.upload.read_image
    deaths: list[None] = []

    def die_at_first(body: bytes, **options: Any) -> Any:
        if len(deaths) < 9:
            raise KilledError
        return read_image(body, **options)

    monkeypatch.setattr(watcher.jobs.upload, "read_image", die_at_first)
    pipeline.poll()
    assert run_until_rest(pipeline, limit=14, deaths=deaths) == 9
    assert {(row.state, row.reason) for row in pipeline.scene.load_ledger().values()} == {
        (SampleState.DONE, None)
    }
