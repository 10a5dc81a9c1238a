"""Batches down the pipeline over a real platform: steps, crashes between effects, samples that make trouble."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update

import watcher.jobs.upload
from tests.integration.daemon.conftest import Scene
from watcher.domain.backoff import Backoff
from watcher.domain.bitmask import BitMask
from watcher.domain.clock import SystemClock
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.errors import ApiException
from watcher.domain.models import BatchRules, BatchState, Run, SampleState, SamplingRules
from watcher.domain.step_rules import UploadMode, UploadRules
from watcher.embedders.base import Embedder
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.jobs import read_urls
from watcher.jobs.context import JobParts
from watcher.jobs.deliveries import Deliverer, DeliveryLimits
from watcher.jobs.runner import Runner, RunRules
from watcher.lightly import embeddings, tags
from watcher.lightly import samples as remote_samples
from watcher.lightly.workflows.listing import ListingPage, iter_pages
from watcher.sinks.base import SinkParts
from watcher.sinks.building import build_sink
from watcher.store import batches, deliveries, picks, runs, samples, tables


@pytest.fixture
def pipeline(scene: Scene, tmp_path: Path) -> Pipeline:
    scene.change(
        batch=BatchRules(min_samples=1, max_wait_s=0, max_samples=100),
        sampling=SamplingRules(budget=3),
        upload=UploadRules(workers=3, settle_s=0, settle_attempts=1),
    )
    return Pipeline(scene, tmp_path)


class Pipeline:
    """A runner over the scene."""

    def __init__(self, scene: Scene, root: Path) -> None:
        self.scene = scene
        self.selected = root / "selected"
        self.work = root / "work"
        self.work.mkdir()
        self.embedder: Embedder = DescriptorEmbedder()

    def build_parts(self) -> JobParts:
        return JobParts(
            database=self.scene.database,
            transport=self.scene.build_transport(),
            configs={self.scene.config.name: self.scene.config},
            embedders={self.scene.config.name: self.embedder},
            work_dir=self.work,
            clock=SystemClock(),
            metrics=self.scene.metrics,
            rng=random.Random(1),
        )

    def build_deliverer(self, *, owner: str = "test") -> Deliverer:
        sink_parts = SinkParts(data_dir=self.selected.parent, work_dir=self.work, clock=SystemClock())
        return Deliverer(
            self.build_parts(),
            build_sink=partial(build_sink, parts=sink_parts),
            owner=owner,
            limits=DeliveryLimits(lease_s=10, time_limit_s=60, retry_base_s=0.001),
            stop=threading.Event(),
        )

    def build_runner(self) -> Runner:
        rules = RunRules(
            lease_s=10, time_limit_s=60, backoff=Backoff(base_s=0.001, cap_s=0.002, max_attempts=4)
        )
        return Runner(self.build_parts(), owner="test", rules=rules, stop=threading.Event())

    def poll(self) -> None:
        self.scene.build_poller().run_cycle()

    def run_all(self, *, limit: int = 60) -> None:
        """Runs until nothing is ready any more, waits of the backoff included."""
        runner, deliverer = self.build_runner(), self.build_deliverer()
        n_idle = 0
        for _ in range(limit):
            ran = runner.run_next(beat=lambda: None) or deliverer.run_next(beat=lambda: None)
            n_idle = 0 if ran else n_idle + 1
            if n_idle > 2:
                return
            time.sleep(0.003 if n_idle else 0)
        raise AssertionError("the pipeline does not come to rest")

    def run_once(self) -> None:
        assert self.build_runner().run_next(beat=lambda: None)

    def deliver_once(self) -> bool:
        return self.build_deliverer().run_next(beat=lambda: None)

    def load_deliveries(self, batch_id: int = 1) -> dict[str, Delivery]:
        with self.scene.database.read() as session:
            made = deliveries.load_deliveries(session, batch_id=batch_id)
        return {delivery.sink: delivery for delivery in made}

    def load_runs(self, batch_id: int = 1) -> list[Run]:
        with self.scene.database.read() as session:
            return runs.load_batch_runs(session, batch_id=batch_id)

    def load_batch_state(self, batch_id: int = 1) -> BatchState:
        with self.scene.database.read() as session:
            return batches.load_batch(session, batch_id=batch_id).state

    def list_remote(self) -> list[str]:
        found = remote_samples.fetch_samples(self.scene.build_transport(), dataset_id=self.dataset_id)
        return sorted(str(sample.file_name) for sample in found)

    def list_tags(self) -> dict[str, BitMask]:
        found = tags.fetch_tags(self.scene.build_transport(), dataset_id=self.dataset_id)
        return {tag.name: BitMask.from_hex(tag.bit_mask_data) for tag in found}

    @property
    def dataset_id(self) -> str:
        return self.scene.load_watch().dataset_id

    def states(self) -> dict[str, SampleState]:
        return {name: sample.state for name, sample in self.scene.load_ledger().items()}


def _put_pictures(scene: Scene, names: list[str]) -> None:
    for number, name in enumerate(names):
        rng = np.random.default_rng(sum(name.encode()) + number)
        small = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((160, 128), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        scene.put(name, buffer.getvalue(), modified_s=time.time() - 60)


def test_two_batches_are_registered_embedded_picked_and_delivered(pipeline: Pipeline) -> None:
    first = [f"a{number}.jpg" for number in range(6)]
    _put_pictures(pipeline.scene, first)
    pipeline.poll()
    pipeline.run_all()
    second = ["b c+%.jpg", "ü.jpg", "b3.jpg", "b4.jpg"]
    _put_pictures(pipeline.scene, second)
    pipeline.poll()
    pipeline.run_all()
    assert set(pipeline.states().values()) == {SampleState.DONE}
    assert pipeline.list_remote() == sorted(first + second)
    masks = pipeline.list_tags()
    assert {name: len(mask) for name, mask in masks.items()} == {
        "initial-tag": 10,
        "cams-000001": 3,
        "cams-000002-new": 4,
        "cams-000002": 6,
    }
    assert not masks["cams-000001"] - masks["cams-000002"], "earlier picks are part of the next tag"
    lines = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(pipeline.selected.iterdir())
    }
    assert [line["rank"] for line in lines["cams-000001"]] == [1, 2, 3]
    assert {line["file_name"] for line in lines["cams-000001"]} <= set(first)
    assert {line["file_name"] for line in lines["cams-000002"]} <= set(second)
    assert len(lines["cams-000002"]) == 3
    names = [
        e.name
        for e in embeddings.fetch_embeddings(pipeline.scene.build_transport(), dataset_id=pipeline.dataset_id)
    ]
    assert sorted(names) == ["cams-000001", "cams-000002"]


def test_only_the_newest_embeddings_are_kept_on_the_server(pipeline: Pipeline) -> None:
    for number in range(4):
        _put_pictures(pipeline.scene, [f"{number}-{n}.jpg" for n in range(3)])
        pipeline.poll()
        pipeline.run_all()
    found = embeddings.fetch_embeddings(pipeline.scene.build_transport(), dataset_id=pipeline.dataset_id)
    assert sorted(e.name for e in found) == ["cams-000003", "cams-000004"]


@pytest.mark.parametrize("mode", list(UploadMode))
def test_upload_mode_decides_what_the_server_has(pipeline: Pipeline, mode: UploadMode) -> None:
    pipeline.scene.change(upload=UploadRules(mode=mode, workers=2))
    _put_pictures(pipeline.scene, ["a.jpg", "b.jpg"])
    pipeline.poll()
    pipeline.run_all()
    transport = pipeline.scene.build_transport()
    sample = remote_samples.fetch_sample_by_file_name(
        transport, dataset_id=pipeline.dataset_id, file_name="a.jpg"
    )
    assert sample is not None
    assert sample.meta_data is not None
    assert sample.meta_data.shape == [128, 160, 3]
    assert bool(sample.thumb_name) == (mode is not UploadMode.METADATA)
    url = remote_samples.fetch_read_url(
        transport, dataset_id=pipeline.dataset_id, sample_id=sample.id, kind="full"
    )
    body = transport.read_url_bytes(url, max_bytes=10**7).body
    assert body == (pipeline.scene.folder / "a.jpg").read_bytes()


@pytest.mark.scenario(number=23)
def test_sample_whose_read_url_expired_gets_a_fresh_one(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg", "b.jpg"])
    pipeline.poll()
    ledger = pipeline.scene.load_ledger()
    url = ledger["a.jpg"].read_url
    with pipeline.scene.database.write() as session:
        samples.refresh_unfinished(
            session, watch_id=ledger["a.jpg"].watch_id, rows=[("a.jpg", url.replace("e=1", "e=0"))]
        )
    pipeline.run_all()
    assert pipeline.states() == dict.fromkeys(["a.jpg", "b.jpg"], SampleState.DONE)


def test_listing_for_fresh_urls_whose_cursor_expired_is_begun_anew_and_no_run_given_up(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    ledger = pipeline.scene.load_ledger()
    expired = [("a.jpg", ledger["a.jpg"].read_url.replace("e=1", "e=0"))]
    with pipeline.scene.database.write() as session:
        samples.refresh_unfinished(session, watch_id=ledger["a.jpg"].watch_id, rows=expired)
    n_listings = [0]

    def list_pages(*args: Any, **options: Any) -> Iterator[ListingPage]:
        n_listings[0] += 1
        if n_listings[0] == 1:
            yield ListingPage(rows=[], cursor_next="c")
            raise ApiException(400, "Bad Request", code="WHATEVER_A_SERVER_CALLS_IT")
        yield from iter_pages(*args, **options)

    monkeypatch.setattr(read_urls, "iter_pages", list_pages)
    pipeline.run_all()
    assert n_listings[0] == 2
    assert pipeline.states() == {"a.jpg": SampleState.DONE}


@pytest.mark.scenario(number=27)
def test_object_that_vanished_is_gone_and_holds_nothing_up(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg", "b.jpg"])
    pipeline.poll()
    ledger = pipeline.scene.load_ledger()
    (pipeline.scene.folder / "a.jpg").unlink()
    pipeline.run_all()
    with pipeline.scene.database.read() as session:
        gone = samples.load_sample_by_id(session, sample_id=ledger["a.jpg"].id)
    assert gone is not None
    assert gone.state is SampleState.GONE
    assert pipeline.states() == {"b.jpg": SampleState.DONE}


@pytest.mark.scenario(number=28)
def test_truncated_file_waits_and_is_done_once_it_is_whole(pipeline: Pipeline) -> None:
    pipeline.scene.change(upload=UploadRules(settle_s=3600, settle_attempts=1))
    _put_pictures(pipeline.scene, ["whole.jpg", "half.jpg"])
    path = pipeline.scene.folder / "half.jpg"
    body = path.read_bytes()
    pipeline.scene.put("half.jpg", body[: len(body) // 2], modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"whole.jpg": SampleState.DONE, "half.jpg": SampleState.WAITING}
    path.write_bytes(body)
    with pipeline.scene.database.write() as session:
        session.execute(update(tables.samples).values(available_ms=0))  # the hour passes
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == dict.fromkeys(["whole.jpg", "half.jpg"], SampleState.DONE)


@pytest.mark.scenario(number=28)
def test_truncated_file_that_stays_so_is_quarantined_after_its_attempts(pipeline: Pipeline) -> None:
    pipeline.scene.put("half.jpg", _jpeg()[:900], modified_s=time.time() - 60)
    for _ in range(3):
        pipeline.poll()
        pipeline.run_all()
    assert pipeline.states() == {"half.jpg": SampleState.QUARANTINED}
    assert pipeline.list_remote() == []


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def test_batch_without_one_good_sample_ends_without_a_tag(pipeline: Pipeline) -> None:
    pipeline.scene.put("no.jpg", b"no picture", modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.load_batch_state() is BatchState.DONE
    assert pipeline.list_tags() == {}
    assert [run.step.value for run in pipeline.load_runs()] == ["upload"]


def test_manifest_that_cannot_be_written_is_retried(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.selected.write_text("a file lies in the way of the folder")
    for _ in range(4):
        pipeline.run_once()
    assert pipeline.deliver_once()
    delivery = pipeline.load_deliveries()["manifest"]
    assert (delivery.state, delivery.attempt) == (DeliveryState.READY, 1)
    assert "cannot be written" in (delivery.error or "")
    pipeline.selected.unlink()
    pipeline.run_all()
    delivery = pipeline.load_deliveries()["manifest"]
    assert (delivery.state, delivery.error) == (DeliveryState.DONE, None)
    assert delivery.location == str(pipeline.selected / "cams-000001.jsonl")
    assert len(pipeline.selected.joinpath("cams-000001.jsonl").read_text().splitlines()) == 1


def test_attempts_are_capped_and_a_dead_batch_makes_room_for_the_next(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise watcher.jobs.upload.ReadUrlRefusedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(watcher.jobs.upload, "ensure_initial_or_upsize_tag", fail)
        pipeline.run_all()
    assert pipeline.load_batch_state() is BatchState.DEAD
    assert pipeline.load_runs()[0].attempt == 4
    _put_pictures(pipeline.scene, ["b.jpg"])
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.states() == {"a.jpg": SampleState.PROCESSING, "b.jpg": SampleState.DONE}


def test_picks_are_ranked_and_carry_their_reason(pipeline: Pipeline) -> None:
    _put_pictures(pipeline.scene, [f"{number}.jpg" for number in range(8)])
    pipeline.poll()
    pipeline.run_all()
    with pipeline.scene.database.read() as session:
        found = picks.load_picks(session, batch_id=1)
    assert [pick.rank for pick in found] == [1, 2, 3]
    distances = [pick.reason.get("distance_to_nearest_earlier_pick") for pick in found]
    assert distances[0] is None
    assert distances[1] >= distances[2] > 0


def test_batch_in_shards_is_tagged_and_embedded_once_with_every_sample(pipeline: Pipeline) -> None:
    pipeline.scene.change(batch=BatchRules(min_samples=1, max_wait_s=0, max_samples=100, shard_samples=2))
    _put_pictures(pipeline.scene, [f"{n}.jpg" for n in range(5)])
    pipeline.scene.put("broken.jpg", b"no picture", modified_s=time.time() - 60)
    pipeline.poll()
    pipeline.run_all()
    made = [(run.step.value, run.shard) for run in pipeline.load_runs()]
    assert [run for run in made if run[0] == "upload"] == [("upload", shard) for shard in (1, 2, 3, 0)]
    assert [run for run in made if run[0] == "embed"] == [("embed", shard) for shard in (1, 2, 3, 0)]
    states = pipeline.states()
    assert states.pop("broken.jpg") is SampleState.QUARANTINED
    assert set(states.values()) == {SampleState.DONE}
    assert {name: len(mask) for name, mask in pipeline.list_tags().items()} == {
        "initial-tag": 5,
        "cams-000001": 3,
    }
    transport = pipeline.scene.build_transport()
    (embedding,) = embeddings.fetch_embeddings(transport, dataset_id=pipeline.dataset_id)
    assert embedding.name == "cams-000001"
