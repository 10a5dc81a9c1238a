"""Vectors in the plane."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

from watcher.domain.errors import CancelledError
from watcher.platform import projections
from watcher.platform.projections import project


def build_clusters(n: int, *, n_clusters: int = 4, d: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_clusters, n)
    centres = rng.normal(size=(n_clusters, d)) * 6
    return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


def compute_purity(placed: np.ndarray, labels: np.ndarray) -> float:
    """Share of the points whose nearest other point is of their own cluster."""
    squared = ((placed[:, None] - placed[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    return float((labels[squared.argmin(axis=1)] == labels).mean())


def test_pca_agrees_with_scikit_learn_over_several_blocks():
    vectors, _ = build_clusters(20_000)
    placed = project("PCA", vectors, 0)
    expected = PCA(2).fit_transform(vectors.astype(np.float64))
    for axis in range(2):
        assert abs(np.corrcoef(placed[:, axis], expected[:, axis])[0, 1]) > 0.99999
    spread = np.ptp(placed, axis=0)
    assert spread.max() == pytest.approx(2.0, abs=1e-5)
    assert spread[0] / spread[1] == pytest.approx(np.ptp(expected[:, 0]) / np.ptp(expected[:, 1]), rel=1e-4)


def test_pca_reads_a_memory_map(tmp_path):
    vectors, _ = build_clusters(500)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert np.array_equal(project("PCA", mapped, 0), project("PCA", vectors, 0))


def test_tsne_keeps_clusters_apart_and_repeats_by_seed():
    vectors, labels = build_clusters(300, d=80)
    placed = project("TSNE", vectors, 3)
    assert compute_purity(placed, labels) > 0.98
    assert np.array_equal(placed, project("TSNE", vectors, 3))


def test_tsne_keeps_the_neighbours_of_digits_as_well_as_scikit_learn():
    vectors = load_digits().data[:300].astype(np.float32)
    expected = TSNE(2, perplexity=30, init="pca", random_state=0).fit_transform(vectors)
    assert trustworthiness(vectors, project("TSNE", vectors, 0)) > trustworthiness(vectors, expected) - 0.003


def test_tsne_of_rows_of_which_many_are_equal_is_finite():
    vectors = np.repeat(build_clusters(10)[0], 8, axis=0)
    placed = project("TSNE", vectors, 0)
    assert np.isfinite(placed).all()
    assert np.ptp(placed, axis=0).min() > 0


def test_tsne_that_is_cancelled_between_two_steps_ends():
    calls = iter(range(1_000_000))
    with pytest.raises(CancelledError):
        project("TSNE", build_clusters(60)[0], 0, cancelled=lambda: next(calls) > 100)


def test_rows_beyond_the_limit_are_placed_beside_their_neighbours(monkeypatch):
    monkeypatch.setattr(projections, "MAX_FITTED_ROWS", 150)
    vectors, labels = build_clusters(600)
    placed = project("TSNE", vectors, 1)
    assert placed.shape == (600, 2)
    assert compute_purity(placed, labels) > 0.98


def test_umap_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match="umap-learn"):
        project("UMAP", build_clusters(50)[0], 0)


@pytest.mark.parametrize("method", ["PCA", "TSNE"])
@pytest.mark.parametrize("n", [0, 1, 2, 9, 12])
def test_few_rows_are_placed_too(method, n):
    placed = project(method, build_clusters(n)[0], 0)
    assert (placed.shape, placed.dtype) == ((n, 2), np.float32)
    assert np.isfinite(placed).all()


@pytest.mark.parametrize("method", ["PCA", "TSNE"])
@pytest.mark.parametrize("shape", [(30, 1), (30, 2), (30, 60)])
def test_equal_rows_lie_on_one_point(method, shape):
    assert not project(method, np.ones(shape, dtype=np.float32), 0).any()


def test_bad_input_is_refused_in_words():
    vectors, _ = build_clusters(20)
    with pytest.raises(ValueError, match="unknown projection"):
        project("MDS", vectors, 0)
    with pytest.raises(ValueError, match="matrix"):
        project("PCA", vectors[0], 0)
    for value in (np.nan, 3e38, -1e16):
        vectors[7, 3] = value
        for method in ("PCA", "TSNE"):
            with pytest.raises(ValueError, match="position 7 holds NaN, infinity or too large numbers"):
                project(method, vectors, 0)
    vectors[7, 3] = np.nan
    with pytest.raises(ValueError, match="position 7"):
        project("PCA", vectors, 0)


def test_cancelled_projection_raises():
    with pytest.raises(CancelledError):
        project("PCA", build_clusters(50)[0], 0, cancelled=lambda: True)
