"""The embedding CSV as a file: written and checked in a stream.

Format: UTF-8, header `filenames,embedding_0,...,embedding_{d-1},labels`, one row a sample, integer labels, CRLF.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from watcher.domain.errors import DatasetError
from watcher.lightly.files import open_replacement

_QUOTED = re.compile(r'[",\r\n]')
_EMBEDDING_COLUMN = re.compile(r"embedding_\d+")
_BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class EmbeddingsFile:
    """What an embedding CSV holds.

    Attributes:
        n_rows: rows below the header.
        dim: numbers in a vector.
        n_extra_columns: columns behind `labels`.
    """

    n_rows: int
    dim: int
    n_extra_columns: int = 0


def write_embeddings_csv(
    target: str | Path | BinaryIO,
    names: Iterable[str],
    vectors: Any,
    labels: Iterable[int] | None = None,
) -> EmbeddingsFile:
    """Writes an embedding CSV.

    Numbers are written so that they read back exactly: 9 digits for 32-bit arrays, 17 at most for others.

    Args:
        target: a path, whose file is replaced only once the new one is whole; or a binary file to write to.
        names: file names, one a row, each once.
        vectors: array of shape (n, d), or any iterable of n rows of d numbers; read in blocks of 1024 rows.
        labels: one integer a row; absent: 0.

    Raises:
        DatasetError: lengths differ, a name is empty or comes twice, a number is not finite, or d is 0.
    """
    if isinstance(target, (str, Path)):
        with open_replacement(Path(target)) as file:
            return _write_rows(file, names, vectors, labels)
    return _write_rows(target, names, vectors, labels)


def build_header(dim: int) -> list[str]:
    """The column names for vectors of `dim` numbers."""
    return ["filenames", *(f"embedding_{number}" for number in range(dim)), "labels"]


def _write_rows(
    file: BinaryIO, names: Iterable[str], vectors: Any, labels: Iterable[int] | None
) -> EmbeddingsFile:
    seen: set[str] = set()
    label_iterator = iter(labels) if labels is not None else None
    name_iterator = iter(names)
    dim = 0
    pattern = ""
    lines: list[str] = []
    for vector, single in _iter_vectors(vectors):
        name = next(name_iterator, None)
        label = 0 if label_iterator is None else next(label_iterator, None)
        if name is None or label is None:
            raise DatasetError(
                f"more vectors than {'names' if name is None else 'labels'}: {len(seen)} rows fit"
            )
        if not name or name in seen:
            raise DatasetError(f"the file name {name[:200]!r} in row {len(seen) + 1} is empty or comes twice")
        seen.add(name)
        if not dim:
            dim = len(vector)
            if not dim:
                raise DatasetError("the vectors are empty")
            pattern = ",".join(["%.9g"] * dim)
            lines.append(",".join(build_header(dim)) + "\r\n")
        if len(vector) != dim or not all(map(math.isfinite, vector)):
            raise DatasetError(f"the vector of {name[:200]!r} does not have {dim} finite numbers")
        numbers = pattern % tuple(vector) if single else ",".join(map(_format_number, vector))
        lines.append(f"{quote_cell(name)},{numbers},{int(label)}\r\n")
        if len(lines) >= _BLOCK_ROWS:
            file.write("".join(lines).encode())
            lines.clear()
    if next(name_iterator, None) is not None:
        raise DatasetError(f"more names than the {len(seen)} vectors")
    if label_iterator is not None and next(label_iterator, None) is not None:
        raise DatasetError(f"more labels than the {len(seen)} vectors")
    if not seen:
        raise DatasetError("there are no vectors to write")
    file.write("".join(lines).encode())
    return EmbeddingsFile(n_rows=len(seen), dim=dim)


def _iter_vectors(vectors: Any) -> Iterator[tuple[Sequence[float], bool]]:
    shape = getattr(vectors, "shape", None)
    if shape is None:
        for vector in vectors:
            single = getattr(vector, "dtype", None) in ("float32", "float16")
            yield vector.tolist() if hasattr(vector, "tolist") else vector, single
        return
    if len(shape) != 2:
        raise DatasetError(f"the vectors must be an array of two dimensions, not of shape {tuple(shape)}")
    single = str(vectors.dtype) in ("float32", "float16")
    for start in range(0, shape[0], _BLOCK_ROWS):
        for vector in vectors[start : start + _BLOCK_ROWS].tolist():
            yield vector, single


def _format_number(number: float) -> str:
    return repr(float(number))


def quote_cell(text: str) -> str:
    """A cell as CSV writes it: quoted where it holds a comma, a quote or a line break."""
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def check_header(header: Sequence[str]) -> EmbeddingsFile:
    """Checks the column names; gives the shape with 0 rows.

    Raises:
        DatasetError: they are not `filenames`, `embedding_<number>`..., `labels`, in this order.
    """
    if not header or header[0] != "filenames":
        raise DatasetError("the first column of an embedding CSV must be called exactly 'filenames'")
    blank = next((name for name in header if name != name.strip()), None)
    if blank is not None:
        raise DatasetError(f"the column name {blank[:100]!r} has blanks around it")
    if "labels" not in header:
        raise DatasetError("an embedding CSV needs a column 'labels' behind the numbers")
    end = list(header).index("labels")
    wrong = next((name for name in header[1:end] if not _EMBEDDING_COLUMN.fullmatch(name)), None)
    if wrong is not None:
        raise DatasetError(f"the column {wrong[:100]!r} is not called embedding_<number>")
    if end == 1:
        raise DatasetError("an embedding CSV needs at least one column embedding_<number>")
    if len(set(header[:end])) != end:
        raise DatasetError("a column name comes twice in the embedding CSV")
    return EmbeddingsFile(n_rows=0, dim=end - 1, n_extra_columns=len(header) - end - 1)


def check_embeddings_csv(path: str | Path) -> EmbeddingsFile:
    """Reads an embedding CSV once, row by row, and checks all of it.

    Raises:
        DatasetError: wrong header, an empty or short row, a cell that is no finite number, a label that is no
            integer, text that is not UTF-8. The text names the row.
    """
    with open_csv(path) as (header, rows):
        shape = check_header(header)
        n_rows = 0
        for n_rows, row in enumerate(rows, start=1):
            check_row(row, len(header), shape.dim, n_rows)
    return EmbeddingsFile(n_rows=n_rows, dim=shape.dim, n_extra_columns=shape.n_extra_columns)


def check_row(row: Sequence[str], n_columns: int, dim: int, number: int) -> None:
    """Raises DatasetError unless a row has a name, `dim` finite numbers and an integer label."""
    if len(row) != n_columns or not row[0]:
        raise DatasetError(
            f"row {number} of the embedding CSV has {len(row)} cells instead of {n_columns}, or no name"
        )
    try:
        sound = all(map(math.isfinite, map(float, row[1 : dim + 1])))
        int(row[dim + 1])
    except ValueError:
        sound = False
    if not sound:
        raise DatasetError(
            f"row {number} of the embedding CSV holds a cell that is no finite number or integer label"
        )


@contextmanager
def open_csv(path: str | Path) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """Opens a CSV file; gives its header and an iterator of its rows.

    Raises:
        DatasetError: the file is empty, not UTF-8 or no CSV; also from the iterator.
    """
    with Path(path).open("rb") as file:
        rows = iter_csv(file)
        header = next(rows, None)
        if header is None:
            raise DatasetError("the embedding CSV is empty")
        yield header, rows


def iter_csv(file: BinaryIO) -> Iterator[list[str]]:
    """The rows of a binary file of CSV, header included; DatasetError where it is none."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield from csv.reader(text, strict=True)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"the embedding CSV cannot be read: {error}") from None
    finally:
        if not text.closed:
            text.detach()
