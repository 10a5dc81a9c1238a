"""Exact nearest neighbours: all known vectors pass by in blocks, and each query keeps the best it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# Products of this many queries with a block of some thousand rows stay in the second-level cache.
_STRIPE: Final = 128


class NearestSoFar:
    """The nearest of all rows seen so far for each query, by Euclidean distance.

    A row is compared by `q * x - |x|^2 / 2`, which orders rows as the distance does and needs one matrix product;
    the distance to the winner is computed from the difference, so equal vectors are exactly 0 apart.

    Attributes:
        rows: int64, the number of the nearest row of each query; -1 while there is none.
    """

    def __init__(self, queries: Floats) -> None:
        """Takes the queries, float32 of shape (n, d)."""
        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._scores = np.full(len(queries), -np.inf, dtype=np.float32)
        self._vectors = np.zeros_like(self._queries)
        self.rows: Rows = np.full(len(queries), -1, dtype=np.int64)

    def see_block(self, first_row: int, block: Floats, *, but: Sequence[tuple[int, int]] = ()) -> None:
        """Compares all queries with the rows of a block. Costs one matrix product, n x rows x d.

        Args:
            first_row: number of the block's first row.
            block: float32 of shape (rows, d).
            but: pairs of (query, row within the block) that do not count.
        """
        if not len(block) or not len(self._queries):
            return
        half_squares = np.einsum("ij,ij->i", block, block) / np.float32(2)
        left_out = _by_query(but)
        scores = np.empty((min(_STRIPE, len(self._queries)), len(block)), dtype=np.float32)
        for start in range(0, len(self._queries), _STRIPE):
            stripe = slice(start, min(start + _STRIPE, len(self._queries)))
            part = scores[: stripe.stop - start]
            np.matmul(self._queries[stripe], block.T, out=part)
            part -= half_squares
            for query in left_out.keys() & range(stripe.start, stripe.stop):
                part[query - start, left_out[query]] = -np.inf
            self._keep_better(stripe, part, first_row, block)

    def see_each_other(self, first_row: int) -> None:
        """Compares each query with those before it, which are the rows from `first_row` on."""
        for start in range(0, len(self._queries), _STRIPE):
            stripe = slice(start, min(start + _STRIPE, len(self._queries)))
            block = self._queries[: stripe.stop]
            part = self._queries[stripe] @ block.T
            part -= np.einsum("ij,ij->i", block, block) / np.float32(2)
            part[:, start:][np.triu_indices(stripe.stop - start)] = -np.inf
            self._keep_better(stripe, part, first_row, block)

    def compute_distances(self) -> NDArray[np.float64]:
        """Euclidean distance of each query to its nearest row; infinite where there is none."""
        gaps = self._queries.astype(np.float64) - self._vectors
        distances: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", gaps, gaps))
        distances[self.rows < 0] = np.inf
        return distances

    def _keep_better(self, stripe: slice, scores: Floats, first_row: int, block: Floats) -> None:
        best = scores.max(axis=1)
        better = np.flatnonzero(best > self._scores[stripe])
        if not len(better):
            return
        winners = scores[better].argmax(axis=1)
        queries = better + stripe.start
        self._scores[queries] = best[better]
        self._vectors[queries] = block[winners]
        self.rows[queries] = first_row + winners


def _by_query(pairs: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for query, row in pairs:
        found.setdefault(query, []).append(row)
    return found
