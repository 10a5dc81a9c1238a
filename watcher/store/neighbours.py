"""Known vectors of a watch packed in blocks of about a megabyte, in the order in which they became known.

`vectors` answers by file name; a search for neighbours reads everything, and reads it here: some hundred rows instead
of a million. Rows are only ever added at the end, so a row's number names its vector for good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import false, func, insert, select, true, update
from sqlalchemy.orm import Session

from watcher.store.tables import samples, vector_blocks, vectors, watches
from watcher.store.vectors import Vector

_BLOCK_BYTES: Final = 1 << 20
_NAMES_A_STATEMENT: Final = 500


@dataclass(frozen=True, slots=True)
class VectorBlock:
    """Some rows; `vectors` is float32 of shape (rows, d)."""

    first_row: int
    vectors: NDArray[np.float32]
    names: tuple[str, ...] = ()


def compute_block_rows(dim: int) -> int:
    """How many vectors fill a block."""
    return max(1, _BLOCK_BYTES // (4 * dim))


def count_rows(session: Session, *, watch_id: int, embedder: str) -> int:
    """How many vectors are packed."""
    last = session.execute(
        select(vector_blocks.c.first_row, vector_blocks.c.n_rows)
        .where(vector_blocks.c.watch_id == watch_id, vector_blocks.c.embedder == embedder)
        .order_by(vector_blocks.c.first_row.desc())
        .limit(1)
    ).one_or_none()
    return 0 if last is None else last.first_row + last.n_rows


def load_blocks(
    session: Session,
    *,
    watch_id: int,
    embedder: str,
    dim: int,
    from_row: int = 0,
    limit: int = 8,
    with_names: bool = False,
) -> list[VectorBlock]:
    """The next blocks that reach beyond `from_row`, at most `limit`; the first may begin before it."""
    columns = [vector_blocks.c.first_row, vector_blocks.c.data]
    if with_names:
        columns.append(vector_blocks.c.names)
    statement = (
        select(*columns)
        .where(
            vector_blocks.c.watch_id == watch_id,
            vector_blocks.c.embedder == embedder,
            # Full blocks are all of one size, so this is a range of the key.
            vector_blocks.c.first_row > from_row - compute_block_rows(dim),
            vector_blocks.c.first_row + vector_blocks.c.n_rows > from_row,
        )
        .order_by(vector_blocks.c.first_row)
        .limit(limit)
    )
    return [
        VectorBlock(
            row.first_row,
            np.frombuffer(row.data, dtype="<f4").reshape(-1, dim),
            msgspec.msgpack.decode(row.names, type=tuple[str, ...]) if with_names else (),
        )
        for row in session.execute(statement)
    ]


def load_row_names(
    session: Session, *, watch_id: int, embedder: str, dim: int, rows: Collection[int]
) -> dict[int, str]:
    """The file names behind row numbers; reads the names of one block a row at the most."""
    size = compute_block_rows(dim)
    found: dict[int, str] = {}
    by_block: dict[int, list[int]] = {}
    for row in rows:
        by_block.setdefault(row - row % size, []).append(row)
    starts = sorted(by_block)
    for begin in range(0, len(starts), _NAMES_A_STATEMENT):
        statement = select(vector_blocks.c.first_row, vector_blocks.c.names).where(
            vector_blocks.c.watch_id == watch_id,
            vector_blocks.c.embedder == embedder,
            vector_blocks.c.first_row.in_(starts[begin : begin + _NAMES_A_STATEMENT]),
        )
        for first_row, packed in session.execute(statement):
            names = msgspec.msgpack.decode(packed, type=tuple[str, ...])
            for row in by_block[first_row]:
                if row - first_row < len(names):
                    found[row] = names[row - first_row]
    return found


def load_unpacked(
    session: Session, *, watch_id: int, embedder: str, but_batch_id: int, limit: int
) -> list[tuple[str, Vector]]:
    """Vectors that are in no block yet, without those of a batch's own samples, in the order of their names."""
    own = select(samples.c.id).where(
        samples.c.watch_id == watch_id,
        samples.c.file_name == vectors.c.file_name,
        samples.c.batch_id == but_batch_id,
    )
    statement = (
        select(vectors.c.file_name, vectors.c.data)
        .where(
            vectors.c.watch_id == watch_id,
            vectors.c.embedder == embedder,
            vectors.c.packed == false(),
            ~own.exists(),
        )
        .order_by(vectors.c.file_name)
        .limit(limit)
    )
    return [(row.file_name, np.frombuffer(row.data, dtype="<f4")) for row in session.execute(statement)]


