"""The index beside the data answers as the store would, and is made anew whenever it does not fit it."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest

import watcher.jobs.neighbour_search as step
from tests.builders import NOW_MS, ManualClock, add_batch, add_watch, build_config, claim, open_store
from watcher.domain.sampling_rules import NoveltyRules
from watcher.jobs.context import JobParts, RunContext
from watcher.jobs.neighbour_search import find_nearest
from watcher.neighbours.index import NeighbourIndex, is_available
from watcher.store import neighbours, vectors

pytestmark = pytest.mark.skipif(not is_available(), reason="usearch is not installed: pip install usearch")

DIM = 32


class Kind:
    """An embedder of which only name and length are asked."""

    name = "test-v1"
    dim = DIM


def make(n: int, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((20, DIM))
    rows = centres[rng.integers(0, 20, n)] + 0.3 * rng.standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Known:
    """A store with packed vectors, and a run that searches it."""

    def __init__(self, database, folder: Path, *, exact_up_to: int = 100) -> None:
        self.database = database
        self.watch = add_watch(database)
        batch = add_batch(database, self.watch, ["a"])
        parts = JobParts(
            database=database,
            transport=None,
            configs={},
            embedders={self.watch.name: Kind()},
            work_dir=folder,
            clock=ManualClock(),
            metrics=None,
            rng=random.Random(1),
            index_dir=folder / "neighbours",
        )
        config = build_config(novelty=NoveltyRules(exact_up_to=exact_up_to))
        self.context = RunContext(
            parts=parts,
            config=config,
            watch=self.watch,
            batch=batch,
            run=claim(database, now_ms=NOW_MS),
            stop=threading.Event(),
            deadline_s=1e12,
            beat=lambda: None,
        )
        self.all = np.empty((0, DIM), dtype=np.float32)

    def add(self, n: int, *, seed: int) -> None:
        added = make(n, seed=seed)
        rows = [(f"{len(self.all) + number:05d}.jpg", vector) for number, vector in enumerate(added)]
        with self.database.write() as session:
            vectors.record_vectors(session, watch_id=self.watch.id, embedder=Kind.name, rows=rows)
            neighbours.pack_vectors(session, watch_id=self.watch.id, embedder=Kind.name, dim=DIM, rows=rows)
        self.all = np.concatenate([self.all, added])

    def search(self, queries: np.ndarray, *, packed=frozenset(), names=None):
        names = names or [f"new-{number}" for number in range(len(queries))]
        return find_nearest(self.context, names, queries, set(packed))

    def check(self, *, seed: int = 99) -> None:
        queries = make(50, seed=seed)
        distances, names = self.search(queries)
        both = np.concatenate([self.all, queries])
        right = 0
        for number in range(50):
            known = both[: len(self.all) + number]
            gaps = np.linalg.norm(known.astype(np.float64) - queries[number], axis=1)
            told = names[number]
            place = int(told[:5]) if told[0].isdigit() else len(self.all) + int(told[4:])
            assert distances[number] == pytest.approx(gaps[place])
            right += place == gaps.argmin()
        assert right >= 48

    @property
    def index(self) -> NeighbourIndex:
        (file,) = (self.context.parts.index_dir).glob("*.usearch")
        return NeighbourIndex(file.with_suffix(""), dim=DIM)


@pytest.fixture
def known(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'store.sqlite'}") as database:
        yield Known(database, tmp_path)


def test_below_the_limit_there_is_no_index(known):
    known.add(100, seed=1)
    known.check()
    assert not known.context.parts.index_dir.exists()


def test_index_and_the_rows_after_it_answer_together(known):
    known.add(3000, seed=1)
    known.check()
    assert known.index.read_head().n_rows == 3000
    known.add(700, seed=2)
    known.check(seed=98)
    assert known.index.read_head().n_rows == 3000, "few rows came after it: it stays"


def test_index_grows_when_many_rows_came_after_it(known, monkeypatch):
    monkeypatch.setattr(step, "_MOST_UNINDEXED", 100)
    known.add(500, seed=1)
    known.check()
    known.add(300, seed=2)
    known.check(seed=98)
    assert known.index.read_head().n_rows == 800


@pytest.mark.parametrize("harm", ["head lost", "file lost", "head broken", "other store", "other length"])
def test_index_that_does_not_fit_is_made_anew(known, harm):
    known.add(500, seed=1)
    known.check()
    folder = known.context.parts.index_dir
    (head,), (file,) = folder.glob("*.json"), folder.glob("*.usearch")
    if harm == "head lost":
        head.unlink()
    elif harm == "file lost":
        file.unlink()
    elif harm == "head broken":
        head.write_text("{")
    elif harm == "other store":
        head.write_text(head.read_text().replace('"fingerprint":"', '"fingerprint":"f'))
        known.index.write([(0, make(500, seed=7))], fingerprint="another", n_rows=500, keep=False)
    else:
        head.write_text(head.read_text().replace('"dim":32', '"dim":33'))
    known.check(seed=98)
    assert known.index.read_head().n_rows == 500
    assert len(list(folder.iterdir())) == 2


def test_query_that_is_known_itself_is_not_its_own_neighbour(known):
    known.add(500, seed=1)
    names = [f"{number:05d}.jpg" for number in (3, 400)]
    distances, nearest = known.search(known.all[[3, 400]], packed=names, names=names)
    for number, row in enumerate((3, 400)):
        gaps = np.linalg.norm(known.all.astype(np.float64) - known.all[row], axis=1)
        gaps[row] = np.inf
        assert nearest[number] == f"{gaps.argmin():05d}.jpg"
        assert distances[number] == pytest.approx(gaps.min())


def test_index_of_an_earlier_embedder_is_removed(known):
    known.add(500, seed=1)
    folder = known.context.parts.index_dir
    folder.mkdir()
    (folder / f"{known.watch.id}-0123456789ab.usearch").write_bytes(b"old")
    (folder / "99-0123456789ab.usearch").write_bytes(b"of another watch")
    known.check()
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {str(known.watch.id), "99"}
    assert len(list(folder.glob(f"{known.watch.id}-*"))) == 2


def test_without_the_package_everything_is_compared(known, monkeypatch):
    monkeypatch.setattr(step, "is_available", lambda: False)
    known.add(500, seed=1)
    known.check()
    assert not known.context.parts.index_dir.exists()
