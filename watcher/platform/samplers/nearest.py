"""How far each pick is from what was picked before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.platform.samplers.hooks import Hooks
from watcher.platform.samplers.rows import Floats, Positions

_BLOCK = 1024


def compute_nearest_earlier(
    vectors: Floats, preselected: Positions, picked: Positions, hooks: Hooks
) -> tuple[Floats, Positions]:
    """For each pick the nearest of the preselected and the earlier picks.

    In float64, and the final distance from the difference of the two vectors, so equal vectors are exactly 0
    apart. Costs len(picked) * (len(preselected) + len(picked) / 2) * d multiplications.

    Args:
        vectors: float32 of shape (N, d).
        preselected: positions that count as picked before the first pick.
        picked: positions in the order of picking.
        hooks: asked for cancellation after each block.

    Returns:
        distances, float32 of shape (len(picked),), infinite where nothing was picked before and beyond float32; and
        the positions of the nearest, int64, -1 where nothing was picked before.
    """
    earlier = np.concatenate([preselected, picked])
    distances = np.full(len(picked), np.inf, dtype=np.float32)
    nearest = np.full(len(picked), -1, dtype=np.int64)
    for start in range(0, len(picked), _BLOCK):
        own = np.asarray(vectors[picked[start : start + _BLOCK]], dtype=np.float64)
        best = np.full(len(own), np.inf)
        where = np.full(len(own), -1, dtype=np.int64)
        n_earlier = len(preselected) + start + len(own)
        for low in range(0, n_earlier, _BLOCK):
            hooks.check()
            positions = earlier[low : min(low + _BLOCK, n_earlier)]
            squared = compute_squared_distances(own, np.asarray(vectors[positions], dtype=np.float64))
            # Row i of the block may only see what lies before it: columns below n_before(i).
            n_before = len(preselected) + start + np.arange(len(own)) - low
            squared[np.arange(len(positions))[None, :] >= n_before[:, None]] = np.inf
            column = squared.argmin(axis=1)
            value = squared[np.arange(len(own)), column]
            better = value < best
            best[better] = value[better]
            where[better] = positions[column[better]]
        known = where >= 0
        difference = own[known] - np.asarray(vectors[where[known]], dtype=np.float64)
        stop = start + len(own)
        with np.errstate(over="ignore"):
            distances[start:stop][known] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        nearest[start:stop] = where
    return distances, nearest


def compute_squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances between the rows of two matrices; shape (len(a), len(b)), never negative."""
    squared: NDArray[np.float64] = a @ b.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", a, a)[:, None]
    squared += np.einsum("ij,ij->i", b, b)[None, :]
    return np.maximum(squared, 0.0, out=squared)
