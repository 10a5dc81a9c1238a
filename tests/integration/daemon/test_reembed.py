"""`watcher reembed`: all vectors anew, resumable; the dataset keeps its embedder until the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import watcher.jobs.reembed
from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.domain.clock import SystemClock
from watcher.domain.errors import CancelledError, EmbedderUnavailableError
from watcher.domain.listing_facts import ListingFacts, TimeUnit
from watcher.domain.models import BatchState
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.jobs.reembed import Reembedding
from watcher.jobs.room import Room
from watcher.lightly import embeddings
from watcher.lightly import samples as remote_samples
from watcher.lightly.wire.samples import SampleCreateRequest
from watcher.lightly.workflows.listing import iter_pages
from watcher.store import control, embedder_pins, lacks, samples, vectors, watches

__all__ = ["pipeline"]


class Pairs:
    """Two numbers a picture; may fail after some, and sees nothing in the first ones."""

    name = "pairs-1"
    dim = 2
    batch_size = 2

    def __init__(self, *, fails_after: int = 10**9, blind: int = 0) -> None:
        self.left = fails_after
        self.blind = blind
        self.n = 0

    def prepare(self, content: bytes) -> int:
        return len(content)

    def embed_prepared(self, prepared: Any) -> Any:
        if self.left <= 0:
            raise EmbedderUnavailableError("no more")
        self.left -= len(prepared)
        self.n += len(prepared)
        found = np.asarray([[size, 1] for size in prepared], dtype=np.float32)
        n_blind = min(self.blind, len(found))
        self.blind -= n_blind
        found[:n_blind] = 0
        return found


@pytest.fixture
def build(pipeline: Pipeline) -> Callable[..., Reembedding]:
    def make(embedder: Any, stop: threading.Event | None = None) -> Reembedding:
        scene = pipeline.scene
        return Reembedding(
            database=scene.database,
            transport=scene.build_transport(),
            config=scene.config,
            watch_id=1,
            embedder=embedder,
            file_room=Room(10**8),
            pixel_room=Room(10**8),
            work_dir=pipeline.work,
            clock=SystemClock(),
            stop=stop or threading.Event(),
            actor="me",
            say=lambda _n: None,
        )

    return make


def stored(pipeline: Pipeline, embedder: str, names: list[str]) -> list[str]:
    with pipeline.scene.database.read() as session:
        return sorted(vectors.load_vectors(session, watch_id=1, embedder=embedder, file_names=names))


def chosen(pipeline: Pipeline) -> str:
    with pipeline.scene.database.read() as session:
        return embedder_pins.load_embedders(session)["cams"]


def test_reembedding_that_broke_off_goes_on_where_it_was_and_changes_nothing_before_its_end(
    pipeline: Pipeline, build: Callable[..., Reembedding], tmp_path: Path
) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    _put_pictures(pipeline.scene, names)
    pipeline.poll()
    pipeline.run_all()
    # One is no longer listed, and one belongs to somebody else.
    (pipeline.scene.folder / names[0]).unlink()
    transport = pipeline.scene.build_transport()
    request = SampleCreateRequest(file_name="somebody else's.jpg")
    remote_samples.create_sample(transport, dataset_id=pipeline.dataset_id, request=request)

    with pytest.raises(EmbedderUnavailableError):
        # The vectors of a chunk are kept together: four are listed, so nothing of a chunk that failed is.
        build(Pairs(fails_after=2)).run()
    assert chosen(pipeline) == "descriptor-v1"
    assert stored(pipeline, "descriptor-v1", names) == names

    embedder = Pairs()
    report = build(embedder).run()
    assert (report.embedder, report.n_rows) == ("pairs-1", 6)
    assert chosen(pipeline) == "pairs-1"
    assert stored(pipeline, "pairs-1", names) == names
    assert stored(pipeline, "descriptor-v1", names) == []
    found = embeddings.fetch_embedding_by_name(transport, dataset_id=pipeline.dataset_id, name="cams-pairs-1")
    assert found is not None
    assert found.is_processed

    again = Pairs()
    assert build(again).run().n_computed == 0
    assert again.n == 0

    watch = pipeline.scene.load_watch()
    with pipeline.scene.database.read() as session:
        log = [(entry.verb, entry.facts) for entry in control.load_audit_log(session, watch=watch, limit=10)]
    assert ("reembed", {"from": "descriptor-v1", "to": "pairs-1"}) in log
    assert ("reembedded", {"to": "pairs-1"}) in log

    pipeline.embedder = Pairs()
    _put_pictures(pipeline.scene, ["new.jpg"])
    pipeline.poll()
    pipeline.run_all()
    assert pipeline.load_batch_state(2) is BatchState.DONE


def test_reembedding_lists_in_the_units_of_the_server(
    pipeline: Pipeline, build: Callable[..., Reembedding], monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.run_all()
    with pipeline.scene.database.write() as session:
        facts = ListingFacts(unit=TimeUnit.MILLISECONDS)
        watches.record_probe(session, watch_id=1, facts=facts, now_ms=1)
    asked: list[tuple[int, int]] = []

    def list_in_seconds(transport: Any, *, from_s: int, to_s: int, **named: Any) -> Any:
        asked.append((from_s, to_s))
        return iter_pages(transport, from_s=from_s // 1000, to_s=to_s // 1000, **named)

    monkeypatch.setattr(watcher.jobs.reembed, "iter_pages", list_in_seconds)
    build(Pairs()).run()
    ((first, last),) = asked
    assert first == 0
    assert last > 1000 * time.time()


def test_pictures_that_were_refused_get_their_vectors_by_the_same_embedder(
    pipeline: Pipeline, build: Callable[..., Reembedding]
) -> None:
    names = [f"{number}.jpg" for number in range(3)]
    pipeline.embedder = Pairs(blind=1)
    _put_pictures(pipeline.scene, names)
    pipeline.poll()
    pipeline.run_all()

    def load() -> tuple[int, int]:
        """(Usable vectors, samples that lack one.)"""
        with pipeline.scene.database.read() as session:
            found = vectors.load_vectors(session, watch_id=1, embedder="pairs-1", file_names=names)
            rows = samples.load_samples_named(session, watch_id=1, file_names=names)
            lacking = [row for row in rows.values() if lacks.load_lacks(session, sample_id=row.id)]
        return sum(vector.any() for vector in found.values()), len(lacking)

    assert load() == (2, 1)
    mended = Pairs()
    report = build(mended).run()
    assert (report.n_computed, report.n_rows, mended.n) == (1, 3, 1)
    assert load() == (3, 0)
    assert chosen(pipeline) == "pairs-1"


def test_reembedding_that_is_asked_to_stop_does(
    pipeline: Pipeline, build: Callable[..., Reembedding]
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.run_all()
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError, match="run it again"):
        build(Pairs(), stop).run()
    assert chosen(pipeline) == "descriptor-v1"


def test_batch_with_an_embedder_of_another_dimension_is_refused_before_it_computes(
    pipeline: Pipeline,
) -> None:
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.run_all()
    pipeline.embedder = DescriptorEmbedder()
    assert chosen(pipeline) == "descriptor-v1"
    other = Pairs()
    pipeline.embedder = other
    _put_pictures(pipeline.scene, ["b.jpg"])
    pipeline.poll()
    pipeline.run_once()
    pipeline.run_once()
    assert other.n == 0
