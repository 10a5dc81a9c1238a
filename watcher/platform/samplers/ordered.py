"""Picks that follow a given order, leaving out what is too near to an earlier pick."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from watcher.platform.samplers.hooks import Hooks
from watcher.platform.samplers.nearest import compute_squared_distances
from watcher.platform.samplers.rows import Floats, Positions

_BLOCK = 512


def pick_in_order(
    vectors: Floats,
    order: Positions,
    preselected: Positions,
    *,
    n_picks: int,
    min_distance: float | None,
    hooks: Hooks,
) -> Positions:
    """The first `n_picks` of `order` that keep `min_distance` from the preselected and from each other.

    Without `min_distance` no vector is read. With it, costs at most
    len(order) * (len(preselected) + n_picks) * d multiplications, in blocks.

    Raises:
        CancelledError: the caller asked to stop.
        ValueError: a vector that is needed holds NaN or infinity.
    """
    hooks.check()
    if min_distance is None or min_distance <= 0.0:
        hooks.report(min(n_picks, len(order)), n_picks)
        return order[:n_picks]
    limit = min_distance * min_distance
    taken: list[int] = []
    for start in range(0, len(order), _BLOCK):
        if len(taken) >= n_picks:
            break
        block = order[start : start + _BLOCK]
        own = _read(vectors, block)
        allowed = np.ones(len(block), dtype=np.bool_)
        earlier = np.concatenate([preselected, np.asarray(taken, dtype=np.int64)])
        for low in range(0, len(earlier), _BLOCK):
            hooks.check()
            others = _read(vectors, earlier[low : low + _BLOCK])
            allowed &= (compute_squared_distances(own, others) >= limit).all(axis=1)
        near = compute_squared_distances(own, own) < limit
        for index in range(len(block)):
            if allowed[index] and len(taken) < n_picks:
                taken.append(int(block[index]))
                allowed &= ~near[index]
        hooks.report(len(taken), n_picks)
    return np.asarray(taken, dtype=np.int64)


def _read(vectors: Floats, positions: Positions) -> NDArray[np.float64]:
    rows = np.asarray(vectors[positions], dtype=np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        position = int(positions[np.flatnonzero(~finite)[0]])
        raise ValueError(f"the vector at position {position} holds NaN or infinity")
    return rows
