"""The samples of a tag: their names as a list and as text, and in the forms that labelling tools import."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from watcher.lightly.wire.exports import LabelBoxDataRow, LabelBoxV4DataRow, LabelStudioData, LabelStudioTask
from watcher.platform import access, datasources, samples, signing, tags
from watcher.platform.blobs import build_sample_key
from watcher.platform.calls import (
    PAGE_OFFSET,
    PAGE_SIZE,
    Call,
    Operation,
    Stream,
    boolean,
    choice,
    integer,
    text,
)
from watcher.platform.store import samples as sample_store

NAME_FORMAT = choice("fileNameFormat", "NAME", "DATASOURCE_FULL", "REDIRECTED_READ_URL")
EXPIRES_IN = integer("expiresIn", minimum=1, maximum=10**10)
WITH_METADATA = boolean("includeMetaData")
_CHUNK = 1000
# A URL of an export is good without an end, unless one is asked for: tasks wait in a labelling tool for months.
_FOR_EVER_S = 10**10


def iter_samples(
    call: Call,
    dataset_id: str,
    mask: Iterable[int],
    *,
    columns: tuple[str, ...] | None,
    chunk: int = _CHUNK,
) -> Iterator[list[sample_store.SampleRow]]:
    """The samples at ascending positions, piece by piece; all columns for None."""
    positions: list[int] = []
    for position in mask:
        positions.append(position)
        if len(positions) == chunk:
            yield _load(call, dataset_id, positions, columns)
            positions = []
    if positions:
        yield _load(call, dataset_id, positions, columns)


def _load(
    call: Call, dataset_id: str, positions: list[int], columns: tuple[str, ...] | None
) -> list[sample_store.SampleRow]:
    with call.platform.database.read() as session:
        return sample_store.load_samples_at(
            session, dataset_id=dataset_id, positions=positions, columns=columns
        )


def get_filenames(call: Call) -> Stream:
    """The names in a tag, in mapping order."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        mask = tags.decode_mask(access.find_tag(session, dataset.id, call.path["tagId"]).mask)

    def chunks() -> Iterator[bytes]:
        opening = b"["
        for rows in iter_samples(call, dataset.id, mask, columns=("file_name",)):
            yield opening + msgspec.json.encode([row.file_name for row in rows])[1:-1]
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return Stream(chunks())


def export_filenames(call: Call) -> Stream:
    """The names in a tag as one JSON text, a line each.

    Everything comes at offset 0 and nothing behind it: 1.5.26 compares characters with the page size, so any other
    cut would make it lose or repeat lines.
    """
    kind = NAME_FORMAT.of(call) or "NAME"
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        mask = tags.decode_mask(access.find_tag(session, dataset.id, call.path["tagId"]).mask)
        source = datasources.load_source(call.platform, session, dataset.id) if kind != "NAME" else None
    if PAGE_OFFSET.of(call):
        return Stream(iter([b'""']))

    def chunks() -> Iterator[bytes]:
        yield b'"'
        separator = b""
        for rows in iter_samples(call, dataset.id, mask, columns=("file_name",)):
            names = [row.file_name for row in rows]
            if kind == "REDIRECTED_READ_URL":
                names = datasources.sign_redirects(call, dataset.id, names)
            elif kind == "DATASOURCE_FULL" and source is not None:
                names = [source.prefix + name for name in names]
            yield separator + msgspec.json.encode("\n".join(names))[1:-1]
            separator = b"\\n"
        yield b'"'

    return Stream(chunks())


Entry = Callable[[sample_store.SampleRow, str], Any]


def _to_task(row: sample_store.SampleRow, url: str) -> LabelStudioTask:
    return LabelStudioTask(id=row.position, data=LabelStudioData(image=url, lightly_file_name=row.file_name))


def _to_described_task(row: sample_store.SampleRow, url: str) -> Any:
    data = {"image": url, "lightlyFileName": row.file_name, "lightlyMetaInfo": samples.to_reply(row)}
    return {"id": row.position, "data": data}


