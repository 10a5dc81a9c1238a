"""Takes in an uploaded embedding: checks the CSV and writes its vectors as a float32 matrix in mapping order.

The file is read once, a thousand rows at a time; names are looked up in the database, so memory does not grow with
the number of samples beyond one byte each.
"""

from __future__ import annotations

import csv
import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.lib.format import open_memmap

from watcher.platform.blobs import build_embedding_key
from watcher.platform.faults import Fault, invalid, taken, unknown
from watcher.platform.store import datasets as dataset_store
from watcher.platform.store import embeddings as store
from watcher.platform.store import samples as sample_store

if TYPE_CHECKING:
    from watcher.platform.context import Platform

_BATCH = 1000
_MAX_ROW = 4 * 1024 * 1024
_MAX_DIMENSIONS = 65_536
_LABEL = re.compile(r"\s*[+-]?[0-9]+\s*")
_COLUMN = re.compile(r"embedding_[0-9]+")


def refuse(text: str, code: str = "EMBEDDING_INVALID") -> Fault:
    """422 with what is wrong in the file."""
    return invalid(f"the CSV is not accepted: {text}", code)


def store_upload(platform: Platform, *, dataset_id: str, embedding_id: str, path: Path, now_ms: int) -> None:
    """Checks the file, keeps it with its vectors, and marks the embedding as processed.

    The same content again is a success; another content for a processed embedding is refused.

    Raises:
        Fault: the file is wrong, or the embedding is gone or has other content.
    """
    digest = _compute_digest(path)
    with platform.database.read() as session:
        embedding = store.load_embedding(session, dataset_id=dataset_id, embedding_id=embedding_id)
        dataset = dataset_store.load_dataset_by_id(session, dataset_id=dataset_id)
    if embedding is None or dataset is None:
        raise unknown("EMBEDDING_UNKNOWN", "the embedding of this URL is gone")
    if embedding.is_processed:
        if embedding.digest == digest:
            return
        raise taken("EMBEDDING_NAME_EXISTS", "this embedding has its content already: choose another name")
    matrix_path = platform.blobs.build_temp_path(secrets.token_hex(12))
    keys = {kind: build_embedding_key(dataset_id, embedding_id, digest, kind) for kind in ("npy", "csv")}
    try:
        n_rows, n_dimensions = _convert(
            platform, path, matrix_path, dataset_id, n_samples=dataset.n_samples, tags_size=dataset.tags_size
        )
        platform.blobs.put_file(keys["npy"], matrix_path)
        platform.blobs.put_file(keys["csv"], path)
    finally:
        matrix_path.unlink(missing_ok=True)
    values = {"is_processed": True, "n_rows": n_rows, "n_dimensions": n_dimensions, "digest": digest}
    try:
        with platform.database.write() as session:
            row = store.load_embedding(session, dataset_id=dataset_id, embedding_id=embedding_id, lock=True)
            if row is None:
                raise unknown("EMBEDDING_UNKNOWN", "the embedding was deleted meanwhile")
            if row.is_processed and row.digest != digest:
                raise taken("EMBEDDING_NAME_EXISTS", "another upload of this embedding was faster")
            store.update_embedding(session, embedding_id=embedding_id, values=values)
            dataset_store.update_dataset(session, dataset_id=dataset_id, values={"modified_at": now_ms})
    except Fault:
        # No row names this content, and none will: its digest lost.
        for key in keys.values():
            platform.blobs.delete(key)
        raise


