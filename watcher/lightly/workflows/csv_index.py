"""Random access to the rows of an embedding CSV by name; only names and positions are in memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from watcher.domain.errors import DatasetError
from watcher.lightly.workflows.csv_files import (
    EmbeddingsFile,
    build_header,
    check_header,
    check_row,
    quote_cell,
)


class CsvIndex(Mapping[str, list[str]]):
    """The rows of a checked CSV: name to the numbers and the label behind it, columns behind the label cut off.

    Opening reads the file once and checks every row. Use it as a context manager.

    Args:
        path: the file; it must not change meanwhile.
        last_wins: whether of rows of one name the last one counts; else they are an error.

    Raises:
        DatasetError: see `csv_files.check_embeddings_csv`; a name comes twice.
    """

    def __init__(self, path: str | Path, *, last_wins: bool = False) -> None:
        self._positions: dict[str, tuple[int, int]] = {}
        self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115 - closed by close()
        try:
            self._read(last_wins=last_wins)
        except BaseException:
            self._file.close()
            raise

    def _read(self, *, last_wins: bool) -> None:
        lines = _CountedLines(self._file)
        rows = csv.reader(lines, strict=True)
        number = 0
        try:
            header = next(rows, None)
            if header is None:
                raise DatasetError("the embedding CSV is empty")
            self.header = header
            self.shape: EmbeddingsFile = check_header(header)
            start = lines.n_bytes
            for number, row in enumerate(rows, start=1):
                check_row(row, len(header), self.shape.dim, number)
                if row[0] in self._positions and not last_wins:
                    raise DatasetError(f"the file name {row[0][:200]!r} comes twice in the embedding CSV")
                self._positions[row[0]] = (start, lines.n_bytes)
                start = lines.n_bytes
        except (csv.Error, UnicodeDecodeError) as error:
            raise DatasetError(f"the embedding CSV cannot be read behind row {number}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __getitem__(self, name: str) -> list[str]:
        start, end = self._positions[name]
        self._file.seek(start)
        text = self._file.read(end - start).decode("utf-8")
        row = next(csv.reader(io.StringIO(text, newline=""), strict=True))
        return row[1 : self.shape.dim + 2]

    def __iter__(self) -> Iterator[str]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, name: object) -> bool:
        return name in self._positions

    @property
    def columns(self) -> list[str]:
        """The column names up to `labels`."""
        return self.header[: self.shape.dim + 2]

    def is_canonical(self, names: list[str]) -> bool:
        """Whether the file holds exactly these names in this order, under the usual header."""
        return self.header == build_header(self.shape.dim) and list(self._positions) == names

    def write_rows(self, file: BinaryIO, names: Iterable[str]) -> None:
        """Writes a CSV of the rows of the given names, in their order, under the usual header."""
        file.write((",".join(build_header(self.shape.dim)) + "\r\n").encode())
        for name in names:
            cells = ",".join(self[name])
            file.write(f"{quote_cell(name)},{cells}\r\n".encode())


class _CountedLines:
    """Lines of a binary file as text, with the number of bytes they took."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.n_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.n_bytes += len(line)
            yield line.decode("utf-8")


def check_same_names(names: Mapping[str, object], file_names: list[str]) -> None:
    """Raises DatasetError unless both hold the same names."""
    missing = [name for name in file_names if name not in names]
    extra = set(names).difference(file_names) if len(names) + len(missing) > len(file_names) else set()
    if missing or extra:
        parts = []
        if missing:
            parts.append(
                f"{len(missing)} samples of the dataset have no row, the first is {missing[0][:200]!r}"
            )
        if extra:
            parts.append(f"{len(extra)} rows belong to no sample, one is {min(extra)[:200]!r}")
        raise DatasetError("the embedding CSV does not fit the dataset: " + "; ".join(parts))
