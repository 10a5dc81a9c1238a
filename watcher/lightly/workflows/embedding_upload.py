"""`upload_embeddings` and `append_embeddings`: a caller's CSV to a stored embedding, whatever is stored already."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from watcher.domain.errors import DatasetError, EmbeddingDoesNotExistError
from watcher.lightly import embeddings, mappings
from watcher.lightly.transport import Transport
from watcher.lightly.wire.embeddings import DatasetEmbeddingData, DimensionalityReductionMethod
from watcher.lightly.workflows.csv_files import write_embeddings_csv
from watcher.lightly.workflows.csv_index import CsvIndex, check_same_names
from watcher.lightly.workflows.embeddings import (
    append_embeddings_stream,
    ask_for_projections,
    upload_embeddings_csv,
)

_SUFFIX = re.compile(r"_\d{8}_\d{2}h\d{2}m\d{2}s(?:_\d+)?")
_MAX_NAMES = 1000


def find_embedding(
    transport: Transport, *, dataset_id: str, name: str, ignore_suffix: bool
) -> DatasetEmbeddingData:
    """The newest embedding called `name`, or with `ignore_suffix` also `name` with the time of an upload behind it.

    Raises:
        EmbeddingDoesNotExistError: there is none.
    """
    for found in embeddings.fetch_embeddings(transport, dataset_id=dataset_id):
        if found.name == name or (ignore_suffix and is_of_family(found.name, name)):
            return found
    raise EmbeddingDoesNotExistError(f"the dataset has no embedding {name[:200]!r}")


def is_of_family(name: str, base: str) -> bool:
    """Whether a name is `base`, or `base` with the time of an upload behind it."""
    return name == base or (name.startswith(base) and _SUFFIX.fullmatch(name[len(base) :]) is not None)


def find_latest_embedding(transport: Transport, *, dataset_id: str) -> DatasetEmbeddingData:
    """The embedding made last, of those that are processed if there are any.

    Raises:
        EmbeddingDoesNotExistError: there is none.
    """
    found = embeddings.fetch_embeddings(transport, dataset_id=dataset_id)
    if not found:
        raise EmbeddingDoesNotExistError("the dataset has no embeddings: upload some with upload_embeddings")
    return next((embedding for embedding in found if embedding.is_processed), found[0])


def append_to_csv(transport: Transport, *, dataset_id: str, path: str | Path, embedding_id: str) -> None:
    """Merges the rows of a stored embedding into a local CSV, local rows first in rank; replaces it only when whole.

    Raises:
        DatasetError: one of the two is no embedding CSV, or their columns differ.
    """
    with CsvIndex(path, last_wins=True) as local:
        append_embeddings_stream(
            transport,
            dataset_id=dataset_id,
            embedding_id=embedding_id,
            out_path=path,
            new_rows=local,
            columns=local.columns,
        )


def upload_csv(
    transport: Transport,
    *,
    dataset_id: str,
    path: str | Path,
    name: str,
    time_suffix: str,
    projections: Sequence[DimensionalityReductionMethod],
) -> str:
    """Uploads a local CSV; the file itself is only read.

    Names that are in the dataset, but not in the file, are taken from the stored embedding of this name, if there
    is one. What is uploaded is one row a sample, in mapping order.

    Args:
        transport: the way.
        dataset_id: where to.
        path: the CSV, rows in any order.
        name: of the embedding; taken names get `time_suffix` behind them.
        time_suffix: `_YYYYmmdd_HHhMMmSSs`.
        projections: which ones to ask for; a failure of that only warns.

    Returns:
        The id of the embedding.

    Raises:
        DatasetError: the file is no embedding CSV, or does not fit the dataset.
    """
    file_names = mappings.fetch_file_names(transport, dataset_id=dataset_id)
    present = embeddings.fetch_embeddings(transport, dataset_id=dataset_id)
    with CsvIndex(path) as local, tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
        stored = next((one for one in present if one.is_processed and is_of_family(one.name, name)), None)
        if stored is not None and any(file_name not in local for file_name in file_names):
            merged_path = Path(folder, "merged.csv")
            append_embeddings_stream(
                transport,
                dataset_id=dataset_id,
                embedding_id=stored.id,
                out_path=merged_path,
                new_rows=local,
                columns=local.columns,
            )
            with CsvIndex(merged_path) as merged:
                ready = _put_in_order(merged, file_names, merged_path, Path(folder))
        else:
            ready = _put_in_order(local, file_names, Path(path), Path(folder))
        embedding_id = upload_embeddings_csv(
            transport,
            dataset_id=dataset_id,
            path=ready,
            name=_choose_name(present, name, time_suffix),
        )
    ask_for_projections(transport, dataset_id=dataset_id, embedding_id=embedding_id, methods=projections)
    return embedding_id


def _put_in_order(index: CsvIndex, file_names: list[str], path: Path, folder: Path) -> Path:
    check_same_names(index, file_names)
    if index.is_canonical(file_names):
        return path
    ordered = folder / "ordered.csv"
    with ordered.open("xb") as file:
        index.write_rows(file, file_names)
    return ordered


def _choose_name(present: list[DatasetEmbeddingData], name: str, time_suffix: str) -> str:
    """A free name; that of an upload that broke off counts as free."""
    taken = {one.name for one in present if one.is_processed}
    if name not in taken:
        return name
    candidates = [f"{name}{time_suffix}", *(f"{name}{time_suffix}_{n}" for n in range(1, _MAX_NAMES))]
    return next(candidate for candidate in candidates if candidate not in taken)


def write_parquet_as_csv(parquet_path: str | Path, csv_path: Path) -> None:
    """Writes a Parquet file as CSV, some thousand rows at a time.

    The file has a column `filenames`, one column `embedding` of lists or columns `embedding_<number>`, and maybe
    `labels`.

    Raises:
        DatasetError: pyarrow is not installed, or the file is not of this kind.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped] # noqa: PLC0415 - optional
        import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - see above
    except ImportError:
        raise DatasetError("reading Parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = pq.ParquetFile(parquet_path)
        columns = file.schema_arrow.names
        numbered = sorted(
            (name for name in columns if re.fullmatch(r"embedding_\d+", name)),
            key=lambda name: int(name.partition("_")[2]),
        )
        needed = ["filenames", *(["embedding"] if "embedding" in columns else numbered)]
        if "filenames" not in columns or len(needed) < 2:
            raise DatasetError(
                "a Parquet file of embeddings needs a column 'filenames', and 'embedding' or 'embedding_<number>'"
            )
        with_labels = "labels" in columns
        names, vectors, labels = _split_columns(file, needed, with_labels=with_labels)
        write_embeddings_csv(csv_path, names, vectors, labels)
    except (pa.ArrowException, TypeError) as error:
        raise DatasetError(f"the Parquet file cannot be read: {error}") from None


def _split_columns(
    file: Any, needed: list[str], *, with_labels: bool
) -> tuple[Iterable[str], Iterable[Any], Iterable[int] | None]:
    def iter_names() -> Iterable[str]:
        for batch in file.iter_batches(batch_size=4096, columns=["filenames"]):
            yield from batch.column("filenames").to_pylist()

    def iter_labels() -> Iterable[int]:
        for batch in file.iter_batches(batch_size=4096, columns=["labels"]):
            yield from batch.column("labels").to_pylist()

    def iter_vectors() -> Iterable[Any]:
        for batch in file.iter_batches(batch_size=4096, columns=needed[1:]):
            parts = [batch.column(name).to_pylist() for name in needed[1:]]
            yield from parts[0] if needed[1] == "embedding" else zip(*parts, strict=True)

    return iter_names(), iter_vectors(), iter_labels() if with_labels else None
