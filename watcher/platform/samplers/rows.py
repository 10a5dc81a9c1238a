"""Rows of a large matrix, read block by block, so that a memory-mapped file serves as well as an array."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from watcher.platform.samplers.hooks import Hooks

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

# 4096 rows of a few hundred float32 stay within the second-level cache together with their products.
BLOCK_ROWS = 4096
# Squares of differences of such numbers, summed over thousands of dimensions, stay within float32.
_LARGEST = np.float32(1e15)


def find_unusable(block: NDArray[np.floating]) -> int | None:
    """The first row that holds NaN, infinity or a number too large to be squared; None if all are fine."""
    # NaN fails the comparison too.
    if not block.size or (block.max() < _LARGEST and block.min() > -_LARGEST):
        return None
    return int(np.flatnonzero(~(np.abs(block) < _LARGEST).all(axis=1))[0])


def build_unusable(position: int) -> ValueError:
    """Names the vector."""
    return ValueError(f"the vector at position {position} holds NaN, infinity or too large numbers")


class Rows:
    """The candidates' rows, centred on their mean.

    Distances come from products of float32 numbers, whose error grows with the length of the vectors; taking the
    mean off first keeps that error small against the spread of the data, wherever in space the data lie.

    If the candidates fill at least half of a contiguous stretch, the whole stretch is read in slices and the rows
    between are masked; otherwise the candidates are gathered block by block. Local row numbers follow ascending
    positions in both cases.

    Attributes:
        mean: float32 of shape (d,).
        squares: float32 of shape (n,): squared lengths of the centred rows.
        masked: bool of shape (n,): rows between that are no candidates; None if there are none.
    """

    def __init__(self, vectors: Floats, candidates: Positions, hooks: Hooks) -> None:
        """Reads all candidates twice: once for the mean, once for the lengths.

        Args:
            vectors: float32 of shape (N, d).
            candidates: ascending positions without repeats, at least one.
            hooks: asked for cancellation after each block.

        Raises:
            ValueError: a candidate's vector holds NaN, infinity or numbers too large to be squared.
        """
        self._vectors = vectors
        first, last = int(candidates[0]), int(candidates[-1])
        self.masked: NDArray[np.bool_] | None = None
        self._gathered: Positions | None = None
        self._first = first
        if last - first + 1 <= 2 * len(candidates):
            self.n = last - first + 1
            if self.n > len(candidates):
                self.masked = np.ones(self.n, dtype=np.bool_)
                self.masked[candidates - first] = False
        else:
            self.n = len(candidates)
            self._gathered = candidates
        self._hooks = hooks
        self.mean: Floats = np.zeros(vectors.shape[1], dtype=np.float32)
        self.mean = self._compute_mean(len(candidates))
        self.squares: Floats = np.empty(self.n, dtype=np.float32)
        for start, block in self.iterate_blocks():
            squares = np.einsum("ij,ij->i", block, block)
            if self.masked is not None:
                squares[self.masked[start : start + len(block)]] = 0.0
            self.squares[start : start + len(block)] = squares

    def get_position(self, row: int) -> int:
        """Position in the matrix of a local row."""
        return self._first + row if self._gathered is None else int(self._gathered[row])

    def find_rows(self, positions: Positions) -> NDArray[np.intp]:
        """Local rows of candidates, given by their positions."""
        if self._gathered is None:
            return (positions - self._first).astype(np.intp)
        return np.searchsorted(self._gathered, positions)

    def check_values(self, positions: Positions) -> None:
        """Raises ValueError for a vector, at any positions of the matrix, that holds what candidates may not hold."""
        for start in range(0, len(positions), BLOCK_ROWS):
            self._hooks.check()
            part = positions[start : start + BLOCK_ROWS]
            unusable = find_unusable(self._vectors[part])
            if unusable is not None:
                raise build_unusable(int(part[unusable]))

    def take_centred(self, positions: Positions) -> Floats:
        """The vectors at any positions of the matrix, minus the mean; shape (len(positions), d)."""
        taken: Floats = np.asarray(self._vectors[positions], dtype=np.float32) - self.mean
        return taken

    def take_rows(self, rows: NDArray[np.intp]) -> Floats:
        """The centred vectors of local rows; shape (len(rows), d)."""
        positions = rows + self._first if self._gathered is None else self._gathered[rows]
        return self.take_centred(positions.astype(np.int64))

    def iterate_blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yields (first local row, centred rows); the array is overwritten by the next block."""
        buffer = np.empty((min(BLOCK_ROWS, self.n), self._vectors.shape[1]), dtype=np.float32)
        for start in range(0, self.n, BLOCK_ROWS):
            self._hooks.check()
            stop = min(start + BLOCK_ROWS, self.n)
            out = buffer[: stop - start]
            with np.errstate(invalid="ignore", over="ignore"):
                np.subtract(self._read(start, stop), self.mean, out=out)
            yield start, out

    def _read(self, start: int, stop: int) -> Floats:
        if self._gathered is None:
            return self._vectors[self._first + start : self._first + stop]
        return self._vectors[self._gathered[start:stop]]

    def _compute_mean(self, n_candidates: int) -> Floats:
        total = np.zeros(self._vectors.shape[1], dtype=np.float64)
        for start in range(0, self.n, BLOCK_ROWS):
            self._hooks.check()
            block = self._read(start, min(start + BLOCK_ROWS, self.n))
            kept = np.arange(len(block))
            if self.masked is not None:
                kept = np.flatnonzero(~self.masked[start : start + len(block)])
                block = block[kept]
            unusable = find_unusable(block)
            if unusable is not None:
                raise build_unusable(self.get_position(int(start + kept[unusable])))
            total += block.sum(axis=0, dtype=np.float64)
        mean: Floats = (total / n_candidates).astype(np.float32)
        return mean
