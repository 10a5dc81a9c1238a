"""Lines of picks as JSON Lines, CSV or Parquet; memory is one chunk of lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from watcher.domain.delivery import ManifestFormat
from watcher.domain.errors import ConfigError
from watcher.sinks.base import PickedSample, PickLine

COLUMNS = PickLine.__struct_fields__


def write_lines(file: BinaryIO, chunks: Iterable[list[PickedSample]], form: ManifestFormat) -> None:
    """Writes all lines.

    JSON Lines have `reason` as an object; CSV (UTF-8, a header, quotes where needed) and Parquet as JSON text.

    Raises:
        ConfigError: Parquet is asked for, and pyarrow is not installed.
    """
    if form is ManifestFormat.JSONL:
        for chunk in chunks:
            file.writelines(msgspec.json.encode(pick.line) + b"\n" for pick in chunk)
    elif form is ManifestFormat.CSV:
        _write_csv(file, chunks)
    else:
        _write_parquet(file, chunks)


def read_file_names(file: BinaryIO, form: ManifestFormat) -> Iterator[str]:
    """The file names of what `write_lines` wrote, by line.

    Raises:
        ValueError: it is something else.
        ConfigError: Parquet is asked for, and pyarrow is not installed.
    """
    if form is ManifestFormat.JSONL:
        for line in file:
            yield _JSON_LINE.decode(line).file_name
    elif form is ManifestFormat.CSV:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            rows = csv.reader(text, strict=True)
            if next(rows, None) != list(COLUMNS):
                raise ValueError("not the columns of a manifest")
            yield from (row[0] for row in rows)
        except (csv.Error, IndexError) as error:
            raise ValueError("no manifest") from error
        finally:
            text.detach()
    else:
        _, pq = import_pyarrow()
        try:
            for batch in pq.ParquetFile(file).iter_batches(columns=["file_name"]):
                yield from batch.column(0).to_pylist()
        except (OSError, IndexError) as error:
            raise ValueError("no manifest") from error


class _Line(msgspec.Struct):
    """As much of a line as tells which sample it is of."""

    file_name: str


_JSON_LINE = msgspec.json.Decoder(_Line)


def _write_csv(file: BinaryIO, chunks: Iterable[list[PickedSample]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        # The module quotes a carriage return only where it is part of the line's end, but takes it for one in reading.
        quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        for chunk in chunks:
            for pick in chunk:
                row = _row(pick.line)
                (quoting if "\r" in pick.line.file_name else writer).writerow(row.values())
    finally:
        text.detach()


def _write_parquet(file: BinaryIO, chunks: Iterable[list[PickedSample]]) -> None:
    pa, pq = import_pyarrow()
    schema = pa.schema([(name, pa.int32() if name == "rank" else pa.string()) for name in COLUMNS])
    with pq.ParquetWriter(file, schema) as writer:
        for chunk in chunks:
            writer.write_table(pa.Table.from_pylist([_row(pick.line) for pick in chunk], schema=schema))


def import_pyarrow() -> tuple[Any, Any]:
    """Pyarrow and its module for Parquet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped] # noqa: PLC0415 - 100 MB that only Parquet needs
        import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - see above
    except ImportError as error:
        raise ConfigError(
            "manifests as Parquet need pyarrow: install datasource-watcher[parquet], or choose csv or jsonl"
        ) from error
    return pa, pq


def _row(line: PickLine) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(line, name) for name in COLUMNS}
    row["reason"] = msgspec.json.encode(line.reason, order="sorted").decode()
    return row
