"""Nearest neighbours of a batch's vectors among everything the store knows: block by block, or by an index.

Up to `novelty.exact_up_to` vectors each is compared. Beyond it an index names candidates among the rows it covers;
these are compared by their exact vectors, and the rows after them as before. Without usearch everything is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watcher.domain.crash_points import crash_point
from watcher.jobs.context import RunContext
from watcher.logs import get_logger
from watcher.neighbours import NearestSoFar
from watcher.neighbours.index import NeighbourIndex, is_available
from watcher.store import neighbours, vectors

_log = get_logger("novelty")

_CANDIDATES: Final = 4
# The index is made longer when more rows than this, and more than this share of it, came after it.
_MOST_UNINDEXED: Final = 50_000
_MOST_UNINDEXED_SHARE: Final = 0.05


def find_nearest(
    context: RunContext, names: Sequence[str], queries: NDArray[np.float32], packed: set[str]
) -> tuple[NDArray[np.float64], list[str | None]]:
    """Distance and name of the nearest known vector of each query; earlier queries are known too.

    Args:
        context: the run.
        names: of the queries.
        queries: float32 of shape (n, d).
        packed: those of the names that are among the known vectors themselves; they do not count for themselves.

    Returns:
        Euclidean distances, infinite where nothing is known, and names. Exact but for what an index missed.
    """
    own = {name: number for number, name in enumerate(names) if name in packed}
    with context.database.read() as session:
        n_rows = neighbours.count_rows(session, watch_id=context.watch.id, embedder=context.embedder.name)
    index, n_indexed = _prepare_index(context, n_rows)
    search = NearestSoFar(queries)
    for block in iter_blocks(context, from_row=n_indexed, with_names=bool(own)):
        but = [(own[name], row) for row, name in enumerate(block.names) if name in own]
        search.see_block(block.first_row, block.vectors, but=but)
        context.check()
    search.see_each_other(n_rows)
    by_row = _load_names(context, {int(row) for row in search.rows if 0 <= row < n_rows})
    by_row.update({n_rows + number: name for number, name in enumerate(names)})
    if index is not None and len(queries):
        candidates = _load_candidates(context, index, queries)
        first_row = n_rows + len(names)
        if candidates:
            but = [(own[name], row) for row, name in enumerate(candidates) if name in own]
            search.see_block(first_row, np.stack(list(candidates.values())), but=but)
        by_row.update({first_row + number: name for number, name in enumerate(candidates)})
    return search.compute_distances(), [by_row.get(int(row)) for row in search.rows]


def iter_blocks(
    context: RunContext, *, from_row: int = 0, to_row: int | None = None, with_names: bool = False
) -> Iterator[neighbours.VectorBlock]:
    """The rows from one to another, block by block; some megabytes in memory."""
    while to_row is None or from_row < to_row:
        with context.database.read() as session:
            blocks = neighbours.load_blocks(
                session,
                watch_id=context.watch.id,
                embedder=context.embedder.name,
                dim=context.embedder.dim,
                from_row=from_row,
                with_names=with_names,
            )
        if not blocks:
            return
        for block in blocks:
            if to_row is not None and block.first_row >= to_row:
                return
            yield _cut(block, from_row, to_row)
            from_row = block.first_row + len(block.vectors)


def _cut(block: neighbours.VectorBlock, from_row: int, to_row: int | None) -> neighbours.VectorBlock:
    stop = len(block.vectors) if to_row is None else to_row - block.first_row
    part = slice(max(0, from_row - block.first_row), stop)
    return neighbours.VectorBlock(block.first_row + part.start, block.vectors[part], block.names[part])


def _prepare_index(context: RunContext, n_rows: int) -> tuple[NeighbourIndex | None, int]:
    """The index and how many rows it covers, made or made longer if need be; (None, 0) if all shall be compared."""
    folder = context.parts.index_dir
    if n_rows <= context.config.novelty.exact_up_to or folder is None:
        return None, 0
    if not is_available():
        _log.warning("index.not_installed", watch=context.watch.name, n_rows=n_rows, package="usearch")
        return None, 0
    kind = hashlib.sha256(context.embedder.name.encode()).hexdigest()[:12]
    index = NeighbourIndex(folder / f"{context.watch.id}-{kind}", dim=context.embedder.dim)
    head = index.read_head()
    is_ours = (
        head is not None
        and 0 < head.n_rows <= n_rows
        and head.fingerprint == _compute_fingerprint(context, head.n_rows - 1)
    )
    n_covered = head.n_rows if head is not None and is_ours else 0
    if n_covered and n_rows - n_covered <= max(_MOST_UNINDEXED, _MOST_UNINDEXED_SHARE * n_covered):
        return index, n_covered
    for path in folder.glob(f"{context.watch.id}-*"):
        if not path.name.startswith(f"{context.watch.id}-{kind}."):
            path.unlink(missing_ok=True)
    index.write(
        _iter_rows(context, from_row=n_covered, to_row=n_rows),
        fingerprint=_compute_fingerprint(context, n_rows - 1),
        n_rows=n_rows,
        keep=n_covered > 0,
    )
    crash_point("novelty.index_written")
    _log.info("index.written", watch=context.watch.name, n_rows=n_rows, n_added=n_rows - n_covered)
    return index, n_rows


def _iter_rows(
    context: RunContext, *, from_row: int, to_row: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for block in iter_blocks(context, from_row=from_row, to_row=to_row):
        yield block.first_row, block.vectors
        context.check()


def _compute_fingerprint(context: RunContext, row: int) -> str:
    """Of one vector and its name, so that rows of another store are noticed."""
    block = next(iter_blocks(context, from_row=row, to_row=row + 1, with_names=True), None)
    if block is None:
        return ""
    return hashlib.sha256(block.vectors.tobytes() + block.names[0].encode()).hexdigest()


def _load_candidates(
    context: RunContext, index: NeighbourIndex, queries: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """What the index names for any of the queries, with exact vectors."""
    rows = {int(row) for row in index.search(queries, n=_CANDIDATES).ravel() if row >= 0}
    names = list(_load_names(context, rows).values())
    with context.database.read() as session:
        return vectors.load_vectors(
            session, watch_id=context.watch.id, embedder=context.embedder.name, file_names=names
        )


def _load_names(context: RunContext, rows: set[int]) -> dict[int, str]:
    with context.database.read() as session:
        return neighbours.load_row_names(
            session,
            watch_id=context.watch.id,
            embedder=context.embedder.name,
            dim=context.embedder.dim,
            rows=rows,
        )
