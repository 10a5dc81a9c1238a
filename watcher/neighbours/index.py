"""An index of known vectors in a file beside the data, for datasets too large to compare with every vector.

The index is usearch's (a graph by Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
hierarchical navigable small world graphs", 2018). It is approximate: it may miss the nearest vector and name one that
is a little farther. The file is a copy of what the store holds and is made anew whenever it does not fit it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from watcher.neighbours.exact import Floats, Rows

# Half precision: candidates are compared by their exact vectors afterwards.
_DTYPE: Final = "f16"
_CONNECTIVITY: Final = 16
_EXPANSION_ADD: Final = 64
_EXPANSION_SEARCH: Final = 96
_FORMAT: Final = 1


class IndexHead(msgspec.Struct, frozen=True):
    """What an index file was made of.

    Attributes:
        n_rows: it holds the rows from 0 to this, without it.
        fingerprint: of the last row among them, so that rows of another store are noticed.
    """

    format: int
    dim: int
    n_rows: int
    fingerprint: str


def is_available() -> bool:
    """Whether usearch is installed."""
    return importlib.util.find_spec("usearch") is not None


class NeighbourIndex:
    """One index file with its head beside it; `path` is without their endings."""

    def __init__(self, path: Path, *, dim: int) -> None:
        self._file = path.with_name(f"{path.name}.usearch")
        self._head_file = path.with_name(f"{path.name}.json")
        self._dim = dim

    def read_head(self) -> IndexHead | None:
        """What the file was made of; None if there is none, or one of another kind."""
        try:
            head = msgspec.json.decode(self._head_file.read_bytes(), type=IndexHead)
        except (OSError, msgspec.DecodeError):
            return None
        fits = head.format == _FORMAT and head.dim == self._dim and self._file.exists()
        return head if fits else None

    def write(
        self, blocks: Iterable[tuple[int, Floats]], *, fingerprint: str, n_rows: int, keep: bool
    ) -> None:
        """Adds rows and puts the file in the place of the old one; the whole index is in memory meanwhile.

        Args:
            blocks: (number of the first row, vectors).
            fingerprint: of the last row.
            n_rows: how many rows the file has in the end.
            keep: whether the rows of the present file stay.
        """
        index = self._build()
        if keep:
            index.load(str(self._file))
        for first_row, vectors in blocks:
            index.add(np.arange(first_row, first_row + len(vectors), dtype=np.uint64), vectors)
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Without its head the file counts for nothing, so a crash between the two renamings leaves no false pair.
        with contextlib.suppress(FileNotFoundError):
            self._head_file.unlink()
        temporary = self._file.with_suffix(".part")
        index.save(str(temporary))
        os.replace(temporary, self._file)  # noqa: PTH105 - the name of the system call is the point
        head = IndexHead(format=_FORMAT, dim=self._dim, n_rows=n_rows, fingerprint=fingerprint)
        temporary = self._head_file.with_suffix(".part")
        temporary.write_bytes(msgspec.json.encode(head))
        os.replace(temporary, self._head_file)  # noqa: PTH105 - the name of the system call is the point

    def search(self, queries: Floats, *, n: int) -> Rows:
        """Numbers of rows near each query, int64 of shape (len(queries), n), -1 where there are fewer.

        The file is mapped into memory, not read as a whole.
        """
        index = self._build()
        index.view(str(self._file))
        found = index.search(queries, n)
        keys: NDArray[np.uint64] = np.atleast_2d(found.keys)
        rows = np.full((len(queries), n), -1, dtype=np.int64)
        counts = np.atleast_1d(found.counts) if hasattr(found, "counts") else [len(found)]
        for number, count in enumerate(counts):
            rows[number, :count] = keys[number, :count]
        return rows

    def _build(self) -> Any:
        from usearch.index import Index  # noqa: PLC0415 - optional

        return Index(
            ndim=self._dim,
            metric="l2sq",
            dtype=_DTYPE,
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