def load_packed_names(
    session: Session, *, watch_id: int, embedder: str, file_names: Sequence[str]
) -> set[str]:
    """Which of the names are in a block already."""
    found: set[str] = set()
    for start in range(0, len(file_names), _NAMES_A_STATEMENT):
        statement = select(vectors.c.file_name).where(
            vectors.c.watch_id == watch_id,
            vectors.c.embedder == embedder,
            vectors.c.packed == true(),
            vectors.c.file_name.in_(file_names[start : start + _NAMES_A_STATEMENT]),
        )
        found.update(session.execute(statement).scalars())
    return found


def pack_vectors(
    session: Session, *, watch_id: int, embedder: str, dim: int, rows: Iterable[tuple[str, Vector]]
) -> int:
    """Adds vectors to the blocks; those that are in one already, and those without length, are passed over.

    The last block is filled up first, so small batches do not make small blocks.

    Args:
        session: an open transaction; the watch's row is locked in it, so two of them add one after another.
        watch_id: whose vectors.
        embedder: of which kind.
        dim: their length.
        rows: (file name, vector), in the order in which they become known.

    Returns:
        How many were added. Rewrites at most one block that was there.
    """
    session.execute(select(watches.c.id).where(watches.c.id == watch_id).with_for_update())
    wanted = dict(rows)
    known = load_packed_names(session, watch_id=watch_id, embedder=embedder, file_names=list(wanted))
    added = [(name, vector) for name, vector in wanted.items() if name not in known and vector.any()]
    _append(session, watch_id, embedder, dim, added)
    names = [name for name in wanted if name not in known]
    for start in range(0, len(names), _NAMES_A_STATEMENT):
        session.execute(
            update(vectors)
            .where(
                vectors.c.watch_id == watch_id,
                vectors.c.embedder == embedder,
                vectors.c.file_name.in_(names[start : start + _NAMES_A_STATEMENT]),
            )
            .values(packed=True)
        )
    return len(added)


def _append(
    session: Session, watch_id: int, embedder: str, dim: int, added: list[tuple[str, Vector]]
) -> None:
    size = compute_block_rows(dim)
    first_row, names, parts = _take_open_block(session, watch_id, embedder, size)
    is_new, start = not names, 0
    while start < len(added):
        fitting = added[start : start + size - len(names)]
        names += [name for name, _ in fitting]
        parts += [vector.astype("<f4").tobytes() for _, vector in fitting]
        values = {"n_rows": len(names), "names": msgspec.msgpack.encode(names), "data": b"".join(parts)}
        if is_new:
            key = {"watch_id": watch_id, "embedder": embedder, "first_row": first_row}
            session.execute(insert(vector_blocks).values(**key, **values))
        else:
            session.execute(
                update(vector_blocks)
                .where(
                    vector_blocks.c.watch_id == watch_id,
                    vector_blocks.c.embedder == embedder,
                    vector_blocks.c.first_row == first_row,
                )
                .values(**values)
            )
        start += len(fitting)
        first_row, names, parts, is_new = first_row + size, [], [], True


def _take_open_block(
    session: Session, watch_id: int, embedder: str, size: int
) -> tuple[int, list[str], list[bytes]]:
    """The block that is not full: its first row, names and data; an empty one at the end if all are."""
    last_row = session.execute(
        select(func.max(vector_blocks.c.first_row)).where(
            vector_blocks.c.watch_id == watch_id, vector_blocks.c.embedder == embedder
        )
    ).scalar()
    if last_row is None:
        return 0, [], []
    row = session.execute(
        select(vector_blocks.c.names, vector_blocks.c.data, vector_blocks.c.n_rows).where(
            vector_blocks.c.watch_id == watch_id,
            vector_blocks.c.embedder == embedder,
            vector_blocks.c.first_row == last_row,
        )
    ).one()
    if row.n_rows >= size:
        return last_row + size, [], []
    return last_row, list(msgspec.msgpack.decode(row.names, type=tuple[str, ...])), [bytes(row.data)]