def _compute_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Rows:
    """The rows of a file, each of bounded length: quoted line breaks would let a single one grow for ever."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._left = _MAX_ROW
        self._reader = csv.reader(self._lines(), strict=True)

    def _lines(self) -> Iterator[str]:
        while line := self._file.readline(self._left + 1):
            self._left -= len(line)
            if self._left < 0:
                raise refuse(f"a row is longer than {_MAX_ROW} characters")
            yield line

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        row = next(self._reader)
        self._left = _MAX_ROW
        return row


def check_header(header: list[str]) -> int:
    """The number of dimensions."""
    if len(header) < 3 or header[0] != "filenames" or "labels" not in header:
        raise refuse("the header must be filenames,embedding_0,...,labels")
    end = header.index("labels")
    columns = header[1:end]
    if not columns or not all(_COLUMN.fullmatch(name) for name in columns):
        raise refuse("the columns between filenames and labels must be called embedding_<number>")
    if len(columns) > _MAX_DIMENSIONS:
        raise refuse(f"there are more than {_MAX_DIMENSIONS} dimensions")
    if len(set(columns)) != len(columns):
        raise refuse("a column name occurs twice")
    return len(columns)


def _convert(
    platform: Platform, path: Path, target: Path, dataset_id: str, *, n_samples: int, tags_size: int
) -> tuple[int, int]:
    if n_samples == 0:
        raise refuse("the dataset has no samples", "EMBEDDING_ROW_COUNT_INVALID")
    seen = np.zeros(n_samples, dtype=bool)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = _Rows(file)
            header = next(reader, [])
            n_dimensions = check_header(header)
            matrix = open_memmap(target, mode="w+", dtype=np.float32, shape=(n_samples, n_dimensions))
            n_rows = 0
            while batch := _read_batch(reader, len(header), n_dimensions, n_rows):
                positions = _find_positions(platform, dataset_id, [row[0] for row in batch], n_rows)
                _check_new(seen, positions, batch)
                matrix[positions] = _read_values(batch, n_dimensions, n_rows)
                seen[positions] = True
                n_rows += len(batch)
            matrix.flush()
    except UnicodeDecodeError as error:
        raise refuse("it is not UTF-8") from error
    except csv.Error as error:
        raise refuse(str(error)) from error
    # Samples may be registered while a CSV is under way, so any beginning of the mapping that the tags know will do.
    if not (tags_size or n_samples) <= n_rows <= n_samples or not seen[:n_rows].all():
        raise refuse(
            f"it has {n_rows} rows, the dataset {n_samples} samples: one row for each is needed",
            "EMBEDDING_ROW_COUNT_INVALID",
        )
    if n_rows < n_samples:
        _cut(target, n_rows)
    return n_rows, n_dimensions


def _cut(target: Path, n_rows: int) -> None:
    whole = np.load(target, mmap_mode="r")
    shorter = target.with_name(target.name + "-cut")
    try:
        copy = open_memmap(shorter, mode="w+", dtype=np.float32, shape=(n_rows, whole.shape[1]))
        for first in range(0, n_rows, 65_536):
            copy[first : first + 65_536] = whole[first : min(first + 65_536, n_rows)]
        copy.flush()
        shorter.replace(target)
    finally:
        shorter.unlink(missing_ok=True)


def _read_batch(
    reader: Iterator[list[str]], n_columns: int, n_dimensions: int, n_before: int
) -> list[list[str]]:
    batch: list[list[str]] = []
    # Wide rows make smaller batches.
    size = max(1, min(_BATCH, 1_000_000 // n_dimensions))
    for row in reader:
        if len(row) != n_columns:
            raise refuse(
                f"row {n_before + len(batch) + 1} has {len(row)} columns, the header has {n_columns}"
            )
        label = row[n_dimensions + 1]
        if not _LABEL.fullmatch(label):
            raise refuse(
                f"row {n_before + len(batch) + 1} has the label {label[:50]!r}: labels are whole numbers"
            )
        batch.append(row)
        if len(batch) == size:
            break
    return batch


def _read_values(
    batch: list[list[str]], n_dimensions: int, n_before: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    try:
        wide = np.array([[float(text) for text in row[1 : n_dimensions + 1]] for row in batch])
    except ValueError as error:
        raise refuse(f"in the rows from {n_before + 1} on: {error}") from error
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    if not np.isfinite(values).all():
        row = n_before + 1 + int(np.argmin(np.isfinite(values).all(axis=1)))
        raise refuse(f"row {row} has a value that is not finite")
    return values


def _find_positions(
    platform: Platform, dataset_id: str, names: list[str], n_before: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    with platform.database.read() as session:
        # Clients send the rows in mapping order, so mostly this is enough.
        expected = sample_store.load_names(
            session, dataset_id=dataset_id, first=n_before, end=n_before + len(names)
        )
        if expected == names:
            return np.arange(n_before, n_before + len(names), dtype=np.int64)
        found = sample_store.load_positions(
            session, dataset_id=dataset_id, names=[name for name in names if "\0" not in name]
        )
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise refuse(f"there is no sample {missing[:200]!r} in the dataset")
    return np.array([found[name] for name in names], dtype=np.int64)


def _check_new(
    seen: np.ndarray[tuple[int], np.dtype[np.bool_]],
    positions: np.ndarray[tuple[int], np.dtype[np.int64]],
    batch: list[list[str]],
) -> None:
    if positions.max() >= len(seen):
        raise refuse("a sample was added while the file was read: send it again")
    repeated = np.ones(len(positions), dtype=bool)
    repeated[np.unique(positions, return_index=True)[1]] = False
    repeated |= seen[positions]
    if repeated.any():
        raise refuse(f"{batch[int(np.argmax(repeated))][0][:200]!r} occurs twice")