def _to_row(row: sample_store.SampleRow, url: str) -> LabelBoxDataRow:
    return LabelBoxDataRow(external_id=row.file_name, image_url=url)


def _to_row_v4(row: sample_store.SampleRow, url: str) -> LabelBoxV4DataRow:
    return LabelBoxV4DataRow(row_data=url, global_key=row.file_name, media_type="IMAGE")


def export_tasks(call: Call) -> Stream:
    """The samples of a tag as tasks of Label Studio."""
    return _export(call, _to_described_task if WITH_METADATA.of(call) else _to_task)


def export_rows(call: Call) -> Stream:
    """The samples of a tag as rows of Labelbox, version 3."""
    return _export(call, _to_row)


def export_rows_v4(call: Call) -> Stream:
    """The samples of a tag as rows of Labelbox, version 4."""
    return _export(call, _to_row_v4)


def _export(call: Call, build: Entry) -> Stream:
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        mask = tags.decode_mask(access.find_tag(session, dataset.id, call.path["tagId"]).mask)
        source = datasources.load_source(call.platform, session, dataset.id)
    first, limit = PAGE_OFFSET.of(call) or 0, PAGE_SIZE.of(call)
    life_s = EXPIRES_IN.of(call)
    positions = itertools.islice(mask, first, None if limit is None else first + limit)
    columns = None if build is _to_described_task else ("id", "position", "file_name")
    is_uploaded = dataset.img_type == "full" or source is None or source.objects is None

    def find_urls(rows: list[sample_store.SampleRow]) -> list[str]:
        if source is None or is_uploaded:
            keys = (
                build_sample_key(dataset.id, row.id, thumbnail=dataset.img_type != "full") for row in rows
            )
            return [signing.sign_read(call, key, ttl_s=life_s or _FOR_EVER_S) for key in keys]
        names = [row.file_name for row in rows]
        if life_s is None:
            return datasources.sign_redirects(call, dataset.id, names)
        return datasources.sign_reads(call, dataset.id, source, names)

    def chunks() -> Iterator[bytes]:
        opening = b"["
        for rows in iter_samples(call, dataset.id, positions, columns=columns):
            entries = [build(row, url) for row, url in zip(rows, find_urls(rows), strict=True)]
            yield opening + msgspec.json.encode(entries)[1:-1]
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return Stream(chunks())


_ONE = "/v1/datasets/{datasetId}/tags/{tagId}"
_EXPORT = _ONE + "/export"
_LABELLING = (
    EXPIRES_IN,
    text("accessControl"),
    NAME_FORMAT,
    WITH_METADATA,
    text("format"),
    boolean("previewExample"),
    PAGE_SIZE,
    PAGE_OFFSET,
)
OPERATIONS = (
    Operation(
        "GET",
        _EXPORT + "/LabelStudio/tasks",
        "exportTagToLabelStudioTasks",
        export_tasks,
        "The samples of a tag as tasks of Label Studio",
        reply=list[LabelStudioTask],
        query=_LABELLING,
    ),
    Operation(
        "GET",
        _EXPORT + "/LabelBox/datarows",
        "exportTagToLabelBoxDataRows",
        export_rows,
        "The samples of a tag as rows of Labelbox 3",
        reply=list[LabelBoxDataRow],
        query=_LABELLING,
    ),
    Operation(
        "GET",
        _EXPORT + "/LabelBoxV4/datarows",
        "exportTagToLabelBoxV4DataRows",
        export_rows_v4,
        "The samples of a tag as rows of Labelbox 4",
        reply=list[LabelBoxV4DataRow],
        query=_LABELLING,
    ),
    Operation(
        "GET",
        _ONE + "/filenames",
        "getFilenamesByTagId",
        get_filenames,
        "Names of the samples in a tag",
        reply=list[str],
    ),
    Operation(
        "GET",
        _ONE + "/export/basic/filenames",
        "exportTagToBasicFilenames",
        export_filenames,
        "Names of the samples in a tag, as text",
        reply=str,
        query=_LABELLING,
    ),
)
