"""The one entrance: checks what was asked, chooses the method, measures the picks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from watcher.platform.samplers.farthest import MAX_DISTANCE, pick_farthest
from watcher.platform.samplers.hooks import Hooks
from watcher.platform.samplers.nearest import compute_nearest_earlier
from watcher.platform.samplers.ordered import pick_in_order
from watcher.platform.samplers.rows import Floats, Positions

Method = Literal["ACTIVE_LEARNING", "CORAL", "CORESET", "RANDOM"]
METHODS: tuple[str, ...] = get_args(Method)

# Beyond this many pairs (about ten seconds at 128 dimensions) RANDOM and ACTIVE_LEARNING leave distances unknown.
_MAX_PAIRS = 1_000_000_000
# A score of 0 must not make all distances equal: it counts as a thousandth of the highest score.
_MIN_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class Picks:
    """What was picked, without the preselected.

    Attributes:
        positions: int64, in the order of picking.
        distances: float32, Euclidean distance of each pick to its nearest earlier pick or preselected; infinite
            for the first if nothing was preselected and for what float32 cannot hold; NaN where it was not
            computed (more than 10^9 pairs in RANDOM or ACTIVE_LEARNING).
        nearest: int64, the position of that nearest one; -1 where there is none or it was not computed.
    """

    positions: Positions
    distances: Floats
    nearest: Positions


def compute_target(n_samples: float | None, *, n_total: int) -> int | None:
    """How many samples shall be picked in the end, the preselected included.

    Args:
        n_samples: at least 1: a count; between 0 and 1: a share of `n_total`, rounded to the nearest count, at
            least 1; None or -1: no limit.
        n_total: number of candidates and preselected together.

    Returns:
        the count, which may exceed `n_total`; None for no limit.

    Raises:
        ValueError: 0, a fraction above 1, another negative number, NaN or infinity.
    """
    if n_samples is None or n_samples == -1:
        return None
    if not math.isfinite(n_samples) or n_samples <= 0:
        raise ValueError(
            f"nSamples must be a count of at least 1, a share between 0 and 1, or -1; got {n_samples}"
        )
    if n_samples < 1:
        return max(1, math.floor(n_samples * n_total + 0.5))
    if n_samples != int(n_samples):
        raise ValueError(f"nSamples above 1 is a count and must be a whole number, got {n_samples}")
    return int(n_samples)


def pick(
    *,
    method: str,
    vectors: Floats,
    candidates: Positions,
    preselected: Positions,
    n_samples: float | None,
    min_distance: float | None,
    scores: np.ndarray[tuple[int], np.dtype[np.floating]] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Picks:
    """Picks samples by a method of the protocol.

    The same arguments give the same picks on the same machine; only RANDOM depends on `seed`. Fewer picks than
    asked for mean that no candidate was left that keeps the minimum distance.

    Args:
        method: one of `METHODS`.
        vectors: float32 of shape (N, d), also memory-mapped; row = position in the mapping.
        candidates: positions that may be picked, in any order; those preselected are left out.
        preselected: positions picked before; they count as picked, candidates or not.
        n_samples: see `compute_target`; the count includes the preselected.
        min_distance: no two picks nearer than this (Euclidean); None or -1 for no limit.
        scores: one for each entry of `candidates`, higher = more useful; for ACTIVE_LEARNING and CORAL.
        seed: of RANDOM.
        progress: called with (new picks made, new picks wanted).
        cancelled: asked regularly; True ends the sampling.

    Raises:
        ValueError: what was asked cannot be done; the text says why.
        CancelledError: `cancelled` returned True.
    """
    hooks = Hooks(progress, cancelled)
    if method not in METHODS:
        raise ValueError(f"unknown sampling method {method!r}; there are {', '.join(METHODS)}")
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors must be a float32 matrix, got {vectors.dtype} of shape {vectors.shape}")
    distance = _check_min_distance(min_distance)
    chosen = _check_positions(preselected, len(vectors), "preselected")
    wanted = _check_positions(candidates, len(vectors), "candidate")
    ranks = _check_scores(method, scores, candidates)
    if len(np.unique(wanted)) != len(wanted):
        raise ValueError("a candidate is named twice")
    chosen = np.unique(chosen)
    order = np.argsort(wanted, kind="stable")
    order = order[~np.isin(wanted[order], chosen)]
    open_positions = wanted[order]
    open_ranks = None if ranks is None else ranks[order]

    target = compute_target(n_samples, n_total=len(open_positions) + len(chosen))
    if target is None and distance is None:
        raise ValueError("the sampling would never stop: give nSamples or minDistance")
    n_picks = len(open_positions) if target is None else min(target - len(chosen), len(open_positions))
    if n_picks <= 0:
        empty = np.empty(0, dtype=np.int64)
        return Picks(empty, np.empty(0, dtype=np.float32), empty)

    if method in {"CORESET", "CORAL"}:
        weights = None if open_ranks is None or method == "CORESET" else _compute_weights(open_ranks)
        distance = None if distance is None else min(distance, MAX_DISTANCE)
        positions = pick_farthest(
            vectors,
            open_positions,
            chosen,
            n_picks=n_picks,
            min_distance=distance,
            weights=weights,
            hooks=hooks,
        )
        return _measure_farthest(vectors, chosen, positions, distance, hooks)
    if method == "RANDOM":
        sequence = np.random.default_rng(seed).permutation(open_positions)
    else:
        assert open_ranks is not None
        sequence = open_positions[np.argsort(-open_ranks, kind="stable")]
    positions = pick_in_order(vectors, sequence, chosen, n_picks=n_picks, min_distance=distance, hooks=hooks)
    if len(positions) * (len(positions) / 2 + len(chosen)) > _MAX_PAIRS:
        unknown = np.full(len(positions), np.nan, dtype=np.float32)
        return Picks(positions, unknown, np.full(len(positions), -1, dtype=np.int64))
    return Picks(positions, *compute_nearest_earlier(vectors, chosen, positions, hooks))


def _measure_farthest(
    vectors: Floats, chosen: Positions, positions: Positions, min_distance: float | None, hooks: Hooks
) -> Picks:
    distances, nearest = compute_nearest_earlier(vectors, chosen, positions, hooks)
    if min_distance is not None and (distances < min_distance).any():
        # Borderline rows that float32 let pass; leaving them out changes the nearest of those behind them.
        positions = positions[distances >= min_distance]
        distances, nearest = compute_nearest_earlier(vectors, chosen, positions, hooks)
    return Picks(positions, distances, nearest)


def _compute_weights(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Floats:
    highest = float(scores.max())
    if highest <= 0.0:
        return np.ones(len(scores), dtype=np.float32)
    return np.maximum(scores / highest, _MIN_WEIGHT).astype(np.float32)


def _check_min_distance(min_distance: float | None) -> float | None:
    if min_distance is None or min_distance == -1:
        return None
    if not math.isfinite(min_distance) or min_distance < 0:
        raise ValueError(f"minDistance must be at least 0, or -1 for none; got {min_distance}")
    return float(min_distance)


def _check_positions(positions: Positions, n_rows: int, kind: str) -> Positions:
    checked = np.asarray(positions)
    if checked.ndim != 1 or (checked.size and not np.issubdtype(checked.dtype, np.integer)):
        raise ValueError(f"{kind} positions must be a list of whole numbers")
    checked = checked.astype(np.int64)
    if checked.size and (checked.min() < 0 or checked.max() >= n_rows):
        raise ValueError(f"a {kind} position lies outside of the {n_rows} vectors")
    return checked


def _check_scores(
    method: str, scores: np.ndarray[tuple[int], np.dtype[np.floating]] | None, candidates: Positions
) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    if method not in {"ACTIVE_LEARNING", "CORAL"}:
        return None
    if scores is None:
        raise ValueError(f"{method} needs scores at the query tag; upload them first")
    checked = np.asarray(scores, dtype=np.float64)
    if checked.shape != (len(candidates),):
        raise ValueError(f"there are {len(candidates)} candidates, but {checked.size} scores")
    if not np.isfinite(checked).all():
        raise ValueError("a score is NaN or infinite")
    if method == "CORAL" and checked.size and checked.min() < 0:
        raise ValueError("CORAL multiplies scores with distances, so no score may be below 0")
    return checked
