"""Vectors to two dimensions, for a scatter plot."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from watcher.domain.errors import CancelledError
from watcher.platform.samplers.rows import build_unusable, find_unusable
from watcher.platform.tsne import fit_tsne

Floats = NDArray[np.float32]
ProjectionMethod = Literal["PCA", "TSNE", "UMAP"]
PROJECTION_METHODS: tuple[str, ...] = get_args(ProjectionMethod)

_BLOCK_ROWS = 8192
# The time of t-SNE and UMAP grows faster than the number of rows; beyond this many, the others follow by neighbours.
MAX_FITTED_ROWS = 2_500
_N_NEIGHBOURS = 3


def project(
    method: str, vectors: Floats, seed: int, *, cancelled: Callable[[], bool] | None = None
) -> Floats:
    """Places each vector in the plane, so that what is near stays near as far as a plane allows.

    PCA reads the matrix in blocks and is exact for any number of rows (memory: d x d). TSNE and UMAP work on at
    most 2,500 rows, picked at random by `seed`; every other row is placed at the mean, weighted by nearness, of
    its three nearest ones among them. The values are scaled to -1..1 on the longer axis. The same arguments give
    the same picture on the same machine.

    Args:
        method: one of `PROJECTION_METHODS`; UMAP needs the package `umap-learn`.
        vectors: float32 of shape (n, d), also memory-mapped.
        seed: of the choice of rows and of UMAP.
        cancelled: asked between blocks and steps; True ends the work.

    Returns:
        float32 of shape (n, 2).

    Raises:
        ValueError: unknown method, not a matrix, or a value that is NaN, infinite or too large to be squared.
        CancelledError: `cancelled` returned True.
        ModuleNotFoundError: the method's package is not installed; the text names it.
    """
    if method not in PROJECTION_METHODS:
        raise ValueError(f"unknown projection {method!r}; there are {', '.join(PROJECTION_METHODS)}")
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise ValueError(f"vectors must be a matrix, got shape {vectors.shape}")
    check = _build_check(cancelled)
    mean = _compute_mean(vectors, check)
    # Fewer rows than these have no neighbourhoods that TSNE or UMAP could keep.
    if method == "PCA" or len(vectors) < 10:
        return _scale(_project_linearly(vectors, mean, 2, check))
    rows = np.arange(len(vectors))
    if len(rows) > MAX_FITTED_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), MAX_FITTED_ROWS, replace=False))
    check()
    sample = np.asarray(vectors[rows], dtype=np.float32) - mean
    fitted = _fit_tsne(sample, check) if method == "TSNE" else _fit_umap(sample, seed)
    check()
    if len(rows) == len(vectors):
        return _scale(fitted)
    return _scale(_place_by_neighbours(vectors, mean, sample, fitted, check))


def _build_check(cancelled: Callable[[], bool] | None) -> Callable[[], None]:
    def check() -> None:
        if cancelled is not None and cancelled():
            raise CancelledError("the projection was cancelled before it was complete")

    return check


def _compute_mean(vectors: Floats, check: Callable[[], None]) -> Floats:
    total = np.zeros(vectors.shape[1], dtype=np.float64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        check()
        block = np.asarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float64)
        unusable = find_unusable(block)
        if unusable is not None:
            raise build_unusable(start + unusable)
        total += block.sum(axis=0)
    mean: Floats = (total / max(1, len(vectors))).astype(np.float32)
    return mean


def _project_linearly(vectors: Floats, mean: Floats, n_dimensions: int, check: Callable[[], None]) -> Floats:
    """Principal components from the d x d covariance; signs such that each axis' largest weight is positive."""
    d = vectors.shape[1]
    covariance = np.zeros((d, d), dtype=np.float64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        check()
        block = np.asarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float64) - mean
        covariance += block.T @ block
    _, axes = np.linalg.eigh(covariance)
    chosen = axes[:, ::-1][:, :n_dimensions]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])])
    placed = np.zeros((len(vectors), n_dimensions), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        check()
        block = np.asarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float64) - mean
        placed[start : start + len(block), : chosen.shape[1]] = block @ chosen
    return placed


def _fit_tsne(sample: Floats, check: Callable[[], None]) -> Floats:
    # The neighbours, not the far structure, are what the plot is for: 50 dimensions carry them.
    reduced = sample
    if sample.shape[1] > 50:
        reduced = _project_linearly(sample, sample.mean(axis=0), 50, check)
    if not np.ptp(reduced, axis=0).any():
        return np.zeros((len(sample), 2), dtype=np.float32)
    start = _project_linearly(reduced, reduced.mean(axis=0), 2, check)
    return fit_tsne(reduced, start, perplexity=min(30.0, (len(sample) - 1) / 3), check=check)


def _fit_umap(sample: Floats, seed: int) -> Floats:
    try:
        umap = importlib.import_module("umap")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "UMAP needs the package umap-learn; install it beside the platform, or ask for PCA or TSNE"
        ) from error
    n_neighbours = min(15, len(sample) - 1)
    fitted: Floats = umap.UMAP(
        n_components=2, n_neighbors=n_neighbours, random_state=seed, n_jobs=1
    ).fit_transform(sample)
    return fitted.astype(np.float32)


def _place_by_neighbours(
    vectors: Floats, mean: Floats, sample: Floats, fitted: Floats, check: Callable[[], None]
) -> Floats:
    """Costs n * len(sample) * d multiplications, in blocks."""
    placed = np.empty((len(vectors), 2), dtype=np.float32)
    squares = np.einsum("ij,ij->i", sample, sample)
    for start in range(0, len(vectors), 1024):
        check()
        block = np.asarray(vectors[start : start + 1024], dtype=np.float32) - mean
        squared = np.einsum("ij,ij->i", block, block)[:, None] + squares - 2 * (block @ sample.T)
        near = np.argpartition(squared, _N_NEIGHBOURS, axis=1)[:, :_N_NEIGHBOURS]
        weights = 1 / (np.maximum(np.take_along_axis(squared, near, axis=1), 0) + 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        placed[start : start + len(block)] = np.einsum("ij,ijk->ik", weights, fitted[near])
    return placed


def _scale(placed: Floats) -> Floats:
    if not len(placed):
        return placed.reshape(0, 2)
    low, high = placed.min(axis=0), placed.max(axis=0)
    half = float((high - low).max()) / 2
    if not math.isfinite(half) or half <= 0:
        return np.zeros_like(placed)
    scaled: Floats = ((placed - (low + high) / 2) / np.float32(half)).astype(np.float32)
    return scaled
