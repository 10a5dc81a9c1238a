"""Embeddings up to the server and back, as CSV in a stream."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, get_args

from watcher.domain.crash_points import crash_point
from watcher.domain.errors import (
    ApiException,
    CancelledError,
    DatasetError,
    DeadlineExceededError,
    EmbeddingDoesNotExistError,
    NotFoundException,
    TransportError,
    UnknownOutcomeError,
    WatcherError,
)
from watcher.lightly import embeddings
from watcher.lightly.files import open_replacement
from watcher.lightly.signed_urls import ReadStream
from watcher.lightly.transport import Transport
from watcher.lightly.wire.embeddings import (
    DatasetEmbeddingData,
    DimensionalityReductionMethod,
    WriteCSVUrlData,
)
from watcher.lightly.workflows.csv_files import (
    EmbeddingsFile,
    check_embeddings_csv,
    check_header,
    iter_csv,
    quote_cell,
    write_embeddings_csv,
)
from watcher.lightly.workflows.register import build_put_headers

__all__ = [
    "EmbeddingsFile",
    "append_embeddings_stream",
    "check_embeddings_csv",
    "upload_embeddings_csv",
    "wait_until_processed",
    "write_embeddings_csv",
]

ALL_PROJECTIONS: tuple[DimensionalityReductionMethod, ...] = get_args(DimensionalityReductionMethod)
_MAX_TRIES = 3
_MAX_CONSECUTIVE_FAILURES = 20
_DOWNLOAD_TIMEOUT_S = 3600.0


def upload_embeddings_csv(
    transport: Transport,
    *,
    dataset_id: str,
    path: str | Path,
    name: str,
    trigger_projections: bool = False,
) -> str:
    """Uploads a checked CSV under a name and gives the id of the embedding. Repeating it is harmless.

    An embedding of exactly this name that was processed is taken as done. One that was not is what an upload that
    broke off left behind; a fresh URL for it is asked for.

    Args:
        transport: the way.
        dataset_id: where to.
        path: the CSV, rows in mapping order; see `check_embeddings_csv`.
        name: natural key of the embedding.
        trigger_projections: whether to ask for PCA, TSNE and UMAP afterwards; a failure of that only warns.

    Raises:
        UnknownOutcomeError: the answer with the URL was lost, and this server does not give the name out again at once.
        ApiException, TransportError: see `signed_urls.put_signed_url`.
    """
    found = embeddings.fetch_embedding_by_name(transport, dataset_id=dataset_id, name=name)
    if found is not None and found.is_processed:
        return found.id
    target = _ensure_write_url(transport, dataset_id, name)
    if isinstance(target, DatasetEmbeddingData):
        return target.id
    crash_point("embedding.promised")
    for last_try in (False, True):
        try:
            _put_csv(transport, target.signed_write_url, Path(path))
            break
        except ApiException as error:
            if last_try or error.status not in (400, 401, 403):
                raise
        renewed = _ensure_write_url(transport, dataset_id, name)
        if isinstance(renewed, DatasetEmbeddingData):
            return renewed.id
        target = renewed
    if trigger_projections:
        ask_for_projections(transport, dataset_id=dataset_id, embedding_id=target.embedding_id)
    return target.embedding_id


def _ensure_write_url(
    transport: Transport, dataset_id: str, name: str
) -> WriteCSVUrlData | DatasetEmbeddingData:
    number, was_lost = 1, False
    while True:
        try:
            return embeddings.fetch_csv_write_url(transport, dataset_id=dataset_id, name=name)
        except TransportError:
            was_lost = True
            if number == _MAX_TRIES:
                raise
        except ApiException as error:
            if error.code != "EMBEDDING_NAME_EXISTS":
                raise
            found = embeddings.fetch_embedding_by_name(transport, dataset_id=dataset_id, name=name)
            if found is not None and found.is_processed:
                return found
            if number == _MAX_TRIES or found is None:
                if not was_lost:
                    raise
                # Not somebody else's: the answer that gave us the name was lost, so a later attempt may have it.
                raise UnknownOutcomeError(
                    f"whether the embedding {name!r} was promised is unknown: the answer was lost"
                ) from error
            # A leftover whose name this server does not give out again: without it the name is free.
            try:
                embeddings.delete_embedding(transport, dataset_id=dataset_id, embedding_id=found.id)
            except NotFoundException:  # somebody else did it meanwhile, or an answer of ours was lost
                was_lost = True
        number += 1


def _put_csv(transport: Transport, url: str, path: Path) -> None:
    size = path.stat().st_size

    def open_body() -> BinaryIO:
        return path.open("rb")

    headers = build_put_headers(url, size, s3_kms_key=os.environ.get("LIGHTLY_S3_SSE_KMS_KEY"))
    transport.put_signed_url(url, open_body, size, headers)


def ask_for_projections(
    transport: Transport,
    *,
    dataset_id: str,
    embedding_id: str,
    methods: Sequence[DimensionalityReductionMethod] = ALL_PROJECTIONS,
) -> None:
    """Asks for projections. The embedding is stored whatever comes of them, so a failure only warns."""
    for method in methods:
        try:
            embeddings.trigger_projection(
                transport, dataset_id=dataset_id, embedding_id=embedding_id, method=method
            )
        except WatcherError as error:
            warnings.warn(
                f"the embedding is stored, but its {method} projection is not: {error}", stacklevel=3
            )


def wait_until_processed(
    transport: Transport,
    *,
    dataset_id: str,
    embedding_id: str,
    deadline_s: float,
    cancel: threading.Event | None = None,
    poll_s: float = 1.0,
) -> DatasetEmbeddingData:
    """Waits until the server has read the CSV of an embedding.

    Args:
        transport: the way.
        dataset_id: whose embedding.
        embedding_id: which one.
        deadline_s: longest wait in all, in seconds.
        cancel: set it to stop waiting.
        poll_s: wait between two looks, in seconds; doubles up to 30.

    Raises:
        DeadlineExceededError: it was not read in time.
        CancelledError: `cancel` was set.
        EmbeddingDoesNotExistError: it is gone.
        ApiException: any 4xx at once; other failures when there were 20 in a row.
    """
    clock = transport.clock
    stop = cancel or threading.Event()
    end_s = clock.monotonic_s() + deadline_s
    n_failures = 0
    while True:
        try:
            present = embeddings.fetch_embeddings(transport, dataset_id=dataset_id)
        except (ApiException, TransportError) as error:
            n_failures += 1
            if not error.retryable or n_failures >= _MAX_CONSECUTIVE_FAILURES:
                raise
        else:
            n_failures = 0
            found = next((embedding for embedding in present if embedding.id == embedding_id), None)
            if found is None:
                raise EmbeddingDoesNotExistError(f"embedding {embedding_id} is gone")
            if found.is_processed:
                return found
        left_s = end_s - clock.monotonic_s()
        if left_s <= 0:
            raise DeadlineExceededError(
                f"the server did not read embedding {embedding_id} in {deadline_s:g} s"
            )
        if clock.wait_s(stop, min(poll_s, left_s)):
            raise CancelledError("asked to stop while the server was reading an embedding")
        poll_s = min(30.0, poll_s * 2)


def append_embeddings_stream(
    transport: Transport,
    *,
    dataset_id: str,
    embedding_id: str,
    out_path: str | Path,
    new_rows: Mapping[str, Sequence[Any]],
    columns: Sequence[str] | None = None,
    timeout_s: float = _DOWNLOAD_TIMEOUT_S,
) -> EmbeddingsFile:
    """Writes a CSV of the rows of a stored embedding and of new ones, a row at a time.

    Remote rows come first in their order, each replaced by the new row of its name if there is one; then the
    remaining new rows in theirs. `out_path` is replaced only once the new file is whole.

    Args:
        transport: the way.
        dataset_id: whose embedding.
        embedding_id: which one.
        out_path: the file to write.
        new_rows: file name to the cells behind it: the numbers, then the label. Only its keys need be in memory.
        columns: column names of the new rows, if known; they must be those of the stored embedding.
        timeout_s: longest time for reading the remote CSV once, in seconds.

    Raises:
        DatasetError: the remote CSV is empty or none, the columns differ, or a new row has another number of cells.
        TransportError: the download broke off, after all tries.
    """

    def append_once() -> EmbeddingsFile:
        url = embeddings.fetch_csv_read_url(transport, dataset_id=dataset_id, embedding_id=embedding_id)
        with (
            transport.open_read_url(url, deadline_s=timeout_s) as stream,
            open_replacement(Path(out_path)) as out,
        ):
            return _merge(stream, out, new_rows, columns)

    return transport.run_with_retries(append_once, repeatable=True)


def _merge(
    stream: ReadStream, out: BinaryIO, new_rows: Mapping[str, Sequence[Any]], columns: Sequence[str] | None
) -> EmbeddingsFile:
    rows = iter_csv(io.BufferedReader(_RawStream(stream), 1 << 18))
    header = next(rows, None)
    if not header:
        raise DatasetError("the stored embedding is empty: its upload never ended")
    shape = check_header(header)
    if columns is not None and list(columns) != header:
        raise DatasetError(
            f"the local file has {len(columns)} columns, the stored embedding {len(header)}, or their names differ"
        )
    out.write((",".join(map(quote_cell, header)) + "\r\n").encode())
    used: set[str] = set()
    n_rows = 0
    for row in rows:
        if not row:
            continue
        name = row[0]
        if name in new_rows:
            row = [name, *new_rows[name]]  # noqa: PLW2901 - the local row takes its place
            used.add(name)
        _write_row(out, row, len(header))
        n_rows += 1
    for name in new_rows:
        if name not in used:
            _write_row(out, [name, *new_rows[name]], len(header))
            n_rows += 1
    return EmbeddingsFile(n_rows=n_rows, dim=shape.dim, n_extra_columns=shape.n_extra_columns)


def _write_row(out: BinaryIO, row: Sequence[Any], n_columns: int) -> None:
    if len(row) != n_columns:
        raise DatasetError(f"the row of {row[0]!r} has {len(row)} cells, the stored embedding {n_columns}")
    out.write((",".join([quote_cell(str(cell)) for cell in row]) + "\r\n").encode())


class _RawStream(io.RawIOBase):
    """An object being read, as a file."""

    def __init__(self, stream: ReadStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
