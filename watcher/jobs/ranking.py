"""The order of the picks of a batch, and the reason of each.

The protocol hands out picks as a set; this gives them an order that a person with time for k of them would want.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watcher.domain.models import SamplingMethod
from watcher.store.vectors import Vector

# The order is quadratic in the number of picks: beyond this many they are left in the order of their positions.
_MOST_RANKED: Final = 10_000
# As the platform does: a score of 0 must not make all distances equal.
_LEAST_WEIGHT: Final = 1e-3

Nearest = tuple[float, str]


def rank_picks(
    *,
    method: SamplingMethod,
    names: Sequence[str],
    vectors: Mapping[str, Vector],
    scores: Mapping[str, float],
    before: Mapping[str, Nearest],
) -> list[tuple[str, dict[str, Any]]]:
    """Orders picks by their method, and tells how far each is from the nearest pick before it.

    `CORESET` takes the farthest from all picks before it, `CORAL` the greatest product of that and the score,
    `ACTIVE_LEARNING` the highest score, `RANDOM` none in particular. Quadratic in the number of picks.

    Args:
        method: how they were picked.
        names: the picks.
        vectors: of the picks; one without a vector comes last.
        scores: of the picks, for the methods that need them.
        before: (distance, name) of the nearest pick of earlier batches, for each pick with one.

    Returns:
        (name, reason), best first. The reason has `method`, and where known `score`,
        `distance_to_nearest_earlier_pick` and `nearest_earlier_pick`.
    """
    known = [name for name in names if name in vectors]
    if len(known) > _MOST_RANKED:
        order, nearest = known, {name: before.get(name) for name in known}
    else:
        order, nearest = _order(method, known, vectors, scores, before)
    order = [*order, *(name for name in names if name not in vectors)]
    return [(name, _build_reason(method, scores.get(name), nearest.get(name))) for name in order]


def _order(
    method: SamplingMethod,
    names: Sequence[str],
    vectors: Mapping[str, Vector],
    scores: Mapping[str, float],
    before: Mapping[str, Nearest],
) -> tuple[list[str], dict[str, Nearest | None]]:
    if not names:
        return [], {}
    matrix: NDArray[np.float32] = np.stack([vectors[name] for name in names])
    distances = np.array([before[name][0] if name in before else np.inf for name in names])
    nearest_names = [before[name][1] if name in before else None for name in names]
    weights = np.array([scores.get(name, 0.0) for name in names], dtype=np.float64)
    left = np.ones(len(names), dtype=bool)
    order: list[str] = []
    nearest: dict[str, Nearest | None] = {}
    while left.any():
        chosen = _choose(method, matrix, distances, weights, left)
        left[chosen] = False
        order.append(names[chosen])
        other = nearest_names[chosen]
        nearest[names[chosen]] = None if other is None else (float(distances[chosen]), other)
        gaps = np.linalg.norm(matrix - matrix[chosen], axis=1)
        for number in np.flatnonzero((gaps < distances) & left):
            nearest_names[number] = names[chosen]
        distances = np.minimum(distances, gaps)
    return order, nearest


def _choose(
    method: SamplingMethod,
    matrix: NDArray[np.float32],
    distances: NDArray[np.float64],
    weights: NDArray[np.float64],
    left: NDArray[np.bool_],
) -> int:
    if method is SamplingMethod.RANDOM:
        return int(left.argmax())
    if method is SamplingMethod.ACTIVE_LEARNING:
        return int(np.where(left, weights, -1.0).argmax())
    values = distances
    if np.isinf(distances).all():  # nothing was picked before: the one farthest from the mean comes first
        values = np.linalg.norm(matrix - matrix.mean(axis=0), axis=1)
        if method is SamplingMethod.CORAL:  # with the platform: of those with the highest score
            left = left & (weights == weights[left].max())
    if method is SamplingMethod.CORAL:
        highest = weights.max()
        values = values * np.maximum(weights / highest if highest > 0 else 1.0, _LEAST_WEIGHT)
    return int(np.where(left, values, -1.0).argmax())


def _build_reason(method: SamplingMethod, score: float | None, nearest: Nearest | None) -> dict[str, Any]:
    reason: dict[str, Any] = {"method": method.value}
    if score is not None:
        reason["score"] = score
    if nearest is not None:
        reason["distance_to_nearest_earlier_pick"] = round(nearest[0], 6)
        reason["nearest_earlier_pick"] = nearest[1]
    return reason
