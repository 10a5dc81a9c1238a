"""The embedding as the protocol knows it: one CSV with a row for every sample of the dataset, streamed."""

from __future__ import annotations

from pathlib import Path

from watcher.database.engine import Database
from watcher.domain.crash_points import crash_point
from watcher.jobs.vector_source import VectorSource
from watcher.lightly.mappings import iter_file_names
from watcher.lightly.workflows.csv_files import build_header, quote_cell
from watcher.store import vectors
from watcher.store.vectors import Vector

_CHUNK = 64
_CSV_CHUNK = 1000


def write_embedding_csv(database: Database, source: VectorSource, path: Path) -> int:
    """Writes a row for every sample of the dataset, in the order of the mapping; memory is one page of names.

    Vectors that the store lacks belong to samples that somebody else put into the dataset; they are computed from the
    thumbnails and kept.

    Returns:
        The number of rows.
    """
    dim = source.embedder.dim
    pattern = ",".join(["%.9g"] * dim)
    n_rows = 0
    with path.open("wb") as file:
        file.write((",".join(build_header(dim)) + "\r\n").encode())
        for names in iter_file_names(source.transport, dataset_id=source.watch.dataset_id):
            for start in range(0, len(names), _CSV_CHUNK):
                chunk = names[start : start + _CSV_CHUNK]
                known = _load_vectors(database, source, chunk)
                foreign = [name for name in chunk if name not in known]
                known.update(_embed_foreign(database, source, foreign))
                lines = (
                    f"{quote_cell(name)},{pattern % tuple(known[name].tolist())},0\r\n" for name in chunk
                )
                file.write("".join(lines).encode())
                n_rows += len(chunk)
                source.check()
    return n_rows


def _load_vectors(database: Database, source: VectorSource, file_names: list[str]) -> dict[str, Vector]:
    with database.read() as session:
        return vectors.load_vectors(
            session, watch_id=source.watch.id, embedder=source.embedder.name, file_names=file_names
        )


def _embed_foreign(database: Database, source: VectorSource, file_names: list[str]) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for start in range(0, len(file_names), _CHUNK):
        computed = source.compute_foreign(file_names[start : start + _CHUNK])
        with database.write() as session:
            vectors.record_vectors(
                session, watch_id=source.watch.id, embedder=source.embedder.name, rows=computed.rows
            )
        crash_point("embed.foreign_vectors_stored")
        found.update(computed.rows)
    return found
