"""Greedy farthest-point picking, plain and weighted.

The plain form is the 2-approximation of the k-center problem by T. F. Gonzalez, "Clustering to minimize the
maximum intercluster distance" (1985), used for active learning as "core-set" by O. Sener and S. Savarese (2018).
The weighted form, which picks the greatest product of weight and distance, is by M. E. Dyer and A. M. Frieze,
"A simple heuristic for the p-centre problem" (1985).

The textbook loop reads the whole matrix once a pick and is bound by memory. Here the distance of a row to its
nearest pick is brought up to date only when the row could win: these distances never grow, so a value that is out
of date is an upper bound (the "lazy greedy" of M. Minoux, 1978). The rows with the greatest bounds form a small
pool that is kept current; as long as the pool's best beats the bound of all others it is the true farthest point.
When it no longer does, all rows catch up with all picks made meanwhile in one matrix product, which is bound by
arithmetic instead. The picks are those of the textbook loop, up to the rounding of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watcher.platform.samplers.hooks import Hooks
from watcher.platform.samplers.rows import Floats, Positions, Rows

# No two vectors that are accepted here are this far apart, and the square of it is still a float32.
MAX_DISTANCE = 1e19
_POOL_ROWS = 4096
_CHUNK_PICKS = 256
# Squared float32 distances below this share of the squared length are rounding noise: the rows count as equal.
_NOISE = np.float32(1e-6)
_OUT = np.float32(-1.0)


def pick_farthest(
    vectors: Floats,
    candidates: Positions,
    preselected: Positions,
    *,
    n_picks: int,
    min_distance: float | None,
    weights: Floats | None,
    hooks: Hooks,
) -> Positions:
    """Picks one after the other the candidate whose weighted distance to all picks so far is greatest.

    The first pick, if nothing is preselected, is the candidate of the greatest weight; among equals the one
    farthest from the mean of the candidates. Nothing is random.

    Args:
        vectors: float32 of shape (N, d), also memory-mapped.
        candidates: ascending positions without repeats, none of them preselected.
        preselected: positions that count as picked.
        n_picks: new picks at most.
        min_distance: a candidate nearer than this to a pick is out; at most `MAX_DISTANCE`, None for no limit. Kept
            up to the resolution of float32, so the caller has to look at the borderline once more.
        weights: float32 of shape (len(candidates),), all above 0; None for equal weights.
        hooks: told about progress, asked for cancellation.

    Returns:
        the positions in the order of picking.

    Raises:
        ValueError: a vector that is needed holds NaN, infinity or numbers too large to be squared.

    Cost:
        at most one pass over the matrix a pick, mostly far fewer; about 150 bytes of memory a row at the
        peak, beside a pool of 4096 rows.
    """
    if n_picks <= 0 or len(candidates) == 0:
        return np.empty(0, dtype=np.int64)
    rows = Rows(vectors, candidates, hooks)
    state = _State.build(rows, candidates, weights, min_distance)
    if len(preselected):
        rows.check_values(preselected)
        _catch_up(state, preselected)
        keys = state.compute_keys()
    else:
        keys = rows.squares + np.float32(1e-30)
        if state.weights is not None:
            keys = np.where(state.weights >= state.weights.max(), keys, np.float32(0.0))
        if rows.masked is not None:
            keys[rows.masked] = _OUT
    picked: list[int] = []
    n_seen = 0
    while len(picked) < n_picks:
        hooks.check()
        # The keys of the very first pick are no bounds of the distances that follow.
        n_wanted = n_picks - len(picked) if picked or len(preselected) else 1
        found = _pick_from_pool(state, keys, n_wanted, hooks)
        if not found:
            break
        picked.extend(found)
        hooks.report(len(picked), n_picks)
        if len(picked) < n_picks:
            new = np.asarray(picked[n_seen:], dtype=np.int64)
            n_seen = len(picked)
            _catch_up(state, new)
            state.nearest[rows.find_rows(new)] = _OUT
            keys = state.compute_keys()
    return np.asarray(picked, dtype=np.int64)


@dataclass(slots=True)
class _State:
    """What is known of each row; all arrays are of shape (n,).

    Attributes:
        rows: the candidates.
        nearest: squared distance to the nearest pick; infinite before the first pick; `_OUT` once out.
        weights: squared weights, or None.
        noise: squared distance that counts as 0.
        limits: squared distance below which a row is out, noise in its favour; None for no limit.
    """

    rows: Rows
    nearest: Floats
    weights: Floats | None
    noise: Floats
    limits: Floats | None

    @classmethod
    def build(
        cls, rows: Rows, candidates: Positions, weights: Floats | None, min_distance: float | None
    ) -> _State:
        nearest = np.full(rows.n, np.inf, dtype=np.float32)
        if rows.masked is not None:
            nearest[rows.masked] = _OUT
        by_row: Floats | None = None
        if weights is not None:
            by_row = np.zeros(rows.n, dtype=np.float32)
            by_row[rows.find_rows(candidates)] = np.square(weights, dtype=np.float32)
        noise = rows.squares * _NOISE
        limits: Floats | None = None
        if min_distance is not None and min_distance > 0.0:
            # The rounding of a squared distance near the limit grows with the row's length and with the limit.
            # Rows that count as equal are out, however small the limit.
            lowest = np.float32(min_distance**2 * (1 - 4 * float(_NOISE)))
            limits = np.maximum(lowest - 2 * noise, np.finfo(np.float32).tiny)
        return cls(rows, nearest, by_row, noise, limits)

    def compute_keys(self) -> Floats:
        """What is compared: squared weight times squared distance; `_OUT` for rows that are out."""
        return _compute_keys(self.nearest, self.weights)


def _lower(nearest: Floats, squared: Floats, noise: Floats, limits: Floats | None) -> None:
    """Takes new squared distances into `nearest`, in place; both arrays are changed."""
    squared[squared < noise] = 0.0
    np.minimum(nearest, squared, out=nearest)
    if limits is not None:
        nearest[nearest < limits] = _OUT


def _compute_keys(nearest: Floats, weights: Floats | None) -> Floats:
    if weights is None:
        return nearest.copy()
    return np.where(nearest < 0.0, _OUT, nearest * weights)


def _pick_from_pool(state: _State, keys: Floats, n_wanted: int, hooks: Hooks) -> list[int]:
    """Picks as long as the rows with the greatest keys hold the winner for certain; at least one, if any is left."""
    rows = state.rows
    n_pool = min(_POOL_ROWS, rows.n)
    if n_pool < rows.n:
        # Ties at the edge of the pool are safe: the winner must only not be below what was left outside.
        split = np.argpartition(keys, rows.n - n_pool)
        pool = np.sort(split[rows.n - n_pool :])
        outside = float(keys[split[: rows.n - n_pool]].max())
    else:
        pool = np.arange(rows.n)
        outside = -1.0
    points = rows.take_rows(pool)
    if rows.masked is not None:
        points[rows.masked[pool]] = 0.0
    squares = rows.squares[pool]
    nearest = state.nearest[pool]
    noise = state.noise[pool]
    weights = None if state.weights is None else state.weights[pool]
    limits = None if state.limits is None else state.limits[pool]
    pool_keys = keys[pool]
    found: list[int] = []
    while len(found) < n_wanted:
        best = int(pool_keys.argmax())
        if pool_keys[best] < max(outside, 0.0):
            break
        found.append(rows.get_position(int(pool[best])))
        nearest[best] = _OUT
        if len(found) % 64 == 0:
            hooks.check()
        squared = points @ (points[best] * np.float32(-2.0))
        squared += squares
        squared += squares[best]
        _lower(nearest, squared, noise, limits)
        pool_keys = _compute_keys(nearest, weights)
    return found


def _catch_up(state: _State, picks: Positions) -> None:
    """Brings all rows up to date with `picks`: one matrix product for each block of rows and chunk of picks."""
    rows = state.rows
    chunk = rows.take_centred(picks[:_CHUNK_PICKS])
    for start, block in rows.iterate_blocks():
        part = slice(start, start + len(block))
        nearest = state.nearest[part]
        highest = np.full(len(block), -np.inf, dtype=np.float32)
        for low in range(0, len(picks), _CHUNK_PICKS):
            if len(picks) > _CHUNK_PICKS:
                chunk = rows.take_centred(picks[low : low + _CHUNK_PICKS])
            half: NDArray[np.float32] = np.einsum("ij,ij->i", chunk, chunk) * np.float32(0.5)
            with np.errstate(invalid="ignore", over="ignore"):
                products = chunk @ block.T
            products -= half[:, None]
            np.maximum(highest, products.max(axis=0), out=highest)
        squared = rows.squares[part] - np.float32(2.0) * highest
        out = nearest < 0.0
        _lower(nearest, squared, state.noise[part], None if state.limits is None else state.limits[part])
        nearest[out] = _OUT
