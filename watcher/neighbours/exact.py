"""Exact nearest neighbours: all known vectors pass by in blocks, and each query keeps the best it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# Queries that are compared among themselves at once.
_STRIPE: Final = 256


class NearestSoFar:
    """The nearest of all rows seen so far for each query, by Euclidean distance.

    A row is compared by `q * x - |x|^2 / 2`, which orders rows as the distance does and needs one matrix product;
    the distance to the winner is computed from the difference, so equal vectors are exactly 0 apart. Vectors are
    moved by `origin` first: far from it, float32 could not tell neighbours apart.

    Attributes:
        rows: int64, the number of the nearest row of each query; -1 while there is none.
    """

    def __init__(self, queries: Floats) -> None:
        """Takes the queries, float32 of shape (n, d)."""
        n, dim = queries.shape
        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._origin = self._queries.mean(axis=0) if n else np.zeros(dim, dtype=np.float32)
        # One more number each, by which the product subtracts half the square as well.
        self._factors = np.ones((dim + 1, n), dtype=np.float32)
        self._factors[:dim] = (self._queries - self._origin).T
        self._scores = np.full(n, -np.inf, dtype=np.float32)
        self._vectors = np.zeros_like(self._queries)
        self.rows: Rows = np.full(n, -1, dtype=np.int64)

    def see_block(self, first_row: int, block: Floats, *, but: Sequence[tuple[int, int]] = ()) -> None:
        """Compares all queries with the rows of a block. Costs one matrix product, rows x d x n.

        Args:
            first_row: number of the block's first row.
            block: float32 of shape (rows, d).
            but: pairs of (query, row within the block) that do not count.
        """
        if not len(block) or not len(self._queries):
            return
        scores = self._extend(block) @ self._factors
        for query, row in but:
            scores[row, query] = -np.inf
        self._keep_better(0, scores, first_row, block)

    def see_each_other(self, first_row: int) -> None:
        """Compares each query with those before it, which are the rows from `first_row` on."""
        extended = self._extend(self._queries)
        for start in range(0, len(self._queries), _STRIPE):
            stop = min(start + _STRIPE, len(self._queries))
            scores = extended[:stop] @ self._factors[:, start:stop]
            scores[start:][np.tril_indices(stop - start)] = -np.inf
            self._keep_better(start, scores, first_row, self._queries)

    def compute_distances(self) -> NDArray[np.float64]:
        """Euclidean distance of each query to its nearest row; infinite where there is none."""
        gaps = self._queries.astype(np.float64) - self._vectors
        distances: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", gaps, gaps))
        distances[self.rows < 0] = np.inf
        return distances

    def _extend(self, rows: Floats) -> Floats:
        extended = np.empty((len(rows), rows.shape[1] + 1), dtype=np.float32)
        moved = extended[:, :-1]
        np.subtract(rows, self._origin, out=moved)
        np.multiply(np.einsum("ij,ij->i", moved, moved), np.float32(-0.5), out=extended[:, -1])
        return extended

    def _keep_better(self, first_query: int, scores: Floats, first_row: int, rows: Floats) -> None:
        """Takes over what is better than before; `scores` is of shape (rows, queries)."""
        best = scores.max(axis=0)
        better = np.flatnonzero(best > self._scores[first_query : first_query + len(best)])
        if not len(better):
            return
        winners = scores[:, better].argmax(axis=0)
        queries = better + first_query
        self._scores[queries] = best[better]
        self._vectors[queries] = rows[winners]
        self.rows[queries] = first_row + winners
