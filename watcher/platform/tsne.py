"""t-SNE, exact, for a few thousand rows.

Source: L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", Journal of Machine Learning Research 9 (2008),
2579-2605; the learning rate after A. Belkina et al., Nature Communications 10 (2019), 5415. Written here because the
libraries that have it weigh 200 MB, more than all the rest of the image (ADR 6).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_EXAGGERATION = 12.0
_N_EXAGGERATED_STEPS = 250
_N_STEPS = 750
_SMALLEST_GAIN = 0.01
_SMALLEST = 1e-12
_N_HALVINGS = 50


def fit_tsne(
    vectors: Floats, start: Floats, *, perplexity: float, check: Callable[[], None] = lambda: None
) -> Floats:
    """Places each row in the plane so that the neighbourhoods stay.

    Cost: 750 steps over n x n matrices; memory about 5 n^2 float32 (125 MB for 2,500 rows). Deterministic.

    Args:
        vectors: (n, d), finite, n at least 4.
        start: (n, 2), where the points start, for example on the first two principal components.
        perplexity: how many neighbours count, from 1 to (n - 1) / 3.
        check: called at each step; what it raises ends the work.

    Returns:
        float32 of shape (n, 2), centred.
    """
    n = len(vectors)
    joint = compute_joint_probabilities(vectors, perplexity)
    placed = np.asarray(start, dtype=np.float32)
    spread = float(placed[:, 0].std())
    placed = placed / spread * np.float32(1e-4) if spread > 0 else np.zeros((n, 2), dtype=np.float32)
    rate = np.float32(max(n / _EXAGGERATION / 4, 50.0))
    step = np.zeros_like(placed)
    gains = np.ones_like(placed)
    joint *= np.float32(_EXAGGERATION)
    for number in range(_N_STEPS):
        check()
        if number == _N_EXAGGERATED_STEPS:
            joint /= np.float32(_EXAGGERATION)
        gradient = _compute_gradient(joint, placed)
        agree = (gradient > 0) == (step > 0)
        gains = np.maximum(np.where(agree, gains * 0.8, gains + 0.2), _SMALLEST_GAIN).astype(np.float32)
        momentum = np.float32(0.5 if number < _N_EXAGGERATED_STEPS else 0.8)
        step = momentum * step - rate * gains * gradient
        placed = placed + step
        placed -= placed.mean(axis=0)
    return placed


def compute_joint_probabilities(vectors: Floats, perplexity: float) -> Floats:
    """How much each pair of rows belongs together: (n, n), symmetric, zero on the diagonal, sum 1.

    The width of each row's Gaussian is found by bisection so that the entropy of its neighbours is log(perplexity).
    """
    squared = _compute_squared_distances(vectors.astype(np.float64))
    n = len(squared)
    # Shifted by the nearest other point, so that no row underflows as a whole.
    np.fill_diagonal(squared, np.inf)
    squared -= squared.min(axis=1, keepdims=True)
    low, high, precision = np.zeros(n), np.full(n, np.inf), np.ones(n)
    wanted = np.log(perplexity)
    finite = np.where(np.isfinite(squared), squared, 0.0)
    for _ in range(_N_HALVINGS):
        weights = np.exp(-squared * precision[:, None])
        total = weights.sum(axis=1)
        entropy = np.log(total) + precision * (weights * finite).sum(axis=1) / total
        too_wide = entropy > wanted
        low = np.where(too_wide, precision, low)
        high = np.where(too_wide, high, precision)
        precision = np.where(np.isinf(high), precision * 2, (low + high) / 2)
    weights = np.exp(-squared * precision[:, None])
    conditional: Doubles = weights / weights.sum(axis=1, keepdims=True)
    joint: Floats = ((conditional + conditional.T) / (2 * n)).astype(np.float32)
    return joint


def _compute_squared_distances(rows: Doubles) -> Doubles:
    squares = np.einsum("ij,ij->i", rows, rows)
    squared: Doubles = np.maximum(squares[:, None] + squares - 2 * (rows @ rows.T), 0)
    return squared


def _compute_gradient(joint: Floats, placed: Floats) -> Floats:
    """Of the Kullback-Leibler divergence between the pairs' nearness among the vectors and in the plane."""
    squares = np.einsum("ij,ij->i", placed, placed)
    nearness = placed @ placed.T
    nearness *= np.float32(-2)
    nearness += squares
    nearness += squares[:, None]
    np.maximum(nearness, 0, out=nearness)
    nearness += np.float32(1)
    np.reciprocal(nearness, out=nearness)
    np.fill_diagonal(nearness, 0)
    pull = nearness * (np.float32(-1) / np.float32(max(float(nearness.sum(dtype=np.float64)), _SMALLEST)))
    pull += joint
    pull *= nearness
    gradient: Floats = 4 * (pull.sum(axis=1, keepdims=True) * placed - pull @ placed)
    return gradient
